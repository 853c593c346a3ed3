//! Instructions and allocations a request: `cargo xtask bench instructions`.
//!
//! Time drifts by a fifth on a shared machine, instructions by less than a hundredth. A gateway runs under callgrind, clients send
//! one request after the other, several at once, and what its worker did for them is divided by their number. bench/instructions.toml
//! keeps what a request took, function by function, so that a change can say what it has moved.

mod baseline;
mod callgrind;

use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use baseline::Baseline;
use callgrind::Profile;

use crate::Places;
use crate::peers::origin::Origin;
use crate::peers::peer::{Peer, Running, Surroundings};
use crate::peers::probe::KEY;
use crate::peers::{case, conformance, counters, idle, origin};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Cases, by name and comma; all when left out
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    cases: Vec<String>,
    /// Requests that are counted
    #[arg(long, default_value_t = 1000)]
    requests: u32,
    /// Write what was counted to bench/instructions.toml
    #[arg(long)]
    save: bool,
    /// Fail where a case takes more than bench/instructions.toml says, beyond the tolerance
    #[arg(long, conflicts_with = "save")]
    check: bool,
    /// Percent; of cases with large bodies four times that, for in how many pieces a body comes is a matter of time
    #[arg(long, default_value_t = 0.5)]
    tolerance: f64,
}

/// Cost of one request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Counted {
    pub(crate) instructions: f64,
    pub(crate) allocations: f64,
    /// The instructions of each function itself, the most first.
    pub(crate) functions: Vec<(String, f64)>,
}

pub(crate) fn run(places: &Places, arguments: &Arguments) -> Result<(), String> {
    let file = places.bench.join("instructions.toml");
    let mut baseline = Baseline::read(&file)?;
    let unknown = |name: &&String| STREAMS.iter().all(|stream| stream.name != **name);
    if let Some(name) = arguments.cases.iter().find(unknown) {
        let known: Vec<&str> = STREAMS.iter().map(|stream| stream.name).collect();
        return Err(format!("--cases {name}: expected {}", known.join(", ")));
    }
    let origin = origin::start()?;
    let mut worse = Vec::new();
    for stream in STREAMS {
        if !arguments.cases.is_empty() && !arguments.cases.iter().any(|n| n == stream.name) {
            continue;
        }
        let counted = stream.count(places, &origin, arguments.requests)?;
        let before = baseline.of(stream.name);
        print(stream.name, &counted, before);
        if let Some(before) = before
            && counted.instructions
                > before.instructions * (1.0 + stream.tolerance(arguments) / 100.0)
        {
            worse.push(stream.name);
        }
        baseline.set(stream.name, counted);
    }
    if arguments.save {
        return baseline.write(&file);
    }
    match arguments.check && !worse.is_empty() {
        true => Err(format!(
            "more instructions than {} says, beyond the tolerance: {}",
            file.display(),
            worse.join(", ")
        )),
        false => Ok(()),
    }
}

fn print(name: &str, counted: &Counted, before: Option<&Counted>) {
    let Some(before) = before else {
        println!(
            "{name:<16} {:>9.0} instructions, {:.1} allocations a request",
            counted.instructions, counted.allocations
        );
        for (function, instructions) in counted.functions.iter().take(TOLD) {
            println!("    {instructions:>9.0}  {function}");
        }
        return;
    };
    println!(
        "{name:<16} {:>9.0} instructions ({:+.1} %), {:.1} allocations ({:+.1}) a request",
        counted.instructions,
        (counted.instructions / before.instructions - 1.0) * 100.0,
        counted.allocations,
        counted.allocations - before.allocations,
    );
    for (function, moved) in counted.moved(before).into_iter().take(TOLD) {
        println!("    {moved:>+9.0}  {function}");
    }
}

impl Counted {
    fn of(profile: Profile, requests: u32) -> Self {
        let requests = f64::from(requests);
        let functions = profile.functions.into_iter();
        let mut functions: Vec<(String, f64)> = functions
            .map(|(function, instructions)| (function, instructions as f64 / requests))
            .collect();
        functions.sort_by(|(a, x), (b, y)| y.total_cmp(x).then_with(|| a.cmp(b)));
        Self {
            instructions: profile.instructions as f64 / requests,
            allocations: profile.allocations as f64 / requests,
            functions,
        }
    }

    /// Functions that took more or less than before, what moved most first. What is too little to be stored is nothing.
    fn moved(&self, before: &Self) -> Vec<(String, f64)> {
        let of = |counted: &Self, name: &str| {
            let found = counted.functions.iter().find(|(known, _)| known == name);
            found.map_or(0.0, |(_, instructions)| *instructions)
        };
        let gone = before
            .functions
            .iter()
            .filter(|(name, _)| of(self, name) == 0.0);
        let mut moved: Vec<(String, f64)> = self
            .functions
            .iter()
            .chain(gone)
            .map(|(name, _)| (name.clone(), of(self, name) - of(before, name)))
            .filter(|(_, moved)| moved.abs() >= baseline::LEAST)
            .collect();
        moved.sort_by(|(_, a), (_, b)| b.abs().total_cmp(&a.abs()));
        moved
    }
}

/// A fixed stream of requests.
struct Stream {
    name: &'static str,
    peer: Peer,
    path: &'static str,
}

