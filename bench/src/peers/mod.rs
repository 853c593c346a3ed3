//! The whole gateway beside its peers: `cargo xtask bench peers`.
//!
//! The proxy has a core to itself, load and origin share another. A round gives each peer of a case two turns, the second
//! in reverse order, so that a machine that drifts is the same to all; every ratio is taken within a round. What counts
//! is CPU time a request, as the kernel counts it for all of a proxy's processes. `--report` writes what came of it.

pub(crate) mod case;
mod certificates;
pub(crate) mod conformance;
pub(crate) mod counters;
mod framing;
pub(crate) mod front;
mod grpc;
mod h2load;
mod handshakes;
mod http2;
pub(crate) mod idle;
mod kept;
mod load;
mod machine;
mod measure;
mod metric;
mod open_loop;
pub(crate) mod origin;
mod others;
mod outcome;
pub(crate) mod peer;
mod plot;
pub(crate) mod probe;
mod protocols;
mod report;
mod socket;
mod source;
mod statistics;
mod syscalls;
mod template;
mod wrk;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use case::{Case, Group};
use kept::Kept;
use measure::Method;
use outcome::Outcome;
use peer::{Running, Surroundings};

use crate::Places;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Cases, by name and comma; all when left out (--list tells them)
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    cases: Vec<String>,
    /// The cases of this group alone, in the report too
    #[arg(long, value_name = "NAME")]
    group: Option<Group>,
    /// Peers, by name and comma; all when left out
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    peers: Vec<String>,
    /// Rounds; in each, every peer of a case has two turns
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Seconds of a turn; short ones, so that a machine that drifts is the same to all peers of a round
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// Connections of the load
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Requests a second where latency is measured; half of what the slowest peer can do when left out
    #[arg(long)]
    rate: Option<f64>,
    /// All peers write access logs
    #[arg(long)]
    access_log: bool,
    /// Measure another build of the gateway beside it, to see what a change has moved
    #[arg(long, value_name = "FILE")]
    beside: Option<PathBuf>,
    /// Write the report to this file, and its plots into a folder beside it: of the cases of this run, and of those that
    /// earlier runs have measured with the same build and all peers
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// A turn that others disturb is taken so often at most
    #[arg(long, default_value_t = 5, value_name = "NUMBER")]
    tries: u32,
    /// The core of the proxies; the first that there is when left out
    #[arg(long)]
    proxy_core: Option<usize>,
    /// The core of load and origin; the second when left out
    #[arg(long)]
    load_core: Option<usize>,
    /// Tell cases and peers, measure nothing
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(places: &Places, arguments: &Arguments) -> Result<(), String> {
    let mut cases = chosen(arguments)?;
    let places = &Places {
        beside: arguments.beside.clone(),
        ..places.clone()
    };
    if places.beside.is_some() {
        cases.iter_mut().for_each(Case::add_other_build);
    }
    if arguments.list {
        list(&cases);
        return Ok(());
    }
    let cores = machine::cores();
    let first = cores.first().copied().unwrap_or(0);
    let proxy_core = arguments.proxy_core.unwrap_or(first);
    let second = cores.iter().copied().find(|core| *core != proxy_core);
    let load_core = arguments.load_core.or(second).unwrap_or(proxy_core);
    if load_core == proxy_core {
        println!("!!! proxy and load share core {proxy_core}: these figures will say little");
    }
    machine::stay_on(load_core)?;
    idle::raise_descriptor_limit();
    let busy = others::used_just_now();
    if busy > BUSY_PERCENT {
        println!("!!! others use {busy:.0} % of a core just now: these figures will say little");
    }
    let around = Surroundings {
        places,
        origin: origin::start()?,
        access_log: arguments.access_log,
        runner: ["taskset", "-c", &proxy_core.to_string()]
            .map(str::to_owned)
            .to_vec(),
        patience: PATIENCE,
    };
    let kept = Kept::open(places.work.join("kept"), &places.castling)?;
    // A run without these options may be part of a report of all cases.
    let is_whole = arguments.peers.is_empty() && places.beside.is_none() && !arguments.access_log;
    let mut outcomes = Vec::new();
    for case in &cases {
        let outcome = measure(case, arguments, &around)?;
        outcome.print();
        if is_whole && !kept.keep(&outcome)? {
            println!("    an earlier run was less disturbed: it is kept for the report");
        }
        outcomes.push(outcome);
    }
    let Some(file) = &arguments.report else {
        return Ok(());
    };
    match is_whole {
        true => report::write(file, &kept_outcomes(&kept, &all(arguments.group))?, places),
        false => report::write(file, &outcomes, places),
    }
}

