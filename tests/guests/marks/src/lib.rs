//! Counts its hooks in 64 bytes of plain data, which the host copies from one to the next, and tells the counts in `x-marks`.

use castling_sdk::bytemuck::{Pod, Zeroable};
use castling_sdk::prelude::*;

#[derive(Default)]
struct Marks;

#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[bytemuck(crate = "castling_sdk::bytemuck")]
#[repr(C)]
struct Counts {
    rewrites: u32,
    accesses: u32,
    responses: u32,
    chunks: u32,
    others: [u64; 6],
}

#[plugin(state = Counts, state_as = "plain")]
impl Marks {
    fn rewrite(&self, counts: &mut Counts, _: &mut Request) {
        counts.rewrites += 1;
    }

    /// Looks on.
    fn access(&self, counts: &mut Counts, request: &mut Request) {
        request.set_var("before", counts.accesses.to_string());
        counts.others[5] = 7;
    }

    fn response_headers(&self, counts: &mut Counts, _: &Request, reply: &mut Reply) {
        counts.responses = counts.responses.wrapping_add(1);
        let Counts {
            rewrites,
            accesses,
            responses,
            others,
            ..
        } = *counts;
        if reply.header("x-marks").is_some() {
            reply.set_header(
                "x-marks",
                format!("{rewrites} {accesses} {responses} {}", others[5]),
            );
        }
    }

    fn response_body(&self, counts: &mut Counts, _: &Request, chunk: &mut Chunk) {
        counts.chunks += 1;
        if chunk.is_last() {
            chunk.replace([chunk.data(), format!("[{}]", counts.chunks).as_bytes()].concat());
        }
    }
}
