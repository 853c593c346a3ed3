//! Chaos: workers are killed, a plugin traps, an origin resets, and every request that failed is accounted for.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::load::{Cause, Failure, Group, Load, Outcome, Over};
use super::marks::{self, Kind, Wrong};
use super::origin::{self, Fate, Resets};
use super::{Progress, Report};
use crate::process::Process;
use crate::{DEADLINE, Proxy, control, until};

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub lasts: Duration,
    /// A worker is killed so often.
    pub kill_every: Duration,
    /// Time of such load before anything is measured.
    pub warm_up: Duration,
    pub clients: usize,
    /// Clients beside them that take a new connection for each request.
    pub new_clients: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lasts: Duration::from_secs(60),
            kill_every: Duration::from_secs(1),
            warm_up: Duration::from_secs(5),
            clients: 32,
            new_clients: 8,
        }
    }
}

/// Runs it. Fails where it is not possible to see which connections a worker has.
pub fn run(options: &Options, progress: &mut Progress) -> Result<Report, String> {
    let resets = Arc::new(Resets::default());
    let peer = || origin::marking(marks::NAMES[0], Some(Arc::clone(&resets)));
    let peers = r#""{first}", "{second}", "{third}""#;
    let config = marks::config(0, peers, ", traps_percent = 1", "");
    let proxy = Proxy::with_config(&config)
        .origin("first", peer())
        .origin("second", peer())
        .origin("third", peer())
        .start();
    let mut chaos = Chaos {
        proxy: &proxy,
        options,
        kills: Vec::new(),
        random: 1,
    };
    progress.step("warming up");
    chaos.under_load(options.warm_up, progress)?;
    let before = chaos.sample();
    chaos.kills.clear();
    let outcome = chaos.under_load(options.lasts, progress)?;
    let after = chaos.sample();

    let mut report = Report::new(format!(
        "Chaos: a random worker killed every {:?} for {:.0} s; a plugin traps for 1% of the requests, an origin resets 1%",
        options.kill_every,
        outcome.took.as_secs_f64()
    ));
    chaos.accounts(&mut report, &outcome);
    before.claims(&mut report, &after);
    super::reload_storm::figures(&mut report, &outcome);
    Ok(report)
}

struct Chaos<'a> {
    proxy: &'a Proxy,
    options: &'a Options,
    kills: Vec<Kill>,
    random: u64,
}

/// A worker that was killed.
struct Kill {
    at: Instant,
    /// The clients whose connections it had.
    clients: HashSet<SocketAddr>,
}

