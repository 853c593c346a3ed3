//! Event streams that each keep a plugin's state: thousands of them on one worker, beside as many without a plugin.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream as Connection};

use super::idle::{connect, raise_open_files};
use super::watched::Watched;
use super::{Progress, Report};
use crate::{DEADLINE, Proxy, origin};

/// Size of the show.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub streams: usize,
    /// How often plain streams and those with state take turns.
    pub rounds: usize,
    /// How long the requests of others are watched, each time.
    pub watch: Duration,
    /// Time between two events of a stream.
    pub every: Duration,
    /// Whether memory and latency are claimed; a small show shares what is there once among few, and a machine that does other
    /// things makes others slower.
    pub claims: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            streams: 9_000,
            rounds: 3,
            watch: Duration::from_secs(10),
            every: Duration::from_secs(9),
            claims: true,
        }
    }
}

/// The most that a stream with state may take beyond a plain one, bytes of the worker's memory.
const MOST_BYTES: u64 = 8 * 1024;
/// The most that p99 of others may be beside them, of what it is beside plain ones.
const MOST_TIMES: f64 = 1.2;

const CONFIG: &str = r#"
    [workers]
    count = 1

    [plugins.tally]
    wasm = "{guests}/tally.wasm"
    config = { header = "x-seen" }
    on_error = "deny"

    [plugins.headers]
    wasm = "{plugins}/headers.wasm"
    config = { response = { set = { "x-other" = "yes" } } }

    [listeners.web]
    bind = "{listen}"
    max_connections = 1000000
    idle_timeout = "1h"

    [upstreams.events]
    peers = ["EVENTS"]
    idle_timeout = "1h"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    path = "/plain"
    upstream = "events"

    [[routes]]
    path = "/stateful"
    plugins = ["tally"]
    upstream = "events"

    [[routes]]
    plugins = ["headers"]
    upstream = "app"
"#;

/// Runs it.
pub fn run(options: &Options, progress: &mut Progress) -> Report {
    raise_open_files(2 * options.streams + 200);
    let mut report = Report::new(format!(
        "States: {} event streams on one worker, each with a plugin's state, or without a plugin, {} times in turn",
        options.streams, options.rounds
    ));
    let rounds = (0..options.rounds).map(|_| Round {
        plain: Streams::open(options, "/plain", progress),
        stateful: Streams::open(options, "/stateful", progress),
    });
    let rounds: Vec<Round> = rounds.collect();
    let all = || {
        rounds
            .iter()
            .flat_map(|round| [&round.plain, &round.stateful])
    };
    let whole: usize = all().map(|streams| streams.whole).sum();
    report.claim(
        "each stream ends whole, and has been seen by the plugin from its first event to its last",
        format!("{whole} of {}", 2 * options.rounds * options.streams),
        whole == 2 * options.rounds * options.streams,
    );
    let bytes = median(&rounds, |round| round.beyond_plain());
    report.claim(
        "at most 8 KiB of worker memory a stream beyond a plain one's",
        format!("{bytes} bytes"),
        !options.claims || bytes <= MOST_BYTES as f64,
    );
    let times = median(&rounds, Round::times_plain);
    report.claim(
        "p99 of others within 1.2 times of what it is beside plain streams",
        format!("{times:.2} times, the median of the rounds"),
        !options.claims || times <= MOST_TIMES,
    );
    for round in &rounds {
        report.figure("beside streams with state", round.stateful.others.told());
        report.figure("  beside plain streams", round.plain.others.told());
        report.figure("  without streams", round.plain.alone.told());
        report.figure("  bytes beyond a plain stream's", round.beyond_plain());
        report.figure(
            "  instances of the plugin at the end",
            round.stateful.instances,
        );
    }
    let failures: usize = all()
        .map(|streams| streams.alone.failures.len() + streams.others.failures.len())
        .sum();
    report.claim("0 requests of others fail", failures, failures == 0);
    for streams in rounds
        .into_iter()
        .flat_map(|round| [round.plain, round.stateful])
    {
        report.details(streams.broken);
    }
    report
}

/// One turn of each kind.
struct Round {
    plain: Streams,
    stateful: Streams,
}

impl Round {
    /// Bytes of the worker's memory that a stream with state takes beyond a plain one.
    fn beyond_plain(&self) -> f64 {
        self.stateful
            .each_bytes
            .saturating_sub(self.plain.each_bytes) as f64
    }

    /// How many times longer others wait than beside plain streams, at p99.
    fn times_plain(&self) -> f64 {
        self.stateful.others.percentile(99) / self.plain.others.percentile(99)
    }
}

/// The middle one of what the rounds have shown.
fn median(rounds: &[Round], shown: impl Fn(&Round) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(shown).collect();
    values.sort_by(f64::total_cmp);
    values
        .get(values.len() / 2)
        .copied()
        .unwrap_or(f64::INFINITY)
}

/// Streams of one kind that were opened, watched and ended.
struct Streams {
    /// Memory of the worker for each.
    each_bytes: u64,
    alone: Watched,
    others: Watched,
    whole: usize,
    /// What was wrong with others, a line each.
    broken: Vec<String>,
    instances: u64,
}

