use castling_sdk::prelude::*;

#[derive(Default)]
struct Typo;

#[plugin]
impl Typo {
    fn acces(&self, _request: &mut Request) -> Verdict {
        Verdict::Continue
    }

    fn tokens_match(&self) -> bool {
        true
    }
}

#[derive(Default)]
struct Nothing;

#[plugin]
impl Nothing {}

#[plugin]
struct NotABlock;

fn main() {}
