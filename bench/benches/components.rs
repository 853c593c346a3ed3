//! Benchmarks of what a request runs through without a plugin, part by part: `cargo xtask bench components`.

use std::fs;
use std::path::Path;

use castling::rig::components::{Counters, HashMethod, Head, Peers, Routes, Values};
use divan::{Bencher, black_box};
use tempfile::TempDir;

fn main() {
    // A single call takes little more than a look at the clock.
    divan::Divan::from_args().sample_size(1000).main();
}

/// Routes of one listener, with a path each below `/api` and every tenth for a host of its own; `/` takes the rest.
fn routes(count: usize) -> Routes {
    let mut config = String::from(
        "[listeners.web]\nbind = \"127.0.0.1:8080\"\n[upstreams.app]\npeers = [\"127.0.0.1:1\"]\n[[routes]]\nupstream = \"app\"\n",
    );
    for n in 1..count {
        config.push_str(&format!(
            "[[routes]]\npath = \"/api/v{n}\"\nupstream = \"app\"\n"
        ));
        if n % 10 == 0 {
            config.push_str(&format!("hosts = [\"h{n}.example\"]\n"));
        }
    }
    let folder = folder();
    let file = folder.path().join("castling.toml");
    fs::write(&file, config).expect("the config can be written");
    Routes::load(&file).unwrap_or_else(|error| panic!("{error}"))
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder can be made")
}

fn head(host: &str, path: &str) -> Head {
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    Head::parse(head.as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

fn find(bencher: Bencher<'_, '_>, count: usize, host: &str, path: &str) {
    let routes = routes(count);
    let head = head(host, path);
    assert!(routes.find(&head).is_some());
    bencher.bench_local(|| routes.find(black_box(&head)).is_some());
}

/// Numbers of routes, as a small gateway has, and as one of many teams has.
#[divan::bench(args = [10, 300])]
fn route_by_path(bencher: Bencher<'_, '_>, count: usize) {
    find(bencher, count, "www.example", "/api/v1/users?page=2");
}

/// A path that none of the others takes; with one route, there is no other.
#[divan::bench(args = [1, 10, 300])]
fn route_by_root(bencher: Bencher<'_, '_>, count: usize) {
    find(bencher, count, "www.example", "/index.html");
}

#[divan::bench(args = [300])]
fn route_by_host(bencher: Bencher<'_, '_>, count: usize) {
    find(bencher, count, "h200.example", "/api/v200");
}

/// Numbers of peers: one, a few, the pods of a large service, and those of a very large one.
const PEERS: [u16; 4] = [1, 8, 100, 1000];

fn choose(bencher: Bencher<'_, '_>, peers: Result<Peers, String>) {
    let mut peers = peers.unwrap_or_else(|error| panic!("{error}"));
    bencher.bench_local(|| peers.choose());
}

#[divan::bench(args = PEERS)]
fn round_robin(bencher: Bencher<'_, '_>, count: u16) {
    choose(bencher, Peers::round_robin(count));
}

/// Weights that differ.
#[divan::bench(args = PEERS)]
fn weighted_round_robin(bencher: Bencher<'_, '_>, count: u16) {
    choose(bencher, Peers::weighted_round_robin(count));
}

#[divan::bench(args = PEERS)]
fn least_conn(bencher: Bencher<'_, '_>, count: u16) {
    choose(bencher, Peers::least_conn(count));
}

#[divan::bench(args = PEERS)]
fn least_time(bencher: Bencher<'_, '_>, count: u16) {
    choose(bencher, Peers::least_time(count));
}

#[divan::bench(args = PEERS)]
fn random(bencher: Bencher<'_, '_>, count: u16) {
    choose(bencher, Peers::random(count));
}

#[divan::bench(args = PEERS)]
fn ewma(bencher: Bencher<'_, '_>, count: u16) {
    choose(bencher, Peers::ewma(count));
}

#[divan::bench(args = PEERS)]
fn hash_ketama(bencher: Bencher<'_, '_>, count: u16) {
    choose(bencher, Peers::hash(HashMethod::Ketama, None, count));
}

#[divan::bench(args = PEERS)]
fn hash_maglev(bencher: Bencher<'_, '_>, count: u16) {
    choose(bencher, Peers::hash(HashMethod::Maglev, None, count));
}

#[divan::bench(args = PEERS)]
fn hash_bounded(bencher: Bencher<'_, '_>, count: u16) {
    choose(bencher, Peers::hash(HashMethod::Maglev, Some(1.25), count));
}

#[divan::bench]
fn counter_zone_add(bencher: Bencher<'_, '_>) {
    let zone = Counters::new().unwrap_or_else(|error| panic!("{error}"));
    bencher.bench_local(|| zone.add(black_box(b"203.0.113.9")));
}

fn values(folder: &Path) -> Values {
    let zone = Values::new(&folder.join("zone")).unwrap_or_else(|error| panic!("{error}"));
    for n in 0..1000 {
        let put = zone.put(format!("key {n}").as_bytes(), &[b'x'; 100]);
        assert_eq!(put, Ok(true));
    }
    zone
}

#[divan::bench]
fn kv_zone_read(bencher: Bencher<'_, '_>) {
    let folder = folder();
    let zone = values(folder.path());
    assert_eq!(zone.read(b"key 500"), Ok(Some(100)));
    bencher.bench_local(|| zone.read(black_box(b"key 500")));
}

#[divan::bench]
fn kv_zone_put(bencher: Bencher<'_, '_>) {
    let folder = folder();
    let zone = values(folder.path());
    bencher.bench_local(|| zone.put(black_box(b"key 500"), &[b'y'; 100]));
}
