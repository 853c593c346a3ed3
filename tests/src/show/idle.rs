//! Idle connections: what tens of thousands of them cost one worker, and whether the others notice.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::watched::Watched;
use super::{Progress, Report, marks, origin};
use crate::process::Process;
use crate::{DEADLINE, Proxy, control};

/// Size of the show.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub connections: usize,
    /// Worker memory for each that is promised, bytes.
    pub goal_bytes: u64,
    /// How long the requests of others are watched, each time.
    pub watch: Duration,
    /// Whether others that become slower fail the show; a machine that does other things makes them so.
    pub claims_latency: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections: 50_000,
            goal_bytes: 4096,
            watch: Duration::from_secs(5),
            claims_latency: true,
        }
    }
}

/// Runs it.
pub fn run(options: &Options, progress: &mut Progress) -> Report {
    let limit = raise_open_files(options.connections + SPARE_DESCRIPTORS);
    let connections = options
        .connections
        .min(limit.saturating_sub(SPARE_DESCRIPTORS));
    let tables = "
[workers]
count = 1
drain_timeout = \"60s\"
";
    let config = marks::config(0, "\"{app}\"", "", tables).replace(
        "bind = \"{listen}\"",
        "bind = \"{listen}\"\nmax_connections = 1000000\nhead_timeout = \"1h\"\nidle_timeout = \"1h\"",
    );
    let proxy = Proxy::with_config(&config)
        .origin("app", origin::marking(marks::NAMES[0], None))
        .start();
    let gateway = proxy.address();
    let worker = proxy.workers()[0];
    // Once around everything, so that what is made once is there.
    Watched::watch(gateway, REQUEST, BODY_END, Duration::from_millis(500));
    let quiet = Watched::watch(gateway, REQUEST, BODY_END, options.watch);

    let start_kib = worker.anonymous_kib();
    let half = connections / 2;
    let mut idle = Vec::with_capacity(connections);
    open(gateway, half, false, &mut idle, progress);
    until_connections(&proxy, half);
    let fresh_kib = worker.anonymous_kib();
    open(gateway, connections - half, true, &mut idle, progress);
    until_connections(&proxy, connections);
    let all_kib = worker.anonymous_kib();
    let beside = Watched::watch(gateway, REQUEST, BODY_END, options.watch);

    progress.step("reload");
    let asked = Instant::now();
    let watcher = std::thread::spawn({
        let lasts = options.watch;
        move || Watched::watch(gateway, REQUEST, BODY_END, lasts)
    });
    let reloaded = control::reload(&proxy.path("castling.sock"));
    let reload_took = asked.elapsed();
    let closed = all_closed(&mut idle, progress);
    let through_reload = watcher.join().expect("the watcher");
    let ended = ends(worker);

    let mut report = Report::new(format!(
        "Idle: {connections} idle connections on one worker"
    ));
    report.claim(
        format!("{} connections", options.connections),
        match connections == options.connections {
            true => format!("{connections}, half of them after a request"),
            false => format!(
                "{connections}: the hard limit of open files is {limit}; expected {} (`ulimit -Hn`, LimitNOFILE, or root with CAP_SYS_RESOURCE); --connections asks for fewer",
                options.connections + SPARE_DESCRIPTORS
            ),
        },
        connections == options.connections,
    );
    let each =
        |from: u64, to: u64, count: usize| to.saturating_sub(from) * 1024 / count.max(1) as u64;
    let of_all = each(start_kib, all_kib, connections);
    report.claim(
        format!("at most {} bytes of worker memory each", options.goal_bytes),
        of_all,
        of_all <= options.goal_bytes,
    );
    report.figure(
        "  before their first request",
        each(start_kib, fresh_kib, half),
    );
    report.figure(
        "  after a request",
        each(fresh_kib, all_kib, connections - half),
    );
    report.figure(
        "worker memory (RssAnon) in all",
        format!("{all_kib} KiB, {start_kib} without them"),
    );
    report.claim(
        "a reload with them open",
        match &reloaded {
            Ok(()) => format!("took {reload_took:.0?}"),
            Err(refusal) => refusal.clone(),
        },
        reloaded.is_ok(),
    );
    report.claim(
        "the old worker closes each of them cleanly and ends",
        format!(
            "{} closed, {} reset or open, {}",
            closed.cleanly,
            closed.otherwise.len(),
            if ended { "ended" } else { "still there" }
        ),
        closed.cleanly == connections && ended,
    );
    let failures = [&quiet, &beside, &through_reload].map(|watched| watched.failures.len());
    report.claim(
        "0 requests of others fail: without, with, through the reload",
        format!("{failures:?}"),
        failures == [0; 3],
    );
    let is_slower = |watched: &Watched| {
        watched.percentile(50) > 1.5 * quiet.percentile(50) + 0.1
            || watched.percentile(99) > 2.0 * quiet.percentile(99) + 1.0
    };
    report.claim(
        "others no slower with them (p50 1.5 times + 0.1 ms, p99 twice + 1 ms)",
        beside.told(),
        !options.claims_latency || !is_slower(&beside),
    );
    report.figure("  without them", quiet.told());
    report.figure("  through the reload", through_reload.told());
    report.details(closed.otherwise);
    for watched in [quiet, beside, through_reload] {
        report.details(watched.failures);
    }
    report
}

