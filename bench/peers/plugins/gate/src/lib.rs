//! Reads one header, sets one each way, may answer 403. The files gate.* of the peers do the same.

use castling_sdk::prelude::*;

#[derive(Default)]
struct Gate;

#[plugin]
impl Gate {
    fn access(&self, request: &mut Request) -> Verdict {
        match request.header("x-api-key") {
            Some(key) => {
                request.set_header("x-consumer", &key);
                Verdict::Continue
            }
            None => Response::status(403).body("key required\n").into(),
        }
    }

    fn response_headers(&self, _: &Request, reply: &mut Reply) {
        reply.set_header("x-gate", "passed");
    }
}