impl Chaos<'_> {
    fn under_load(&mut self, lasts: Duration, progress: &mut Progress) -> Result<Outcome, String> {
        let load = self.load().start();
        load.until_more(100);
        let begun = Instant::now();
        let mut turn = 1;
        while begun.elapsed() < lasts {
            let due = begun + self.options.kill_every * turn;
            turn += 1;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.kill_one()?;
            progress.tell(|| {
                let (kills, good, failed) = (self.kills.len(), load.good(), load.failed());
                format!("{kills} workers killed, {good} requests, {failed} failed")
            });
        }
        Ok(load.stop())
    }

    fn load(&self) -> Load {
        let group = |clients, requests| Group {
            over: Over::Plain,
            clients,
            requests,
            pause: Duration::ZERO,
        };
        Load {
            address: self.proxy.address(),
            secure: None,
            groups: vec![
                group(self.options.clients, 1000),
                group(self.options.new_clients, 1),
            ],
            mix: vec![
                Kind::Direct,
                Kind::Proxied,
                Kind::Filtered,
                Kind::Post,
                Kind::Proxied,
            ],
            // A request that a killed worker had is a failure here, to be accounted for.
            resends: false,
            era: Arc::default(),
        }
    }

    /// Stops a worker, so that it is seen which connections it has at its end, and kills it.
    fn kill_one(&mut self) -> Result<(), String> {
        let workers = self.proxy.workers();
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let Some(worker) = workers.get((self.random >> 33) as usize % workers.len().max(1)) else {
            // None is there yet; the next turn finds one.
            return Ok(());
        };
        worker.signal(Signal::STOP);
        let begun = Instant::now();
        while !worker.is_stopped() && worker.is_alive() && begun.elapsed() < DEADLINE {
            std::thread::yield_now();
        }
        let at = Instant::now();
        let clients = worker.clients_on(self.proxy.address().port());
        worker.signal(Signal::KILL);
        let clients = clients.map_err(|error| {
            format!("a worker's connections cannot be seen: {error}; expected to run as root, or as a user who may trace the gateway's processes")
        })?;
        self.kills.push(Kill {
            at,
            clients: clients.into_iter().collect(),
        });
        Ok(())
    }

    /// Resources that the gateway takes while it is idle, by workers that are as new.
    fn sample(&self) -> Sample {
        control::reload(&self.proxy.path("castling.sock")).expect("the same config again");
        until("two workers", || self.proxy.master().children().len() == 2);
        self.settled()
    }

    /// Sample once the master has let go of what workers that have ended had of it: it hears of each end on its own.
    fn settled(&self) -> Sample {
        let begun = Instant::now();
        let mut sample = Sample::of(self.proxy);
        let mut same_since = begun;
        while same_since.elapsed() < SETTLED_FOR && begun.elapsed() < SETTLES_WITHIN {
            std::thread::sleep(Duration::from_millis(20));
            let next = Sample::of(self.proxy);
            if next.master_descriptors != sample.master_descriptors {
                same_since = Instant::now();
            }
            sample = next;
        }
        sample
    }

    fn accounts(&self, report: &mut Report, outcome: &Outcome) {
        let (mut killed, mut trapped, mut reset, mut unaccounted) = (0, 0, 0, Vec::new());
        for failure in &outcome.failures {
            match self.account(failure) {
                Some(Account::Killed) => killed += 1,
                Some(Account::Trapped) => trapped += 1,
                Some(Account::Reset) => reset += 1,
                None => unaccounted.push(failure),
            }
        }
        let failed = outcome.failures.len();
        let kills = self.kills.len();
        let wanted = self.options.lasts.as_secs_f64() / self.options.kill_every.as_secs_f64();
        report.claim(
            format!("{wanted:.0} workers killed"),
            kills,
            kills as f64 >= wanted.floor(),
        );
        report.claim(
            "every failed request is accounted for",
            format!("{failed} failed, {} not accounted for", unaccounted.len()),
            unaccounted.is_empty(),
        );
        let accounts = [
            ("in flight on a killed worker", killed),
            ("hit the trap (500)", trapped),
            ("reset at every try, or no second try allowed (502)", reset),
        ];
        for (what, count) in accounts {
            report.figure(format!("  {what}"), count);
        }
        let connections: usize = self.kills.iter().map(|kill| kill.clients.len()).sum();
        report.figure("connections on killed workers", connections);
        let all = outcome.good + failed as u64;
        // Requests that were reset once and answered then are among the good; so the share is no less than a half.
        let share = |count: usize| 100.0 * count as f64 / all as f64;
        report.claim(
            "traps and resets took place",
            format!("{:.2}% and {:.2}%", share(trapped), share(reset)),
            trapped > 0 && reset > 0,
        );
        report.details(unaccounted.into_iter().map(|failure| {
            let since = self.kills.iter().rev().find(|kill| kill.at <= failure.at);
            let since = since.map(|kill| failure.at - kill.at);
            format!("{since:?} after a kill: {failure:?}")
        }));
    }

    fn account(&self, failure: &Failure) -> Option<Account> {
        let id = failure.id;
        match &failure.cause {
            Cause::Wrong(Wrong::Status(500)) if id.is_multiple_of(100) => Some(Account::Trapped),
            Cause::Wrong(Wrong::Status(502)) if failure.kind.is_proxied() => {
                match (Resets::fate(id), failure.kind) {
                    (Fate::ResetAlways, _) | (Fate::ResetOnce, Kind::Post) => Some(Account::Reset),
                    (Fate::ResetOnce | Fate::Answered, _) => None,
                }
            }
            Cause::Closed | Cause::Broken(..) | Cause::Cut(_) => {
                let (client, opened) = failure.connection?;
                let had_it = |kill: &&Kill| {
                    // Ports are used again: the connection was there at that time.
                    opened <= kill.at && kill.at <= failure.at && kill.clients.contains(&client)
                };
                self.kills.iter().find(had_it).map(|_| Account::Killed)
            }
            Cause::Connect(_) | Cause::Late | Cause::Wrong(_) | Cause::Stale(_) => None,
        }
    }
}

/// Why a request was bound to fail.
enum Account {
    Killed,
    Trapped,
    Reset,
}

/// Time without a change after which nothing more is let go of.
const SETTLED_FOR: Duration = Duration::from_millis(500);
const SETTLES_WITHIN: Duration = Duration::from_secs(10);

/// Resources that the gateway takes of the machine.
#[derive(Clone, Copy, Debug)]
struct Sample {
    processes: usize,
    master_descriptors: usize,
    master_kib: u64,
    worker_descriptors: usize,
    workers_kib: u64,
    files: usize,
}

impl Sample {
    fn of(proxy: &Proxy) -> Self {
        let workers = proxy.workers();
        let folder = std::fs::read_dir(proxy.path("")).expect("the gateway's folder");
        Self {
            processes: 1 + proxy.master().children().len(),
            master_descriptors: proxy.master().descriptors(),
            master_kib: proxy.master().resident_kib(),
            worker_descriptors: proxy.worker_descriptors(),
            workers_kib: workers.into_iter().map(Process::anonymous_kib).sum(),
            files: folder.count(),
        }
    }

    fn claims(&self, report: &mut Report, after: &Self) {
        let mut compare = |what: &str, before: u64, after: u64, more: u64| {
            let tolerance = match more {
                0 => String::new(),
                more => format!(" (up to {more} more allowed)"),
            };
            let measured = format!("{before} before, {after} after{tolerance}");
            report.claim(format!("no more {what}"), measured, after <= before + more);
        };
        let counts = [
            ("processes", self.processes, after.processes),
            (
                "descriptors in the master",
                self.master_descriptors,
                after.master_descriptors,
            ),
            (
                "descriptors in workers",
                self.worker_descriptors,
                after.worker_descriptors,
            ),
            ("files in the gateway's folder", self.files, after.files),
        ];
        for (what, before, after) in counts {
            compare(what, before as u64, after as u64, 0);
        }
        compare(
            "KiB in the master",
            self.master_kib,
            after.master_kib,
            MASTER_KIB,
        );
        let spread = self.workers_kib / 10;
        compare(
            "KiB in workers",
            self.workers_kib,
            after.workers_kib,
            spread,
        );
    }
}

/// Memory that an allocator may keep of short-lived values: less than 60 workers' leftovers of 20 KiB each.
const MASTER_KIB: u64 = 1024;
