//! A running gateway and its surroundings.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use http::Request;
use rustix::process::Signal;
use serde_json::Value;

use crate::body::{self, AnyBody};
use crate::client::{self, Reply};
use crate::command::{self, Outcome};
use crate::origin::Origin;
use crate::process::Process;
use crate::raw_client::RawClient;
use crate::setup::{Setup, read};
use crate::{DEADLINE, template, until};

/// A running gateway. Dropping it stops it; when the test has failed, its log is printed.
#[derive(Debug)]
pub struct Proxy {
    setup: Setup,
    master: Child,
    /// Masters that have taken over from it and from one another, by pid.
    successors: Vec<u32>,
}

impl Proxy {
    /// A gateway with this config, as [`Setup`] says; `{placeholders}` are filled in.
    pub fn with_config(config: &str) -> Setup {
        Setup::new(config)
    }

    pub(crate) fn started(setup: Setup, master: Child) -> Self {
        Self {
            setup,
            master,
            successors: Vec::new(),
        }
    }

    /// Gateway with one listener, one route for everything, this origin, one worker, whose descriptors can be counted.
    #[track_caller]
    pub fn before(origin: Origin) -> Self {
        let config = r#"
            [workers]
            count = 1
            core_dumps = true

            [listeners.web]
            bind = "{listen}"

            [upstreams.app]
            peers = ["{app}"]

            [[routes]]
            upstream = "app"
        "#;
        Self::with_config(config).origin("app", origin).start()
    }

