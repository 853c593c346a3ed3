use castling_sdk::prelude::*;

struct NoDefault;

#[plugin]
impl NoDefault {
    fn access(&self, _: &mut Request) -> bool {
        true
    }

    fn response_body(&self, _: &Request, _: &mut Chunk) -> Verdict {
        Verdict::Continue
    }

    fn balance(&self, _: &Request, _: &Peers) -> usize {
        0
    }
}

fn main() {}