impl Streams {
    fn open(options: &Options, path: &str, progress: &mut Progress) -> Self {
        progress.step(&format!("{} streams at {path}", options.streams));
        let events = Events::start(options.every);
        let config = CONFIG.replace("EVENTS", &events.address.to_string());
        let proxy = Proxy::with_config(&config)
            .origin("app", origin::text("ok"))
            .start();
        let gateway = proxy.address();
        Watched::watch(gateway, OTHER, "ok", Duration::from_millis(500));
        let alone = Watched::watch(gateway, OTHER, "ok", options.watch);
        let worker = proxy.workers()[0];
        let before_kib = worker.anonymous_kib();
        let mut clients = Vec::with_capacity(options.streams);
        for number in 0..options.streams {
            let source = Ipv4Addr::new(127, 0, 0, 1 + u8::try_from(number % 16).unwrap_or(0));
            let begun = connect(source, gateway).and_then(|socket| begin(socket, path));
            clients.push(begun.unwrap_or_else(|error| panic!("stream {number}: {error}")));
            progress.tell(|| format!("{} streams", number + 1));
        }
        let others = Watched::watch(gateway, OTHER, "ok", options.watch);
        let all_kib = worker.anonymous_kib();
        let status = proxy.status();
        events.has_ended.store(true, Ordering::SeqCst);
        let mut broken = Vec::new();
        for (number, client) in clients.iter_mut().enumerate() {
            if let Err(error) = finish(client, path == "/stateful") {
                broken.push(format!("stream {number}: {error}"));
            }
            progress.tell(|| format!("{} streams have ended", number + 1));
        }
        Self {
            each_bytes: all_kib.saturating_sub(before_kib) * 1024 / options.streams.max(1) as u64,
            alone,
            others,
            whole: options.streams - broken.len(),
            broken,
            instances: status["plugins"][0]["instances"].as_u64().unwrap_or(0),
        }
    }
}

const OTHER: &str = "GET /other HTTP/1.1\r\nHost: show\r\n\r\n";

/// Asks for a stream, and reads until its first event is there.
fn begin(mut socket: TcpStream, path: &str) -> std::io::Result<TcpStream> {
    socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: show\r\n\r\n").as_bytes())?;
    let (mut answer, mut piece) = (Vec::with_capacity(512), [0; 512]);
    while !answer.ends_with(EVENT.as_bytes()) {
        let read = socket.read(&mut piece)?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&piece[..read]);
    }
    Ok(socket)
}

/// Reads a stream to its end, where the plugin has told how many events it has seen.
fn finish(socket: &mut TcpStream, is_counted: bool) -> Result<(), String> {
    let (mut rest, mut piece) = (Vec::new(), [0; 4096]);
    while !rest.ends_with(b"\r\n0\r\n\r\n") {
        match socket.read(&mut piece) {
            Ok(0) => return Err("it was cut".to_owned()),
            Ok(read) => rest.extend_from_slice(&piece[..read]),
            Err(error) => return Err(error.to_string()),
        }
    }
    let text = String::from_utf8_lossy(&rest).into_owned();
    if !is_counted {
        return Ok(());
    }
    // The first one was read before, and the chunk of the end is one, too.
    let events = text.matches("data: ").count() + 1;
    let told = text
        .rsplit_once('[')
        .and_then(|(_, told)| told.split_once(']'));
    let chunks: Option<usize> = told.and_then(|(told, _)| told.parse().ok());
    match chunks {
        Some(chunks) if (events..=events + 1).contains(&chunks) => Ok(()),
        _ => Err(format!(
            "{events} events, and the plugin has seen {chunks:?}"
        )),
    }
}

/// An event, as it goes in a chunk.
const EVENT: &str = "data: 0123456789abcdef0123456789abcdef\n\n\r\n";

/// Origin of event streams: one event at once, and another after each time, until they are to end. It runs until the process ends.
struct Events {
    address: SocketAddr,
    has_ended: Arc<AtomicBool>,
}

impl Events {
    fn start(every: Duration) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket of ours");
        let address = listener.local_addr().expect("a bound socket");
        let has_ended = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&has_ended);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(accept(listener, every, ends));
        });
        Self { address, has_ended }
    }
}

async fn accept(listener: StdListener, every: Duration, ends: Arc<AtomicBool>) {
    let listener = TcpListener::from_std(listener).expect("a runtime of this thread");
    while let Ok((connection, _)) = listener.accept().await {
        let ends = Arc::clone(&ends);
        tokio::spawn(async move {
            // The client's end shows an error.
            let _ = serve(connection, every, &ends).await;
        });
    }
}

async fn serve(
    mut connection: Connection,
    every: Duration,
    ends: &AtomicBool,
) -> std::io::Result<()> {
    let (mut head, mut piece) = (Vec::new(), [0; 1024]);
    while !head.ends_with(b"\r\n\r\n") {
        match connection.read(&mut piece).await? {
            0 => return Ok(()),
            read => head.extend_from_slice(&piece[..read]),
        }
    }
    let length = EVENT.len() - 2;
    let event = format!("{length:x}\r\n{EVENT}");
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection
        .write_all(format!("{head}{event}").as_bytes())
        .await?;
    let mut due = Instant::now() + every;
    loop {
        tokio::time::sleep(LOOKS_EVERY).await;
        if ends.load(Ordering::SeqCst) {
            let end = connection.write_all(b"0\r\n\r\n").await;
            // The gateway closes first, or does not within this time.
            let _ = tokio::time::timeout(DEADLINE, connection.read(&mut piece)).await;
            return end;
        }
        if Instant::now() >= due {
            connection.write_all(event.as_bytes()).await?;
            due += every;
        }
    }
}

/// Time between two looks of a stream at whether it is to end.
const LOOKS_EVERY: Duration = Duration::from_millis(500);
