#![forbid(unsafe_code)]

use castling_sdk::prelude::*;

#[derive(Default)]
struct Plugin;

/// The host could not keep it: it is no bytes.
#[derive(Default)]
struct Tail {
    bytes: usize,
}

#[plugin(state = Tail)]
impl Plugin {
    fn access(&self, state: &mut Tail, _: &mut Request) {
        state.bytes += 1;
    }
}

fn main() {}
