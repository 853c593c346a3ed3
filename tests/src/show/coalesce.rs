//! A page that a thousand clients miss at once, in several workers: one of them fetches it, its worker is killed in the middle, and
//! the others have the page of whoever takes its place.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::idle::{connect, raise_open_files};
use super::{Progress, Report};
use crate::origin::Origin;
use crate::process::Process;
use crate::{Proxy, raw_origin, until};

/// Size of the show.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub clients: usize,
    /// Workers: one more than two cores, so that those that are left share none.
    pub workers: usize,
    /// Whether times are claimed, which a machine that does other things makes longer.
    pub claims_times: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clients: 1000,
            workers: 3,
            claims_times: true,
        }
    }
}

/// Longest time that a waiter may take to wake.
const GOAL: Duration = Duration::from_millis(5);

const CONFIG: &str = r#"
    [workers]
    count = WORKERS

    [zones.pages]
    kind = "kv"
    size = "16MiB"

    [plugins.cache]
    wasm = "{plugins}/coalescing_cache.wasm"
    config = { pages = "pages", upstream = "app", ttl = "1m", wait = "60s" }
    limits = { instances = INSTANCES }

    [plugins.headers]
    wasm = "{plugins}/headers.wasm"
    config = { response = { set = { "x-age-us" = "$cache_age_us" } } }

    [listeners.web]
    bind = "{listen}"
    max_connections = 1000000

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    plugins = ["cache", "headers"]
    upstream = "app"
"#;

/// Runs it.
pub fn run(options: &Options, progress: &mut Progress) -> Report {
    raise_open_files(2 * options.clients + 200);
    let gate = Gate::default();
    let config = CONFIG
        .replace("WORKERS", &options.workers.to_string())
        .replace("INSTANCES", &(options.clients + 16).to_string());
    let proxy = Proxy::with_config(&config)
        .origin("app", gate.origin())
        .start();
    progress.step(&format!("{} clients ask for one page", options.clients));
    let mut clients = ask(proxy.address(), options.clients);
    gate.until_asked(1);
    until("all are there", || active(&proxy) == options.clients as u64);

    let fetcher = gate.state().peers[0];
    let workers = proxy.workers();
    let homes = homes(&workers, proxy.address());
    let has_it = |worker: &&Process| worker.connections().iter().any(|(own, _)| *own == fetcher);
    let killed = *workers
        .iter()
        .find(has_it)
        .expect("a worker asks the origin");
    progress.step("the worker of the one that fetches it is killed");
    let kill = Instant::now();
    killed.signal(Signal::KILL);
    gate.until_asked(2);
    let taken_over = kill.elapsed();
    // A worker that starts takes a core for a while.
    until("another worker serves in its place", || {
        let pids = pids(&proxy);
        pids.len() == options.workers && !pids.contains(&killed.0)
    });
    progress.step("the origin answers who has taken its place");
    gate.open();
    let answers = clients.iter_mut().map(read).collect();
    let origin = gate.state();
    Seen {
        options,
        answers,
        homes,
        killed,
        taken_over,
        asked: origin.peers.len(),
    }
    .report()
}

/// Outcome, as it was seen.
struct Seen<'a> {
    options: &'a Options,
    answers: Vec<Answer>,
    /// Workers by client.
    homes: BTreeMap<SocketAddr, Process>,
    killed: Process,
    /// Time from the kill to the origin's next request.
    taken_over: Duration,
    asked: usize,
}

impl Seen<'_> {
    fn report(&self) -> Report {
        let mut report = Report::new(format!(
            "Coalesce: {} misses of one page at once in {} workers, the one that fetches it killed",
            self.options.clients, self.options.workers
        ));
        report.claim(
            "the origin is asked twice: by the one that is killed, and by one more",
            self.asked,
            self.asked == 2,
        );
        let is_killed = |answer: &&Answer| self.homes.get(&answer.client) == Some(&self.killed);
        let (there, elsewhere): (Vec<_>, Vec<_>) = self.answers.iter().partition(is_killed);
        let cut = |answers: &[&Answer]| answers.iter().filter(|it| it.is_cut()).count();
        report.claim(
            "clients of the killed worker are cut off by TCP, and no others",
            format!(
                "{} of {}, of others {}",
                cut(&there),
                there.len(),
                cut(&elsewhere)
            ),
            cut(&there) == there.len() && cut(&elsewhere) == 0,
        );
        let whole = elsewhere.iter().filter(|it| it.is_whole()).count();
        report.claim(
            "all others have the page",
            format!("{whole} of {}", elsewhere.len()),
            whole == elsewhere.len(),
        );
        let refused = self.answers.iter().filter(|it| it.status() == 503).count();
        report.claim("no 503", refused, refused == 0);
        self.tell_wakes(&mut report, &elsewhere);
        let others = elsewhere.iter().filter(|it| !it.is_whole());
        report.details(others.map(|it| format!("{}: {}", it.client, it.told())));
        report
    }

    /// How long those who waited have slept on, by the plugin: from before the fetcher's `put` to a waiter's hook going on.
    fn tell_wakes(&self, report: &mut Report, elsewhere: &[&Answer]) {
        let mut wakes: BTreeMap<Process, Vec<Duration>> = BTreeMap::new();
        for answer in elsewhere {
            if let (Some(woke), Some(home)) = (answer.woke(), self.homes.get(&answer.client)) {
                wakes.entry(*home).or_default().push(woke);
            }
        }
        let firsts: Vec<_> = wakes
            .values()
            .filter_map(|all| all.iter().min())
            .copied()
            .collect();
        let all: Vec<_> = wakes.values().flatten().copied().collect();
        let latest = firsts.iter().max().copied().unwrap_or(Duration::MAX);
        report.claim(
            "each worker's first waiter wakes within 5 ms of the page being put into the zone",
            format!("{} workers: {}", firsts.len(), told(&firsts)),
            !self.options.claims_times || latest <= GOAL,
        );
        report.figure(
            "  all of them, one after the other in each worker",
            told(&all),
        );
        report.figure(
            "from the kill to the origin's second request",
            told(&[self.taken_over]),
        );
    }
}