    /// The address behind `{listen}`.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        self.address_of("listen")
    }

    /// The address behind another listener's placeholder.
    #[track_caller]
    pub fn address_of(&self, placeholder: &str) -> SocketAddr {
        let address = self.setup.listeners.get(placeholder);
        *address.unwrap_or_else(|| panic!("no {{{placeholder}}} in the config"))
    }

    /// An origin by its name.
    #[track_caller]
    pub fn origin(&self, name: &str) -> &Origin {
        self.setup
            .origins
            .get(name)
            .unwrap_or_else(|| panic!("no origin {name}"))
    }

    /// A file in the folder of the config.
    pub fn path(&self, name: &str) -> PathBuf {
        self.setup.dir.path().join(name)
    }

    // Traffic.

    /// GET on a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str) -> Reply {
        self.send(
            Request::get(target)
                .body(body::empty())
                .expect("a valid request"),
        )
    }

    /// GET with this `Host`.
    #[track_caller]
    pub fn get_from(&self, host: &str, target: &str) -> Reply {
        self.get_with(target, &[("host", host)])
    }

    /// GET with these headers.
    #[track_caller]
    pub fn get_with(&self, target: &str, headers: &[(&str, &str)]) -> Reply {
        let request = headers
            .iter()
            .fold(Request::get(target), |request, (name, value)| {
                request.header(*name, *value)
            });
        self.send(request.body(body::empty()).expect("a valid request"))
    }

    /// POST on a connection of its own.
    #[track_caller]
    pub fn post(&self, target: &str, body: AnyBody) -> Reply {
        self.send(Request::post(target).body(body).expect("a valid request"))
    }

    /// Any request on a connection of its own.
    #[track_caller]
    pub fn send(&self, request: Request<AnyBody>) -> Reply {
        client::send(self.address(), request)
    }

    /// A connection that sends bytes as they are.
    #[track_caller]
    pub fn raw(&self) -> RawClient {
        RawClient::connect(self.address())
    }

    /// Connection of a client with this address, such as `127.0.0.9`.
    #[track_caller]
    pub fn raw_from(&self, client: Ipv4Addr) -> RawClient {
        RawClient::connect_from(client, self.address())
    }

    /// GETs `target` `n` times and counts the answers by their text.
    #[track_caller]
    pub fn tally(&self, target: &str, n: usize) -> BTreeMap<String, usize> {
        let mut tally = BTreeMap::new();
        for _ in 0..n {
            *tally.entry(self.get(target).text()).or_insert(0) += 1;
        }
        tally
    }

    // Commands.

    /// `castling check` on the config as it is now.
    pub fn check(&self) -> Outcome {
        command::castling("check", &self.setup.config_path(), &[])
    }

    /// `castling reload` on the config as it is now.
    pub fn reload(&self) -> Outcome {
        command::castling("reload", &self.setup.config_path(), &[])
    }

    /// `castling upgrade ARGS`. When it succeeds, its master is the one from now on.
    pub fn upgrade(&mut self, args: &[&str]) -> Outcome {
        let outcome = command::castling("upgrade", &self.setup.config_path(), args);
        if outcome.code == Some(0) {
            self.know_master();
        }
        outcome
    }

    /// Has the master that answers to commands be the one from now on, after an upgrade.
    #[track_caller]
    pub fn know_master(&mut self) -> Process {
        let pid = self.status()["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok());
        let pid = pid.expect("a pid in the status");
        if pid != self.master().0 {
            self.successors.push(pid);
        }
        self.master()
    }

    /// Writes another config, with the same placeholders, and reloads.
    pub fn reload_with(&mut self, config: &str) -> Outcome {
        self.write_config(config);
        self.reload()
    }

    /// Writes another config, with the same placeholders.
    pub fn write_config(&mut self, config: &str) {
        self.setup.config = template::dedent(config);
        self.setup.write_config();
    }

    /// `castling status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        let outcome =
            command::castling("status", &self.setup.config_path(), &["--json"]).expect_success();
        serde_json::from_str(&outcome.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", outcome.stdout))
    }

    /// `castling VERB --config FILE REST`.
    pub fn command(&self, verb: &str, rest: &[&str]) -> Outcome {
        command::castling(verb, &self.setup.config_path(), rest)
    }

    // Processes.

    /// The master, the last after upgrades.
    pub fn master(&self) -> Process {
        Process(*self.successors.last().unwrap_or(&self.master.id()))
    }

    /// All there ever were, oldest first.
    pub fn masters(&self) -> Vec<Process> {
        let all = std::iter::once(self.master.id()).chain(self.successors.iter().copied());
        all.map(Process).collect()
    }

    /// The workers that run now, those of an old generation included.
    pub fn workers(&self) -> Vec<Process> {
        self.master().children_with("worker")
    }

    /// Waits until exactly `n` workers run.
    #[track_caller]
    pub fn until_workers(&self, n: usize) -> Vec<Process> {
        until(&format!("{n} workers"), || self.workers().len() == n);
        self.workers()
    }

    /// Open descriptors of all workers together.
    pub fn worker_descriptors(&self) -> usize {
        self.workers().into_iter().map(Process::descriptors).sum()
    }

    /// Waits for the master's end by itself; its exit code.
    #[track_caller]
    pub fn until_ended(&mut self) -> Option<i32> {
        let mut status = None;
        until("the master's end", || {
            status = self.master.try_wait().expect("a child of ours");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    /// Starts it again, after its master has ended. Its logs begin anew.
    #[track_caller]
    pub fn start_again(&mut self) {
        let started = self.setup.try_start();
        self.successors.clear();
        self.master = started.unwrap_or_else(|said| panic!("it does not start again:\n{said}"));
    }

    // Logs.

    /// Everything the gateway wrote to standard error so far.
    pub fn log(&self) -> String {
        read(&self.path("stderr.log"))
    }

    /// Everything the gateway wrote to standard output so far.
    pub fn stdout(&self) -> String {
        read(&self.path("stdout.log"))
    }

    /// The lines of the log with the level ERROR.
    pub fn error_lines(&self) -> Vec<String> {
        self.log()
            .lines()
            .filter(|line| line.contains("ERROR"))
            .map(str::to_owned)
            .collect()
    }

    /// Waits until the log has `text`; the event with it, which may have several lines (a backtrace).
    #[track_caller]
    pub fn until_log_has(&self, text: &str) -> String {
        let start = Instant::now();
        loop {
            let log = self.log();
            if let Some(event) = events(&log).into_iter().find(|event| event.contains(text)) {
                return event;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "the log has no {text:?}:\n{log}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The lines of the access log in `{dir}/access.log` so far.
    pub fn access_lines(&self) -> Vec<String> {
        read(&self.path("access.log"))
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Waits until the access log has `n` lines.
    #[track_caller]
    pub fn until_access_lines(&self, n: usize) -> Vec<String> {
        until(&format!("{n} lines in the access log"), || {
            self.access_lines().len() >= n
        });
        let lines = self.access_lines();
        assert_eq!(lines.len(), n, "{lines:#?}");
        lines
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut masters = self.masters();
        // A master that was to take over when the test failed.
        let unknown = masters
            .iter()
            .flat_map(|master| master.children_with("take-over"));
        let unknown: Vec<_> = unknown.collect();
        masters.extend(unknown);
        let workers: Vec<_> = masters
            .iter()
            .flat_map(|master| master.children_with("worker"))
            .collect();
        masters
            .iter()
            .for_each(|master| master.signal(Signal::TERM));
        let start = Instant::now();
        loop {
            let first_runs = matches!(self.master.try_wait(), Ok(None));
            let others = masters.iter().skip(1);
            if !first_runs && !others.into_iter().any(|master| master.is_alive()) {
                break;
            }
            if start.elapsed() > DEADLINE {
                masters
                    .iter()
                    .for_each(|master| master.signal(Signal::KILL));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // A worker whose master is gone ends by itself; the last resort is for one that does not.
        let start = Instant::now();
        while workers.iter().any(|worker| worker.is_alive()) {
            if start.elapsed() > DEADLINE {
                workers
                    .iter()
                    .for_each(|worker| worker.signal(Signal::KILL));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        if std::thread::panicking() {
            eprintln!(
                "--- config\n{}--- log\n{}---",
                read(&self.setup.config_path()),
                self.log()
            );
        }
    }
}

/// The events of a log: each begins with its time, at the begin of a line.
fn events(log: &str) -> Vec<String> {
    let mut events: Vec<String> = Vec::new();
    for line in log.lines() {
        match events.last_mut() {
            Some(event) if !line.starts_with("20") => {
                event.push('\n');
                event.push_str(line);
            }
            _ => events.push(line.to_owned()),
        }
    }
    events
}