impl Stream {
    /// Percent by which the case may be above what was saved.
    fn tolerance(&self, arguments: &Arguments) -> f64 {
        match self.path {
            LARGE_BODY => arguments.tolerance * 4.0,
            _ => arguments.tolerance,
        }
    }

    fn count(&self, places: &Places, origin: &Origin, requests: u32) -> Result<Counted, String> {
        let folder = places.work.join("instructions").join(self.name);
        fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let mut around = Surroundings {
            places,
            origin: origin.clone(),
            access_log: false,
            runner: Vec::new(),
            patience: PATIENCE,
        };
        // A fault in the config is found by a gateway that runs at full speed.
        let quick = self.peer.start(&around, &folder)?;
        conformance::conforms(&quick)?;
        drop(quick);

        let out = folder.join("callgrind.out");
        around.runner = [
            "valgrind",
            "--tool=callgrind",
            "--trace-children=yes",
            "--instr-atstart=no", // what comes before the requests runs ten times faster
            &format!("--callgrind-out-file={}.%p", out.display()),
            &format!("--log-file={}/valgrind.%p.log", folder.display()),
        ]
        .map(str::to_owned)
        .to_vec();
        let running = self.peer.start(&around, &folder)?;
        let worker = worker(&running)?;
        let clients = (0..CONNECTIONS).map(|_| idle::connect(running.address));
        let mut clients: Vec<TcpStream> = clients.collect::<Result<_, _>>()?;
        let request = self.request();
        tell(worker, "instrumentation on")?;
        for _ in 0..WARM_UP_WAVES {
            idle::ask_all(&mut clients, &request)?;
        }
        let waves = requests.div_ceil(CONNECTIONS);
        tell(worker, "zero")?;
        for _ in 0..waves {
            idle::ask_all(&mut clients, &request)?;
        }
        tell(worker, "dump")?;
        drop(running);
        let dump = folder.join(format!("callgrind.out.{worker}.1"));
        let text = fs::read_to_string(&dump).map_err(|e| format!("{}: {e}", dump.display()))?;
        let _kept_by_nobody = fs::remove_file(&dump);
        let profile = Profile::parse(&text).map_err(|e| format!("{}: {e}", dump.display()))?;
        Ok(Counted::of(profile, waves * CONNECTIONS))
    }

    fn request(&self) -> Vec<u8> {
        let (key, value) = KEY;
        format!(
            "GET {} HTTP/1.1\r\nHost: bench.example\r\n{key}: {value}\r\n\r\n",
            self.path
        )
        .into_bytes()
    }
}

fn worker(running: &Running) -> Result<u32, String> {
    let is_worker = |pid: &u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = command.split(|byte| *byte == 0);
        words.any(|word| word == b"--channel")
    };
    let mut pids = counters::tree(running.root()).into_iter();
    pids.find(is_worker)
        .ok_or_else(|| "the gateway under valgrind has no worker".to_owned())
}

/// A command to callgrind in that process.
fn tell(pid: u32, word: &str) -> Result<(), String> {
    let output = Command::new("vgdb")
        .arg(format!("--pid={pid}"))
        .args(word.split(' '))
        .output()
        .map_err(|e| format!("vgdb, which comes with valgrind: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "vgdb {word}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

const fn stream(name: &'static str, logic: Option<&'static str>, path: &'static str) -> Stream {
    Stream {
        name,
        peer: Peer {
            logic,
            ..case::CASTLING
        },
        path,
    }
}

/// In the names of the cases beside the peers. None whose plugin computes until it has to let others run: callgrind 3.19 does not
/// survive that its stack is left in the middle of a call.
const STREAMS: [Stream; 6] = [
    stream("plain", None, "/34"),
    stream("plain-64k", None, LARGE_BODY),
    stream("one-plugin", Some("gate"), "/34"),
    stream("three-plugins", Some("three"), "/34"),
    stream("rate-limit", Some("rate-limit"), "/34"),
    stream("body-filter", Some("pass"), LARGE_BODY),
];

/// Path of a body that comes in several pieces.
const LARGE_BODY: &str = "/64k";

/// Requests come on so many connections at once, so that what an event loop does once a turn is shared by several, as under
/// load.
const CONNECTIONS: u32 = 32;

/// After these all is in place: connections, instances, memory that is kept.
const WARM_UP_WAVES: u32 = 6;

/// Functions that are told of.
const TOLD: usize = 15;

/// A gateway under valgrind runs fifty times slower.
const PATIENCE: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(functions: &[(&str, f64)]) -> Counted {
        Counted {
            instructions: functions.iter().map(|(_, n)| n).sum(),
            allocations: 0.0,
            functions: functions
                .iter()
                .map(|(f, n)| ((*f).to_owned(), *n))
                .collect(),
        }
    }

    #[test]
    fn what_moved_is_told_with_what_came_and_went() {
        let before = counted(&[("flow", 500.0), ("gone", 100.0), ("same", 70.0)]);
        let now = counted(&[("flow", 450.0), ("same", 71.0), ("came", 300.0)]);
        let moved = now.moved(&before);
        let told: Vec<(&str, f64)> = moved.iter().map(|(f, n)| (f.as_str(), *n)).collect();
        assert_eq!(told, [("came", 300.0), ("gone", -100.0), ("flow", -50.0)]);
    }
}
