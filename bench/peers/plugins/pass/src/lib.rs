//! Has each chunk of a response copied to it, looks at it, and lets it pass.

use castling_sdk::prelude::*;

#[derive(Default)]
struct Pass;

#[plugin]
impl Pass {
    fn response_body(&self, _: &Request, chunk: &mut Chunk) {
        std::hint::black_box(chunk.data().len());
    }
}
