#![forbid(unsafe_code)]
#![deny(warnings)]

use castling_sdk::prelude::*;

#[derive(Default)]
struct Everything {
    calls: u32,
}

#[derive(Default, Deserialize, Serialize)]
struct Tail {
    bytes: usize,
}

#[plugin(state = Tail, variables = ["shoe_size", "hat"], timer = "250ms", timer_on = "one_worker")]
impl Everything {
    fn post_read(&self, request: &Request) {
        request.set_var("seen", request.method());
    }

    fn rewrite(&mut self, state: &mut Tail, request: &mut Request) -> Result<Verdict> {
        state.bytes = 0;
        self.calls += 1;
        request.set_path("/");
        Ok(Verdict::Reroute)
    }

    fn preaccess(&self, _: &Request) -> Result<()> {
        delay(Duration::from_millis(1))
    }

    fn access(&self, _: &mut Request) -> Result<()> {
        bail!("not today")
    }

    fn content(&self, _: &mut Request) -> Verdict {
        Verdict::Continue
    }

    fn request_body(&mut self, state: &mut Tail, _: &Request, chunk: &mut Chunk) -> Verdict {
        state.bytes += chunk.len();
        match chunk.trailer("x-sum") {
            Some(_) => Response::status(400).into(),
            None => Verdict::Continue,
        }
    }

    fn balance(&mut self, _: &Request, peers: &Peers) -> Option<usize> {
        peers.iter().find(|peer| !peer.tried).map(|peer| peer.index)
    }

    fn peer_done(&mut self, peer: usize, outcome: PeerOutcome, latency: Duration) {
        log::debug!("peer {peer}: {outcome:?} after {latency:?}");
    }

    fn response_headers(&self, _: &Request, reply: &mut Reply) {
        reply.remove_header("server");
    }

    fn response_body(&self, state: &mut Tail, _: &Request, chunk: &mut Chunk) -> Result<()> {
        state.bytes += chunk.len();
        Ok(())
    }

    fn log(&self, _: &Request, outcome: &Outcome) -> Result<(), std::num::TryFromIntError> {
        let _bytes = u32::try_from(outcome.body_bytes_sent())?;
        Ok(())
    }

    fn after_response(&self, state: &mut Tail, _: &Request, outcome: &Outcome) -> Result<()> {
        state.bytes += usize::from(outcome.status().unwrap_or(0));
        delay(Duration::from_millis(1))
    }

    fn variable(&self, _: &Request, name: &str) -> Result<Option<&str>> {
        match name {
            "hat" => Ok(Some("bowler")),
            _ => bail!("no {name}"),
        }
    }

    fn timer(&mut self, state: &mut Tail) -> Result<()> {
        state.bytes = 0;
        Ok(())
    }

    fn message(&mut self, topic: &str, message: &[u8]) {
        log::debug!("{} bytes on {topic}", message.len());
    }
}

fn main() {}
