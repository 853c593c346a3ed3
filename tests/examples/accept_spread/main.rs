//! Measures how connections and latency spread over workers with a socket for each worker and with one that all share.
//!
//! For 2 and 8 workers and both ways to accept: connections that are opened and kept, one after the other and many at
//! once, and how many of them each worker has; then a request every few milliseconds, each over a new connection, while
//! other clients keep workers busy with hooks that compute. `docs/ACCEPT.md` has figures; `docs/accept.svg` is written
//! anew.
//!
//! ```sh
//! cargo xtask build && cargo run --release -p castling-tests --example accept_spread -- [SECONDS]
//! ```
//!
//! SECONDS is how long each of the four latency rounds takes, 10 if it is left out.

mod plot;

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use castling_tests::{Proxy, RawClient, until, workspace_root};

const CONFIG: &str = r#"
    [workers]
    count = WORKERS

    [plugins.busy]
    wasm = "{guests}/hostile.wasm"
    limits = { cpu = "1s" }

    [plugins.hello]
    wasm = "{plugins}/hello.wasm"

    [listeners.web]
    bind = "{listen}"
    accept = "ACCEPT"

    [[routes]]
    path = "/busy"
    plugins = ["busy", "hello"]

    [[routes]]
    path = "/quick"
    plugins = ["hello"]
"#;

const QUICK: &str = "GET /quick HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const KEPT: &str = "GET /quick HTTP/1.1\r\nHost: a\r\n\r\n";
const BUSY: &str =
    "GET /busy HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Do: compute\r\nX-Ms: 20\r\n\r\n";

/// Connections that are kept to see who has them. All are open at a time in this process.
const CONNECTIONS: usize = 400;

/// Threads that open many at once.
const OPENERS: usize = 8;

/// Threads that send a quick request each interval.
const SENDERS: u32 = 8;
const INTERVAL: Duration = Duration::from_millis(50);

/// Clients that ask for 20 ms of computing, and rest so long.
const BUSY_CLIENTS: usize = 2;
const REST: Duration = Duration::from_millis(60);

/// Figures that were measured with one config.
pub(crate) struct Measured {
    workers: usize,
    accept: &'static str,
    /// Connections of each worker, the most first.
    one_by_one: Vec<u64>,
    at_once: Vec<u64>,
    /// Latencies of quick requests, µs, sorted.
    latencies: Vec<f64>,
}

fn main() {
    let seconds = std::env::args().nth(1);
    let seconds = seconds.map_or(10, |text| text.parse().expect("SECONDS is a number"));
    let mut all = Vec::new();
    for workers in [2, 8] {
        for accept in ["per_worker", "shared"] {
            let measured = measure(workers, accept, Duration::from_secs(seconds));
            println!("{}", measured.line());
            all.push(measured);
        }
    }
    let path = workspace_root().join("docs/accept.svg");
    fs::write(&path, plot::svg(&all)).expect("docs/ is writable");
    println!("written: {}", path.display());
}

impl Measured {
    /// Time that so many of 1000 requests took at most, µs.
    fn quantile(&self, of_1000: usize) -> f64 {
        self.latencies[(self.latencies.len() * of_1000 / 1000).min(self.latencies.len() - 1)]
    }

    fn line(&self) -> String {
        format!(
            "{} workers, {:10} | one by one {:?} | at once {:?} | µs p50 {:.0} p90 {:.0} p99 {:.0} p99.9 {:.0} of {}",
            self.workers,
            self.accept,
            self.one_by_one,
            self.at_once,
            self.quantile(500),
            self.quantile(900),
            self.quantile(990),
            self.quantile(999),
            self.latencies.len()
        )
    }
}

fn measure(workers: usize, accept: &'static str, duration: Duration) -> Measured {
    let config = CONFIG
        .replace("WORKERS", &workers.to_string())
        .replace("ACCEPT", accept);
    let proxy = Proxy::with_config(&config).start();
    let gateway = proxy.address();
    let one_by_one = (0..CONNECTIONS).map(|_| kept(gateway)).collect();
    let one_by_one = shares(&proxy, one_by_one);
    let at_once = thread::scope(|scope| {
        let openers: Vec<_> = (0..OPENERS)
            .map(|_| scope.spawn(move || burst(gateway)))
            .collect();
        let opened = openers.into_iter();
        opened
            .flat_map(|opener| opener.join().expect("an opener"))
            .collect()
    });
    let at_once = shares(&proxy, at_once);
    Measured {
        workers,
        accept,
        one_by_one,
        at_once,
        latencies: latencies(gateway, duration),
    }
}

/// A connection that has been answered on, so that a worker has it.
fn kept(gateway: SocketAddr) -> RawClient {
    let mut client = RawClient::connect(gateway);
    assert_eq!(client.send(KEPT).read_reply().status, 200);
    client
}

/// Opens all its connections before it sends anything.
fn burst(gateway: SocketAddr) -> Vec<RawClient> {
    let open = (0..CONNECTIONS / OPENERS).map(|_| RawClient::connect(gateway));
    let mut clients: Vec<_> = open.collect();
    for client in &mut clients {
        assert_eq!(client.send(KEPT).read_reply().status, 200);
    }
    clients
}

/// How many of these each worker has.
fn shares(proxy: &Proxy, clients: Vec<RawClient>) -> Vec<u64> {
    let mut shares = connections(proxy);
    shares.sort_by(|a, b| b.cmp(a));
    drop(clients);
    until("the workers have none", || {
        connections(proxy).iter().all(|count| *count == 0)
    });
    shares
}

fn connections(proxy: &Proxy) -> Vec<u64> {
    let status = proxy.status();
    let workers = status["workers"].as_array().expect("a list of workers");
    let count = |worker: &serde_json::Value| worker["connections"].as_u64();
    workers.iter().filter_map(count).collect()
}

/// Latencies of quick requests beside busy ones, µs, sorted.
fn latencies(gateway: SocketAddr, duration: Duration) -> Vec<f64> {
    let stop = AtomicBool::new(false);
    let end = Instant::now() + duration;
    let mut latencies: Vec<f64> = thread::scope(|scope| {
        for _ in 0..BUSY_CLIENTS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let reply = RawClient::connect(gateway).send(BUSY).read_reply();
                    assert_eq!(reply.status, 200);
                    thread::sleep(REST);
                }
            });
        }
        let senders: Vec<_> = (0..SENDERS)
            .map(|idx| scope.spawn(move || steady(gateway, INTERVAL / SENDERS * idx, end)))
            .collect();
        let answered = senders.into_iter();
        let latencies = answered
            .flat_map(|sender| sender.join().expect("a sender"))
            .collect();
        stop.store(true, Ordering::Relaxed);
        latencies
    });
    latencies.sort_by(f64::total_cmp);
    latencies
}

/// A new connection and a request each interval; how long until the whole answer, µs. One that is late because the last
/// answer was counts from when it should have begun.
fn steady(gateway: SocketAddr, offset: Duration, end: Instant) -> Vec<f64> {
    let mut due = Instant::now() + offset;
    let mut latencies = Vec::new();
    while due < end {
        let wait = due.saturating_duration_since(Instant::now());
        thread::sleep(wait);
        let start = if wait.is_zero() { due } else { Instant::now() };
        let reply = RawClient::connect(gateway).send(QUICK).read_reply();
        latencies.push(start.elapsed().as_secs_f64() * 1e6);
        assert_eq!(reply.status, 200);
        due += INTERVAL;
    }
    latencies
}
