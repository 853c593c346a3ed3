use castling_sdk::prelude::*;

struct Signatures;

#[plugin]
impl Signatures {
    fn configure() -> Self {
        Self
    }

    fn rewrite(_request: &mut Request) -> Verdict {
        Verdict::Continue
    }

    fn access(&self, _request: Request) -> Verdict {
        Verdict::Continue
    }

    fn content(&self) -> Verdict {
        Verdict::Continue
    }

    fn log(&self, _request: &mut Request, _outcome: &Outcome) {}

    fn response_body(&self, _state: &mut Vec<u8>, _request: &Request, _chunk: &mut Chunk) {}

    fn response_headers(&self, _request: &Request, _reply: &mut Reply, _more: u8) {}

    async fn post_read(&self, _request: &mut Request) {}
}

fn main() {}
