//! Measures what idle connections cost a worker, and what becomes of them at a reload.
//!
//! One gateway with one worker. Connections are opened and kept: first silent ones, then each is served one request and
//! kept alive, then all of them send a request at the same time. After each step the worker's own memory is read from
//! `/proc/PID/smaps_rollup` (Pss: shared pages count in parts). Then the gateway is reloaded with all of them open,
//! while other connections go on asking. `docs/MEMORY.md` has figures.
//!
//! ```sh
//! cargo xtask build && cargo run --release -p castling-tests --example idle -- [CONNECTIONS [nginx]]
//! ```
//!
//! With `nginx` the same is done with the nginx of the machine, without the reload. Each connection takes a descriptor
//! here and one in the worker, so the limit of open files (`ulimit -Hn`) must be beyond their number; the client's
//! addresses are 127.0.0.1 and up, one for each 10,000 connections, since an address has some 28,000 ports.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use castling_tests::{Proxy, RawClient, origin};
use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

const CONFIG: &str = r#"
    [workers]
    count = 1
    drain_timeout = "60s"

    [listeners.web]
    bind = "{listen}"
    max_connections = 200000
    head_timeout = "1h"
    idle_timeout = "1h"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    path = "/app"
    upstream = "app"
"#;

const DEFAULT_CONNECTIONS: usize = 10_000;

/// Descriptors that are for other things.
const SPARE_DESCRIPTORS: usize = 1_200;

const CONNECTIONS_PER_ADDRESS: usize = 10_000;

/// Requests under way at a time, where not all connections send at once.
const BLOCK: usize = 500;

/// In which the worker gives back what it has freed.
const REST: Duration = Duration::from_secs(4);

const PROXIED: &str =
    "GET /app HTTP/1.1\r\nHost: example.org\r\nUser-Agent: idle/1.0\r\nAccept: */*\r\n\r\n";
/// There is no such route, so the gateway answers.
const NOT_FOUND: [&str; 2] = [
    "GET /nothing HTTP/1.1\r\nHost: example",
    ".org\r\nUser-Agent: idle/1.0\r\nAccept: */*\r\n\r\n",
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let wanted = arguments
        .next()
        .map_or(DEFAULT_CONNECTIONS, |n| n.parse().expect("a number"));
    let count = with_descriptors(wanted);
    match arguments.next().as_deref() {
        None => castling(count),
        Some("nginx") => nginx(count),
        Some(other) => panic!("{other}: expected nothing or `nginx`"),
    }
}

fn castling(count: usize) {
    let mut proxy = Proxy::with_config(CONFIG)
        .origin("app", origin::text("hello"))
        .start();
    let worker = proxy.until_workers(1)[0].0;
    let idle = measure(proxy.address(), worker, count);

    println!(
        "requests on other connections, with {count} idle: {}",
        latency(proxy.address())
    );
    let begun = Instant::now();
    let said = proxy.reload_with(CONFIG).expect_success().stdout;
    println!(
        "reload with {count} idle: {} (command: {:?})",
        said.trim(),
        begun.elapsed()
    );
    println!(
        "requests on other connections, while they end: {}",
        latency(proxy.address())
    );
    let closed = idle
        .into_iter()
        .filter_map(|mut one| one.read(&mut [0; 1]).ok())
        .filter(|read| *read == 0)
        .count();
    println!(
        "idle connections closed in order: {closed} of {count}, {:?} after the reload",
        begun.elapsed()
    );
    proxy.until_workers(1);
}

fn nginx(count: usize) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let app = origin::text("hello");
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a port");
    let folder = dir.path().display();
    let config = format!(
        "daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; worker_rlimit_nofile {files};\n\
         events {{ worker_connections {slots}; }}\n\
         http {{ access_log off; keepalive_timeout 1h; client_header_timeout 1h; keepalive_requests 1000000;\n\
           client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;\n\
           scgi_temp_path {folder}/s;\n\
           upstream app {{ server {app}; keepalive 500; }}\n\
           server {{ listen {address} backlog=4096; location / {{ return 404; }}\n\
             location /app {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n",
        files = count + SPARE_DESCRIPTORS,
        // With few free ones left nginx closes idle connections.
        slots = 2 * (count + SPARE_DESCRIPTORS),
        app = app.address(),
    );
    fs::write(dir.path().join("nginx.conf"), config).expect("a writable folder");
    let master = Command::new("nginx")
        .arg("-c")
        .arg(dir.path().join("nginx.conf"))
        .stderr(Stdio::null())
        .spawn();
    let master = Ended(master.expect("nginx on this machine"));
    castling_tests::until("nginx serves", || TcpStream::connect(address).is_ok());
    let worker = castling_tests::process::Process(master.0.id()).children();
    measure(address, worker[0].0, count);
}

