//! Measures what hooks that compute for 200 ms cost the other requests of their worker.
//!
//! One gateway with one worker. A steady load goes over the route `/quick`, to an origin on this machine; in some
//! rounds 1, 4 or 16 clients at a time ask for `/busy`, whose plugin computes 200 ms by its own clock in every request.
//! The kinds of round take turns, so that what else the machine does meets all of them alike. `docs/FAIRNESS.md` has
//! figures.
//!
//! ```sh
//! cargo xtask build && cargo run --release -p castling-tests --example fairness -- [fill] [ROUNDS [PAUSE_MS]]
//! ```
//!
//! With `fill` the plugin of `/busy` fills 16 MiB of its memory again and again in the place of computing.
//!
//! With a pause all busy clients rest at once for so long after their 200 ms. For machines that do other things: there
//! the measurement may run with real-time priority (`chrt -f 10`), and the pause keeps the kernel from taking the CPU
//! away.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use castling_tests::{Proxy, RawClient, module, origin};

const CONFIG: &str = r#"
    [workers]
    count = 1

    [plugins.busy]
    wasm = "MODULE"
    limits = { cpu = "2s", memory = "32MiB" }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    path = "/busy"
    plugins = ["busy"]
    upstream = "app"

    [[routes]]
    path = "/quick"
    upstream = "app"
"#;

/// Clients that ask for `/busy` at a time, by kind of round.
const BUSY_CLIENTS: [usize; 4] = [0, 1, 4, 16];

/// Connections of the quick load, and how often each sends a request.
const QUICK_CONNECTIONS: u32 = 4;
const QUICK_INTERVAL: Duration = Duration::from_millis(5);

/// Time that [`BUSY`] asks for.
const COMPUTING: Duration = Duration::from_millis(200);

const ROUND: Duration = Duration::from_secs(3);

const DEFAULT_ROUNDS: u32 = 7;

const QUICK: &str = "GET /quick HTTP/1.1\r\nHost: a\r\n\r\n";
const BUSY: &str = "GET /busy HTTP/1.1\r\nHost: a\r\nX-Do: compute\r\nX-Ms: 200\r\n\r\n";