/// Bytes that a client has got; none: it was cut off.
struct Answer {
    client: SocketAddr,
    bytes: Vec<u8>,
}

impl Answer {
    fn is_cut(&self) -> bool {
        self.bytes.is_empty()
    }

    fn is_whole(&self) -> bool {
        self.status() == 200 && self.bytes.ends_with(page().as_bytes())
    }

    fn head(&self) -> String {
        let end = self.bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        String::from_utf8_lossy(&self.bytes[..end.unwrap_or(0)]).into_owned()
    }

    fn status(&self) -> u16 {
        let head = self.head();
        let status = head.split(' ').nth(1);
        status.and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// Age of the page when a waiter had it.
    fn woke(&self) -> Option<Duration> {
        let head = self.head();
        let header = |name: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(": "));
            fields.find_map(|(known, value)| known.eq_ignore_ascii_case(name).then_some(value))
        };
        let age = header("x-age-us").filter(|_| header("x-cache") == Some("WAIT"));
        Some(Duration::from_micros(age?.parse().ok()?))
    }

    fn told(&self) -> String {
        match self.is_cut() {
            true => "cut".to_owned(),
            false => self.head(),
        }
    }
}

fn told(times: &[Duration]) -> String {
    let mut times = times.to_vec();
    times.sort();
    let ms = |idx: usize| {
        times
            .get(idx)
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    };
    match times.len() {
        1 => format!("{:.2} ms", ms(0)),
        len => format!(
            "first {:.2} ms, p50 {:.2} ms, p99 {:.2} ms, last {:.2} ms of {len}",
            ms(0),
            ms(len / 2),
            ms(len * 99 / 100),
            ms(len.saturating_sub(1)),
        ),
    }
}

/// Four KiB, whose end is nowhere else in it.
fn page() -> String {
    "0123456789abcdef".repeat(255) + "0123456789abcde\n"
}

/// Clients that have all connected before they ask.
fn ask(gateway: SocketAddr, count: usize) -> Vec<TcpStream> {
    let clients = (0..count).map(|number| {
        let client = connect(Ipv4Addr::LOCALHOST, gateway);
        client.unwrap_or_else(|error| panic!("client {number}: {error}"))
    });
    let mut clients: Vec<_> = clients.collect();
    for client in &mut clients {
        let request = b"GET /page HTTP/1.1\r\nHost: show\r\n\r\n";
        client.write_all(request).expect("room for a request");
    }
    clients
}

/// Reads until the page is whole, or the connection ends. What a client reads late lies in its socket: reading takes little of the
/// cores while waiters wake.
fn read(client: &mut TcpStream) -> Answer {
    let (mut bytes, mut piece, page) = (Vec::new(), [0; 8192], page());
    while let Ok(read @ 1..) = client.read(&mut piece) {
        bytes.extend_from_slice(&piece[..read]);
        if bytes.ends_with(page.as_bytes()) {
            break;
        }
    }
    let client = client.local_addr().expect("a connected socket");
    Answer { client, bytes }
}

/// Workers by the client that they serve.
fn homes(workers: &[Process], gateway: SocketAddr) -> BTreeMap<SocketAddr, Process> {
    let homes = workers.iter().flat_map(|worker| {
        let clients = worker
            .connections()
            .into_iter()
            .filter(|(own, _)| *own == gateway);
        clients.map(|(_, client)| (client, *worker))
    });
    homes.collect()
}

fn active(proxy: &Proxy) -> u64 {
    let status = proxy.status();
    let workers = status["workers"].as_array().expect("workers");
    let active = workers
        .iter()
        .filter_map(|worker| worker["requests_active"].as_u64());
    active.sum()
}

/// Workers that serve, by the gateway's own word.
fn pids(proxy: &Proxy) -> Vec<u32> {
    let status = proxy.status();
    let workers = status["workers"].as_array().expect("workers");
    let pids = workers.iter().filter_map(|worker| worker["pid"].as_u64());
    pids.filter_map(|pid| u32::try_from(pid).ok()).collect()
}

/// Origin that never answers the first request, and all others when it is told to.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    /// Other ends of the requests, in their order.
    peers: Vec<SocketAddr>,
    is_open: bool,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().expect("nobody fails with it")
    }

    fn origin(&self) -> Origin {
        let gate = self.clone();
        raw_origin::scripted(move |connection, _| {
            loop {
                connection.read_head()?;
                let peer = connection
                    .socket()
                    .peer_addr()
                    .map_err(|error| error.to_string())?;
                gate.state().peers.push(peer);
                if gate.state().peers.len() == 1 {
                    return connection.read_to_end().map(drop);
                }
                drop(gate.0.1.wait_while(gate.state(), |state| !state.is_open));
                let page = page();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", page.len());
                connection.send(head + &page);
            }
        })
    }

    fn open(&self) {
        self.state().is_open = true;
        self.0.1.notify_all();
    }

    fn until_asked(&self, count: usize) {
        let what = format!("the origin is asked {count} times");
        until(&what, || self.state().peers.len() >= count);
    }
}
