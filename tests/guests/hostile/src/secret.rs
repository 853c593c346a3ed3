//! Leaves a secret wherever a guest can, and looks for one in all of its memory.

#![allow(unsafe_code, reason = "it looks at memory that is not its own to look at")]

use std::arch::wasm32::{memory_grow, memory_size};
use std::hint::black_box;

use castling_sdk::prelude::*;

use crate::overdo::number;
use crate::wish;

/// `plant`: the bytes of `x-secret`, over and over, on the heap (`x-bytes` of it, which stay) and on the stack. `look`:
/// grows its memory by as much and answers how often it finds them; `x-secret` is then written backwards, so that the
/// request itself brings nothing that could be found.
pub(crate) fn in_access(request: &mut Request) -> Result<Verdict> {
    let secret = wish(request, "x-secret").into_bytes();
    match wish(request, "x-do").as_str() {
        "plant" => {
            let mut heap = Vec::with_capacity(number(request, "x-bytes"));
            fill(&mut heap, &secret);
            std::mem::forget(black_box(heap));
            on_the_stack(&secret);
            if !wish(request, "x-then").is_empty() {
                panic!("asked to panic after planting");
            }
        }
        "look" => {
            let pages = number(request, "x-bytes").div_ceil(PAGE_BYTES);
            let grown = memory_grow::<0>(pages) != usize::MAX;
            let (found, bytes) = look(&secret);
            return Ok(Response::status(200).body(format!("{found} in {bytes}, grown: {grown}")).into());
        }
        _ => {}
    }
    Ok(Verdict::Continue)
}

fn fill(room: &mut Vec<u8>, secret: &[u8]) {
    while room.len() + secret.len() <= room.capacity() {
        room.extend_from_slice(secret);
    }
}

#[inline(never)]
fn on_the_stack(secret: &[u8]) {
    let mut room = [0_u8; 64 * 1024];
    for (byte, secret) in room.iter_mut().zip(secret.iter().cycle()) {
        *byte = *secret;
    }
    black_box(&room);
}

/// How often the bytes, read backwards, are in all of memory, and how much that is.
fn look(backwards: &[u8]) -> (usize, usize) {
    let end = memory_size::<0>() * PAGE_BYTES;
    // The first bytes are left out: no slice begins at address 0.
    let start = black_box(16_usize);
    // SAFETY: all of linear memory can be read, and nothing writes to it meanwhile.
    let memory = unsafe { std::slice::from_raw_parts(start as *const u8, end - start) };
    let Some(&first) = backwards.last() else {
        return (0, end);
    };
    let found = memory
        .windows(backwards.len())
        .filter(|window| window[0] == first && window.iter().eq(backwards.iter().rev()))
        .count();
    (found, end)
}

const PAGE_BYTES: usize = 64 * 1024;