/// Outcomes of all cases that were measured with this build of the gateway, in this run or an earlier one.
fn kept_outcomes<'a>(kept: &Kept, cases: &'a [Case]) -> Result<Vec<Outcome<'a>>, String> {
    let mut outcomes = Vec::new();
    for case in cases {
        match kept.get(case)? {
            Some(outcome) => outcomes.push(outcome),
            None => println!(
                "!!! {} is not in the report: it was not measured",
                case.name
            ),
        }
    }
    Ok(outcomes)
}

/// The cases of the report, the control first.
fn all(group: Option<Group>) -> Vec<Case> {
    let mut cases = case::all();
    cases.insert(0, case::control());
    cases.retain(|case| group.is_none_or(|group| case.group == group));
    cases
}

/// Command as it is to be typed: this program was started by it.
fn command() -> String {
    let typed = std::env::args().skip_while(|argument| argument != "peers");
    let words: Vec<String> = typed.collect();
    format!("cargo xtask bench {}", words.join(" "))
}

/// The cases asked for, with the peers asked for, the control first. A case that is left without Castling's peers, say, is
/// still a case.
fn chosen(arguments: &Arguments) -> Result<Vec<Case>, String> {
    let mut cases = all(arguments.group);
    if let Some(name) = unknown(&arguments.cases, cases.iter().map(|case| case.name)) {
        return Err(format!(
            "--cases {name}: there is no such case (--list tells them)"
        ));
    }
    let ids = cases.iter().flat_map(|case| &case.peers);
    if let Some(name) = unknown(&arguments.peers, ids.map(|peer| peer.id)) {
        return Err(format!(
            "--peers {name}: there is no such peer (--list tells them)"
        ));
    }
    if !arguments.cases.is_empty() {
        cases.retain(|case| arguments.cases.iter().any(|name| name == case.name));
    }
    if !arguments.peers.is_empty() {
        for case in &mut cases {
            case.peers
                .retain(|peer| arguments.peers.iter().any(|id| id == peer.id));
        }
        cases.retain(|case| !case.peers.is_empty());
    }
    Ok(cases)
}

fn unknown(asked: &[String], known: impl Iterator<Item = &'static str>) -> Option<&str> {
    let known: Vec<&str> = known.collect();
    let unknown = asked.iter().find(|name| !known.contains(&name.as_str()));
    unknown.map(String::as_str)
}

fn list(cases: &[Case]) {
    for case in cases {
        let peers: Vec<&str> = case.peers.iter().map(|peer| peer.id).collect();
        println!(
            "{:<16} {}\n{:<16} peers: {}",
            case.name,
            case.title,
            "",
            peers.join(" ")
        );
    }
}

/// Starts the peers of a case and takes all its rounds.
fn measure<'a>(
    case: &'a Case,
    arguments: &Arguments,
    around: &Surroundings<'_>,
) -> Result<Outcome<'a>, String> {
    println!("==> {}: {}", case.name, case.title);
    let folder = around.places.work.join("peers").join(case.name);
    let running = start(case, around, &folder)?;
    let mut method = Method {
        around,
        case,
        folder: &folder,
        seconds: case.measure.seconds(arguments.seconds),
        connections: arguments.connections,
        rate: arguments.rate,
        compute_rounds: Vec::new(),
    };
    method.prepare(&running)?;
    let mut outcome = Outcome::new(case, running.iter().map(|running| running.peer));
    let mut used_by_others = Vec::new();
    for _ in 0..case.measure.rounds(arguments.rounds) {
        for at in (0..running.len()).chain((0..running.len()).rev()) {
            let (turn, others) =
                others::undisturbed(case.measure.bears(), arguments.tries, || {
                    method.turn(at, &running[at])
                })?;
            outcome.add(at, turn);
            used_by_others.push(others);
        }
        outcome.end_round();
    }
    outcome.used_by_others = mean(&used_by_others);
    outcome.date = machine::today();
    outcome.command = command();
    for (at, running) in running.iter().enumerate() {
        match method.syscalls(running) {
            Some(Ok(syscalls)) => outcome.count_syscalls(at, syscalls),
            Some(Err(error)) => println!("!!! system calls are not counted: {error}"),
            None => {}
        }
    }
    Ok(outcome)
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / (numbers.len() as f64).max(1.0)
}

/// Peers that are installed, each checked for what it does. One that is missing is told of and left out; one that does
/// something else than it should is an error.
fn start(case: &Case, around: &Surroundings<'_>, folder: &Path) -> Result<Vec<Running>, String> {
    let _none_of_an_earlier_run = fs::remove_dir_all(folder);
    let mut running = Vec::new();
    for peer in &case.peers {
        if let Err(missing) = peer.find(around.places) {
            println!("!!! {} is left out: {missing}", peer.id);
            continue;
        }
        let started = peer.start(around, folder)?;
        conformance::conforms(&started)?;
        running.push(started);
    }
    Ok(running)
}

/// For a proxy to start and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// More than what a machine at rest does.
const BUSY_PERCENT: f64 = 10.0;