/// A plugin that fills 16 MiB of its memory again and again for 200 ms by its own clock.
fn filling() -> Vec<u8> {
    let access = r#"
        (import "castling" "clock_monotonic" (func $now (result i64)))
        (func (export "castling_hook_access") (param i32 i32 i32) (result i32) (local $end i64)
            (drop (memory.grow (i32.const 256)))
            (local.set $end (i64.add (call $now) (i64.const 200000000)))
            (loop
                (memory.fill (i32.const 65536) (i32.const 1) (i32.mul (i32.const 256) (i32.const 65536)))
                (br_if 0 (i64.lt_s (call $now) (local.get $end))))
            (i32.const 0))"#;
    module::plugin(&module::manifest(1, r#"["access"]"#), access)
}

fn main() {
    let fills = std::env::args().any(|argument| argument == "fill");
    let arguments = std::env::args().skip(1 + usize::from(fills));
    let mut arguments = arguments.map(|argument| {
        let number: u32 = argument.parse().expect("a number");
        number
    });
    let rounds = arguments.next().unwrap_or(DEFAULT_ROUNDS);
    let pause = Duration::from_millis(arguments.next().unwrap_or(0).into());
    let module = if fills {
        "filling.wasm"
    } else {
        "{guests}/hostile.wasm"
    };
    let proxy = Proxy::with_config(&CONFIG.replace("MODULE", module))
        .file("filling.wasm", filling())
        .origin("app", origin::text("hello"))
        .start();
    let gateway = proxy.address();
    round(gateway, 1, pause);
    let mut of_kind: Vec<Vec<Figures>> = vec![Vec::new(); BUSY_CLIENTS.len()];
    for _ in 0..rounds {
        for (figures, clients) in of_kind.iter_mut().zip(BUSY_CLIENTS) {
            figures.push(round(gateway, clients, pause));
        }
    }
    println!(
        "medians of {rounds} rounds of {ROUND:?}; latency of /quick in µs; ratios to the same round without load"
    );
    println!("busy clients   p50    p99    p50 ratio   p99 ratio   /busy a second");
    for (figures, clients) in of_kind.iter().zip(BUSY_CLIENTS) {
        let ratio = |of: fn(&Figures) -> f64| {
            let quiet = of_kind[0].iter().map(of);
            median(
                figures
                    .iter()
                    .map(of)
                    .zip(quiet)
                    .map(|(busy, quiet)| busy / quiet),
            )
        };
        println!(
            "{clients:12} {:5.0} {:6.0} {:12.2} {:11.2} {:16.1}",
            median(figures.iter().map(|figures| figures.p50_us)),
            median(figures.iter().map(|figures| figures.p99_us)),
            ratio(|figures| figures.p50_us),
            ratio(|figures| figures.p99_us),
            median(figures.iter().map(|figures| figures.busy_a_second)),
        );
    }
}

#[derive(Clone, Copy)]
struct Figures {
    p50_us: f64,
    p99_us: f64,
    busy_a_second: f64,
}

/// Quick load beside so many busy clients.
fn round(gateway: SocketAddr, busy_clients: usize, pause: Duration) -> Figures {
    let stop = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    let began = Instant::now();
    let mut latencies = thread::scope(|scope| {
        for idx in 0..busy_clients {
            let (stop, answered) = (&stop, &answered);
            scope.spawn(move || {
                let mut client = RawClient::connect(gateway);
                // Not all at the same moment, as clients do not.
                let mut due = began + Duration::from_millis(idx as u64);
                thread::sleep(due.saturating_duration_since(Instant::now()));
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(client.send(BUSY).read_reply().text(), "hello");
                    answered.fetch_add(1, Ordering::Relaxed);
                    if !pause.is_zero() {
                        while due < Instant::now() {
                            due += COMPUTING + pause;
                        }
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                    }
                }
            });
        }
        let quick: Vec<_> = (0..QUICK_CONNECTIONS)
            .map(|idx| {
                scope.spawn(move || steady(gateway, QUICK_INTERVAL / QUICK_CONNECTIONS * idx))
            })
            .collect();
        let latencies: Vec<f64> = quick
            .into_iter()
            .flat_map(|client| client.join().expect("a client of the quick load"))
            .collect();
        stop.store(true, Ordering::Relaxed);
        latencies
    });
    latencies.sort_by(f64::total_cmp);
    Figures {
        p50_us: latencies[latencies.len() / 2],
        p99_us: latencies[latencies.len() * 99 / 100],
        busy_a_second: answered.into_inner() as f64 / began.elapsed().as_secs_f64(),
    }
}

/// Sends a request each interval and returns how long the answers took, µs. A request that is late because the last
/// answer was counts from when it should have been sent, so a stall is not counted once where it hit many.
fn steady(gateway: SocketAddr, offset: Duration) -> Vec<f64> {
    let mut socket = TcpStream::connect(gateway).expect("the gateway accepts");
    socket.set_nodelay(true).expect("a TCP socket");
    let mut due = Instant::now() + offset;
    let end = due + ROUND;
    let mut latencies = Vec::new();
    while due < end {
        let wait = due.saturating_duration_since(Instant::now());
        thread::sleep(wait);
        let start = if wait.is_zero() { due } else { Instant::now() };
        ask(&mut socket);
        latencies.push(start.elapsed().as_secs_f64() * 1e6);
        due += QUICK_INTERVAL;
    }
    latencies
}

/// Sends a request and reads its answer, which comes in one piece.
fn ask(socket: &mut TcpStream) {
    socket
        .write_all(QUICK.as_bytes())
        .expect("the gateway reads");
    let mut answer = Vec::with_capacity(1024);
    let mut piece = [0; 1024];
    while !answer.ends_with(b"hello") {
        let len = socket.read(&mut piece).expect("the gateway answers");
        assert!(len > 0, "cut short: {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..len]);
    }
    assert!(
        answer.starts_with(b"HTTP/1.1 200 "),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
