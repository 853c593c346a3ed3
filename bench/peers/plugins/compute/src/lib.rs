//! Computes for as many rounds as the header `x-compute` of a request says.

use castling_sdk::prelude::*;

#[derive(Default)]
struct Compute;

#[plugin]
impl Compute {
    fn access(&self, request: &mut Request) {
        let Some(rounds) = request.header("x-compute") else {
            return;
        };
        let rounds: u32 = rounds.as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut number: u32 = 2_463_534_242;
        for _ in 0..rounds {
            number ^= number << 13;
            number ^= number >> 17;
            number ^= number << 5;
        }
        request.set_header("x-computed", number.to_string());
    }
}
