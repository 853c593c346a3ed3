//! Runs what the fuzz targets run over their corpora, so that what they once found stays found without a fuzzer.

#[path = "../../fuzz/src/host_calls.rs"]
mod host_calls;
#[path = "../../fuzz/src/modules.rs"]
mod modules;
#[path = "../../fuzz/src/site.rs"]
mod site;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

#[test]
fn host_calls_survive_their_corpus() {
    replay("host_calls", host_calls::run);
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

fn replay(target: &str, run: fn(&[u8])) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let mut inputs = Vec::new();
    for kind in ["corpus", "regressions"] {
        let entries = fs::read_dir(fuzz.join(kind).join(target));
        inputs.extend(
            entries
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path()),
        );
    }
    assert!(!inputs.is_empty(), "no corpus of {target}");
    inputs.sort();
    for path in inputs {
        let input = fs::read(&path).unwrap();
        if catch_unwind(AssertUnwindSafe(|| run(&input))).is_err() {
            panic!("{target} does not survive {}", path.display());
        }
    }
}
