//! The benchmark that compares the gateway with its peers runs, without peers and so shortly that it says nothing of
//! costs.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use castling_tests::{bench_bin, castling_bin, plugins_dir, workspace_root};

#[test]
fn the_benchmark_measures_the_gateway_and_writes_its_report() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = folder.path().join("REPORT.md");
    let output = Command::new(bench_bin())
        .args(places(folder.path()))
        .args(["peers", "--cases", "latency", "--peers", "castling"])
        .args([
            "--rounds",
            "1",
            "--seconds",
            "1",
            "--rate",
            "200",
            "--report",
        ])
        .arg(&report)
        .output()
        .expect("the benchmark can be run");

    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.contains("200 requests/s"), "{said}");
    let text = fs::read_to_string(&report).expect("the report");
    assert!(text.contains("### Latency at half load"), "{text}");
    assert!(text.contains("| Castling | "), "{text}");
    let plot = fs::read_to_string(folder.path().join("report/latency.svg")).expect("the plot");
    assert!(plot.contains("p99 µs, ratio to Castling"), "{plot}");
}

#[test]
fn clients_of_tls_and_http2_are_measured_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(bench_bin())
        .args(places(folder.path()))
        .args(["peers", "--cases", "latency-tls,latency-http2"])
        .args(["--peers", "castling", "--rounds", "1", "--seconds", "0.5"])
        .args(["--rate", "200", "--tries", "1"])
        .output()
        .expect("the benchmark can be run");

    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    assert_eq!(said.matches("p99.9 µs").count(), 2, "{said}");
    assert!(!said.contains("FAILED"), "{said}");
}

#[test]
fn a_case_that_is_not_there_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(bench_bin())
        .args(places(folder.path()))
        .args(["peers", "--cases", "plain,fast"])
        .output()
        .expect("the benchmark can be run");

    assert!(!output.status.success());
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "castling-bench: --cases fast: there is no such case (--list tells them)\n"
    );
}

/// Places as `cargo xtask bench` tells them.
fn places(work: &Path) -> Vec<OsString> {
    let places = [
        ("--castling", castling_bin()),
        ("--guests", work.to_owned()),
        ("--plugins", plugins_dir()),
        ("--bench-plugins", work.to_owned()),
        ("--bench", workspace_root().join("bench")),
        ("--work", work.to_owned()),
    ];
    let words = places.map(|(option, place)| [option.into(), place.into()]);
    words.into_iter().flatten().collect()
}
