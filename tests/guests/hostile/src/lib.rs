//! Does what a plugin must not, where and when a request's headers ask: `x-do` says what, `x-in` in which hook
//! (`access` when it says nothing, `every` for all of them), `x-ms` for how long.

mod overdo;
mod secret;

use std::hint::black_box;
use std::time::Duration;

use castling_sdk::prelude::*;

#[derive(Default)]
struct Hostile;

#[plugin]
impl Hostile {
    fn rewrite(&self, request: &mut Request) -> Result<Verdict> {
        misbehave(request, "rewrite")?;
        Ok(Verdict::Continue)
    }

    fn access(&self, request: &mut Request) -> Result<Verdict> {
        misbehave(request, "access")?;
        match overdo::in_access(request)? {
            Verdict::Continue => secret::in_access(request),
            verdict => Ok(verdict),
        }
    }

    fn balance(&mut self, request: &Request, peers: &Peers) -> Result<Option<usize>> {
        misbehave(request, "balance")?;
        Ok(match wish(request, "x-do").as_str() {
            "peer-beyond-the-end" => Some(peers.len() + 1000),
            "peer-first" => Some(0),
            _ => None,
        })
    }

    fn response_headers(&self, request: &Request, reply: &mut Reply) -> Result<Verdict> {
        overdo::in_response_headers(request, reply);
        misbehave(request, "response_headers")?;
        Ok(Verdict::Continue)
    }

    fn response_body(&self, request: &Request, chunk: &mut Chunk) -> Result<()> {
        if wish(request, "x-do") == "fail-at-end" && chunk.is_last() {
            bail!("response_body was asked to fail at the end");
        }
        overdo::in_response_body(request, chunk);
        misbehave(request, "response_body")
    }

    fn log(&self, request: &Request, _outcome: &Outcome) -> Result<()> {
        misbehave(request, "log")
    }
}

fn misbehave(request: &Request, hook: &str) -> Result<()> {
    let place = wish(request, "x-in");
    let place = if place.is_empty() { "access" } else { &place };
    if place != hook && place != "every" {
        return Ok(());
    }
    match wish(request, "x-do").as_str() {
        "panic" => panics_on_purpose(hook),
        "loop" => loops_for_ever(),
        "grow" => hoards_memory(),
        "recurse" => {
            black_box(recurses_for_ever(1));
            Ok(())
        }
        "compute" => {
            computes(Duration::from_millis(number(request, "x-ms")));
            Ok(())
        }
        "wait" => delay(Duration::from_millis(number(request, "x-ms"))),
        "fail" => Err(Error::msg(format!("{hook} was asked to fail"))),
        _ => Ok(()),
    }
}

fn wish(request: &Request, header: &str) -> String {
    let value = request.header(header);
    value
        .as_ref()
        .and_then(|value| value.as_str())
        .unwrap_or_default()
        .to_owned()
}

fn number(request: &Request, header: &str) -> u64 {
    wish(request, header).parse().unwrap_or(0)
}

#[inline(never)]
fn panics_on_purpose(hook: &str) -> ! {
    panic!("{hook} was asked to panic")
}

#[inline(never)]
fn loops_for_ever() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Until its own clock has gone on by so much. It looks some ten thousand times a second, so that `limits.host_calls` is not
/// what ends it.
#[inline(never)]
fn computes(time: Duration) {
    let end = clock::monotonic() + time;
    while clock::monotonic() < end {
        black_box((0..100_000_u32).fold(1, |sum, turn| black_box(sum ^ turn)));
    }
}

#[inline(never)]
fn hoards_memory() -> ! {
    let mut hoard = Vec::new();
    loop {
        hoard.push(black_box(vec![1_u8; 1 << 20]));
    }
}

#[inline(never)]
fn recurses_for_ever(depth: u64) -> u64 {
    if depth == u64::MAX {
        return 0;
    }
    let room = black_box([depth; 64]);
    recurses_for_ever(depth + 1) + room[1]
}