/// Raises what may be open in this process and in those that it starts; returns how many that is.
pub(super) fn raise_open_files(wanted: usize) -> usize {
    let now = getrlimit(Resource::Nofile);
    let wanted = wanted as u64;
    let has = |limit: Option<u64>| limit.is_none_or(|limit| limit >= wanted);
    let maximum = if has(now.maximum) {
        now.maximum
    } else {
        Some(wanted)
    };
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // More than the hard limit takes a privilege.
    if setrlimit(Resource::Nofile, raised).is_err() {
        let highest = Rlimit {
            current: now.maximum,
            maximum: now.maximum,
        };
        // Then it stays as it is, which is what is returned.
        let _ = setrlimit(Resource::Nofile, highest);
    }
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

/// Opens so many more; with one request and its answer on each, if `asks`.
fn open(
    gateway: SocketAddr,
    count: usize,
    asks: bool,
    idle: &mut Vec<TcpStream>,
    progress: &mut Progress,
) {
    for number in 0..count {
        let source = Ipv4Addr::new(127, 0, 0, 1 + u8::try_from(idle.len() % 16).unwrap_or(0));
        let mut socket =
            connect(source, gateway).unwrap_or_else(|error| panic!("connection {number}: {error}"));
        if asks {
            ask(&mut socket).unwrap_or_else(|error| panic!("connection {number}: {error}"));
        }
        idle.push(socket);
        progress.tell(|| format!("{} connections", idle.len()));
    }
}

pub(super) fn connect(source: Ipv4Addr, gateway: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&gateway.into())?;
    socket.set_read_timeout(Some(DEADLINE))?;
    Ok(socket.into())
}

fn ask(socket: &mut TcpStream) -> std::io::Result<()> {
    socket.write_all(REQUEST.as_bytes())?;
    let mut answer = Vec::with_capacity(512);
    let mut piece = [0; 512];
    while !answer.ends_with(BODY_END.as_bytes()) {
        let read = socket.read(&mut piece)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&piece[..read]);
    }
    Ok(())
}

const REQUEST: &str = "GET /proxied HTTP/1.1\r\nHost: show\r\nX-Id: 00000000000000aa\r\n\r\n";
const BODY_END: &str = "00000000000000aa red red red";

/// Waits until the gateway has so many connections, as it says itself.
fn until_connections(proxy: &Proxy, count: usize) {
    crate::until(&format!("{count} connections in the worker"), || {
        let status = proxy.status();
        let workers = status["workers"].as_array();
        let connections = workers.map(|workers| {
            workers
                .iter()
                .filter_map(|w| w["connections"].as_u64())
                .sum::<u64>()
        });
        connections.or(status.get("connections").and_then(Value::as_u64)) == Some(count as u64)
    });
}

struct Closed {
    cleanly: usize,
    /// Bytes or errors in the place of the end, a line each.
    otherwise: Vec<String>,
}

/// Waits for the gateway to close them.
fn all_closed(idle: &mut [TcpStream], progress: &mut Progress) -> Closed {
    let mut closed = Closed {
        cleanly: 0,
        otherwise: Vec::new(),
    };
    for (number, socket) in idle.iter_mut().enumerate() {
        match socket.read(&mut [0; 64]) {
            Ok(0) => closed.cleanly += 1,
            other => closed
                .otherwise
                .push(format!("idle connection {number}: {other:?}")),
        }
        progress.tell(|| format!("{} connections closed by the gateway", closed.cleanly));
    }
    closed
}

fn ends(worker: Process) -> bool {
    let begun = Instant::now();
    while worker.is_alive() && begun.elapsed() < DEADLINE {
        std::thread::sleep(Duration::from_millis(10));
    }
    !worker.is_alive()
}

/// Other descriptors that are open in the worker and in this process.
const SPARE_DESCRIPTORS: usize = 200;
