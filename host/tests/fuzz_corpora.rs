//! Runs what the fuzz targets run over their corpora, so that what they once found stays found without a fuzzer.
#![allow(
    unreachable_pub,
    reason = "the targets' files are modules of a library, where the fuzzer builds them"
)]

#[path = "../../tests/tests/scripts/calls.rs"]
mod calls;
#[path = "../../fuzz/src/guest.rs"]
mod guest;
#[path = "../../fuzz/src/host_calls.rs"]
mod host_calls;
#[path = "../../fuzz/src/lowered.rs"]
mod lowered;
#[path = "../../fuzz/src/messages.rs"]
mod messages;
#[path = "../../fuzz/src/modules.rs"]
mod modules;
#[path = "../../fuzz/src/scripts.rs"]
mod scripts;
#[path = "../../fuzz/src/site.rs"]
mod site;
#[path = "../../fuzz/src/texts.rs"]
mod texts;
#[path = "../../fuzz/src/wasi.rs"]
mod wasi;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[test]
fn host_calls_survive_their_corpus() {
    replay("host_calls", host_calls::run);
}

#[test]
fn the_fake_host_does_what_the_gateways_runtime_does() {
    replay("scripts", |input| {
        scripts::run(input);
    });
    // The target does reach what it is about: of the calls of a hook some are made, and others left out.
    let made =
        scripts::run(b"\0\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10");
    assert!(made > 0);
}

#[test]
fn functions_of_wasi_survive_their_corpus() {
    replay("wasi", |input| {
        wasi::run(input);
    });
    // The target does reach what it is about: `sched_yield`, of which the hook returns, and `proc_exit`, of which it does not.
    let count = castling::rig::WASI_FUNCTIONS.len() as u8;
    let call = |function: u8| [3, 1, function];
    let yields = call(count - 1);
    let exit = castling::rig::WASI_FUNCTIONS
        .iter()
        .position(|(name, _)| *name == "proc_exit");
    assert!(wasi::run(&yields));
    assert!(!wasi::run(&call(exit.unwrap() as u8)));
}

#[test]
fn the_loader_survives_its_corpus() {
    replay("modules", |input| {
        modules::run(input);
    });
    // The target does reach what it is about.
    let manifest = br#"{"abi":1,"name":"x","version":"1.0.0","sdk":"0","hooks":["access","log"]}"#;
    assert_eq!(modules::run(manifest), 2);
}

#[test]
fn heads_and_bodies_survive_their_corpora() {
    replay("requests", messages::requests);
    replay("responses", messages::responses);
    replay("chunks", messages::chunks);
    replay("http2_heads", messages::http2_heads);
    replay("proxy_headers", messages::proxy_headers);
    replay("name_answers", messages::name_answers);
}

#[test]
fn paths_and_configs_survive_their_corpora() {
    replay("paths", texts::paths);
    replay("query_and_cookies", texts::query_and_cookies);
    replay("cached_responses", texts::cached_responses);
    replay("configs", texts::configs);
}

fn replay(target: &str, run: fn(&[u8])) {
    let inputs = inputs(target);
    for (path, input) in &inputs {
        survives(target, path, input, run);
    }
    // And some that nobody has seen, the same ones each time; CASTLING_FUZZ_INPUTS says how many.
    let count = std::env::var("CASTLING_FUZZ_INPUTS").ok();
    let count = count.map_or(300, |count| count.parse().unwrap());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..count {
        let (path, input) = &inputs[random.below(inputs.len())];
        survives(target, path, &mutated(input, &mut random), run);
    }
}

fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let mut paths = Vec::new();
    for kind in ["corpus", "regressions"] {
        let entries = fs::read_dir(fuzz.join(kind).join(target));
        paths.extend(
            entries
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path()),
        );
    }
    assert!(!paths.is_empty(), "no corpus of {target}");
    paths.sort();
    paths
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

fn survives(target: &str, path: &Path, input: &[u8], run: fn(&[u8])) {
    if catch_unwind(AssertUnwindSafe(|| run(input))).is_err() {
        let copy = std::env::temp_dir().join(format!("castling-{target}-finding"));
        fs::write(&copy, input).unwrap();
        panic!(
            "{target} does not survive {}, made from {}",
            copy.display(),
            path.display()
        );
    }
}

/// A few bytes changed, put in, taken out or repeated.
fn mutated(input: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(8) {
        let at = random.below(bytes.len() + 1);
        match random.below(6) {
            0 => bytes.insert(at, random.next() as u8),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            3 if at < bytes.len() => bytes[at] = random.next() as u8,
            4 => bytes.extend((0..random.below(64)).map(|_| random.next() as u8)),
            _ => {
                let end = (at + random.below(16)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.extend(part);
            }
        }
    }
    bytes
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}