/// Opens the connections and prints what they cost, step by step.
fn measure(gateway: SocketAddr, worker: u32, count: usize) -> Vec<TcpStream> {
    // Memory that the first requests take once is no connection's.
    let mut warm = open(gateway, 64);
    ask(&mut warm, &[PROXIED], 200);
    ask(&mut warm, &NOT_FOUND, 404);
    drop(warm);
    settle(worker);
    let before = Memory::of(worker);
    println!("worker at first: {before}");
    let tell = |what: &str| {
        let now = Memory::of(worker);
        let each =
            |now: u64, before: u64| now.saturating_sub(before) as f64 / count as f64 / 1024.0;
        println!(
            "{count} {what}: {now}; a connection: {:.2} KiB",
            each(now.pss, before.pss)
        );
    };
    let mut idle = open(gateway, count);
    settle(worker);
    tell("silent");
    for block in idle.chunks_mut(BLOCK) {
        ask(block, &[PROXIED], 200);
    }
    tell("after a proxied request");
    ask(&mut idle, &NOT_FOUND, 404);
    tell("after a request of all at once");
    std::thread::sleep(REST);
    tell("the same, some seconds later");
    let half = idle.split_off(count / 2);
    drop(half);
    settle(worker);
    std::thread::sleep(REST);
    println!("half of them closed: {}", Memory::of(worker));
    idle.extend(open(gateway, count - count / 2));
    settle(worker);
    tell("with the other half new");
    idle
}

fn open(gateway: SocketAddr, count: usize) -> Vec<TcpStream> {
    let connect = |idx: usize| {
        let host =
            u8::try_from(1 + idx / CONNECTIONS_PER_ADDRESS).expect("at most 2,540,000 connections");
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket
            .bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)).into())
            .expect("a port");
        socket.connect(&gateway.into()).expect("a connection");
        let stream = TcpStream::from(socket);
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("an option");
        stream
    };
    (0..count).map(connect).collect()
}

/// Sends a request on each, all at the same time: the next piece of any is sent when all have sent the piece before.
fn ask(connections: &mut [TcpStream], pieces: &[&str], status: u16) {
    for piece in pieces {
        for connection in &mut *connections {
            connection.write_all(piece.as_bytes()).expect("sent");
        }
    }
    let expected = format!("HTTP/1.1 {status}");
    for connection in connections {
        let mut reply = [0; 4096];
        let read = connection.read(&mut reply).expect("a reply");
        assert!(
            reply[..read].starts_with(expected.as_bytes()),
            "{}",
            String::from_utf8_lossy(&reply[..read])
        );
    }
}

/// Latency of 1000 requests, one after the other.
fn latency(gateway: SocketAddr) -> String {
    let mut client = RawClient::connect(gateway);
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..1000 {
        let begun = Instant::now();
        let reply = client.send(PROXIED).read_reply();
        assert_eq!(reply.status, 200);
        times.push(begun.elapsed());
        if reply.header("connection") == Some("close") {
            client = RawClient::connect(gateway);
        }
    }
    times.sort();
    format!(
        "median {:?}, 99 % {:?}, longest {:?}",
        times[500], times[990], times[999]
    )
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy)]
struct Memory {
    pss: u64,
    anonymous: u64,
}

impl Memory {
    fn of(pid: u32) -> Self {
        let text =
            fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("a worker that runs");
        let kib = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok())
                .unwrap_or(0)
        };
        Self {
            pss: kib("Pss:") * 1024,
            anonymous: kib("Pss_Anon:") * 1024,
        }
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
        write!(
            f,
            "{:.1} MiB, {:.1} of it anonymous",
            mib(self.pss),
            mib(self.anonymous)
        )
    }
}

/// Waits until the worker neither accepts nor closes any more.
fn settle(worker: u32) {
    let worker = castling_tests::process::Process(worker);
    let mut open = 0;
    castling_tests::until("all are accepted or closed", || {
        let before = std::mem::replace(&mut open, worker.descriptors());
        std::thread::sleep(Duration::from_millis(300));
        before == open
    });
}

/// Number of connections: as many as wanted, or as many as there can be descriptors for.
fn with_descriptors(wanted: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    let needed = (wanted + SPARE_DESCRIPTORS) as u64;
    if limit.maximum.is_some_and(|maximum| maximum < needed) {
        limit.maximum = Some(needed);
        // Only root may.
        let _refused = setrlimit(Resource::Nofile, limit);
        limit = getrlimit(Resource::Nofile);
    }
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("a limit up to the hard one");
    let most = limit
        .maximum
        .map_or(usize::MAX, |maximum| maximum as usize - SPARE_DESCRIPTORS);
    if most < wanted {
        println!(
            "only {most} connections: the limit of open files is {}",
            most + SPARE_DESCRIPTORS
        );
    }
    wanted.min(most)
}

/// Ends it when dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let pid = castling_tests::process::Process(self.0.id());
        pid.signal(rustix::process::Signal::TERM);
        let _status = self.0.wait();
    }
}
