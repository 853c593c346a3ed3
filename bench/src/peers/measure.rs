//! Measures one turn of one peer.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::case::{Case, Driver, Measure, Sends};
use super::counters::{self, Counters};
use super::front::Front;
use super::grpc;
use super::h2load::{self, H2load};
use super::handshakes::Handshakes;
use super::http2::{self, Fields};
use super::idle::{self, request};
use super::load::Load;
use super::metric::{Memory, Turn};
use super::open_loop::Plan;
use super::peer::{Running, Surroundings};
use super::probe::{self, KEY};
use super::statistics::Spread;
use super::syscalls;
use super::wrk::Saturation;

/// How turns of a case are taken.
pub(super) struct Method<'a> {
    pub(super) around: &'a Surroundings<'a>,
    pub(super) case: &'a Case,
    /// Folder that the peers may write to.
    pub(super) folder: &'a Path,
    pub(super) seconds: f64,
    pub(super) connections: u32,
    /// Rate of an open loop, requests a second. None: found by [`prepare`](Self::prepare).
    pub(super) rate: Option<f64>,
    /// For the case with a plugin that computes: how many rounds of it take 5 ms, peer by peer.
    pub(super) compute_rounds: Vec<u64>,
}

impl Method<'_> {
    /// Preparation that is to be done once before the rounds, with all peers of the case.
    pub(super) fn prepare(&mut self, peers: &[Running]) -> Result<(), String> {
        match self.case.measure {
            Measure::Saturated(sends) => {
                for running in peers {
                    // Opens connections and compiles what is compiled late.
                    self.load(running, sends)?.ready()?.run(1.0, &[])?;
                }
            }
            Measure::HalfLoad | Measure::Reload => self.find_rate(peers, 0.0)?,
            Measure::Compute => {
                self.find_rate(peers, COMPUTED.as_secs_f64() / COMPUTE_EVERY as f64)?;
                let rounds = peers.iter().map(rounds_to_compute);
                self.compute_rounds = rounds.collect::<Result<_, _>>()?;
            }
            Measure::Idle(_) => {}
        }
        if let Some(rate) = self.rate {
            println!("    {rate:.0} requests/s");
        }
        Ok(())
    }

    /// `at` is the peer's place in the case.
    pub(super) fn turn(&self, at: usize, running: &Running) -> Result<Turn, String> {
        match self.case.measure {
            Measure::Saturated(sends) => self.saturated(running, sends),
            Measure::HalfLoad => self.open_loop(running, &self.plan(running)?),
            Measure::Reload => self.reloads(running),
            Measure::Compute => {
                let mut plan = self.plan(running)?;
                let rounds = self.compute_rounds[at].to_string();
                let other = request(&[KEY, ("x-compute", &rounds)]);
                plan.other = Some((COMPUTE_EVERY, other));
                self.open_loop(running, &plan)
            }
            Measure::Idle(connections) => self.idle(running, connections),
        }
    }

    /// None where a case is not about that.
    pub(super) fn syscalls(&self, running: &Running) -> Option<Result<f64, String>> {
        let Measure::Saturated(sends) = self.case.measure else {
            return None;
        };
        let count = |load: &Load| {
            let work = &self.around.places.work;
            syscalls::a_request(running.root(), &load.ready()?, work)
        };
        match self.load(running, sends) {
            Ok(load) => load.is_program().then(|| count(&load)),
            Err(error) => Some(Err(error)),
        }
    }

    fn saturated(&self, running: &Running, sends: Sends) -> Result<Turn, String> {
        let load = self.load(running, sends)?;
        let load = load.ready()?;
        self.counted(running, || {
            let answered = load.run(self.seconds, &[])?;
            Ok(Turn {
                requests: answered.requests,
                failed: answered.failed,
                ..Turn::default()
            })
        })
    }

    fn open_loop(&self, running: &Running, plan: &Plan) -> Result<Turn, String> {
        self.counted(running, || {
            let sent = plan.run(&self.around.origin)?;
            Ok(Turn {
                requests: sent.answered,
                failed: sent.failed,
                resent: sent.resent,
                latency: Some(sent.latency),
                lateness: Some(sent.lateness),
                ..Turn::default()
            })
        })
    }

    fn reloads(&self, running: &Running) -> Result<Turn, String> {
        let plan = self.plan(running)?;
        thread::scope(|scope| {
            let reloads = scope.spawn(|| {
                for _ in 0..RELOADS {
                    thread::sleep(plan.duration / (RELOADS + 1));
                    running.reload()?;
                }
                Ok(())
            });
            let turn = self.open_loop(running, &plan);
            let reloaded: Result<(), String> = match reloads.join() {
                Ok(reloaded) => reloaded,
                Err(_) => Err("the thread that reloads has panicked".to_owned()),
            };
            reloaded.map_err(|error| format!("reload: {error}"))?;
            turn
        })
    }

    /// In a proxy of its own: memory that was once used is not given back.
    fn idle(&self, running: &Running, connections: usize) -> Result<Turn, String> {
        let fresh = running.peer.start(self.around, &self.folder.join("idle"))?;
        let front = fresh.peer.front;
        // The memory that a proxy takes for its first connections and requests is not a connection's.
        drop(idle::open(front, fresh.address, 64)?);
        let before = counters::memory_bytes(fresh.root());
        let connections = idle::open(front, fresh.address, connections)?;
        let with_connections = counters::memory_bytes(fresh.root());
        idle::check_open(&connections).map_err(|error| format!("{}: {error}", fresh.peer.id))?;
        let memory = Memory {
            before,
            with_connections,
            connections: connections.len() as u64,
        };
        Ok(Turn {
            memory: Some(memory),
            ..Turn::default()
        })
    }

    fn counted(
        &self,
        running: &Running,
        turn: impl FnOnce() -> Result<Turn, String>,
    ) -> Result<Turn, String> {
        let before = Counters::of_tree(running.root());
        let begun = Instant::now();
        let turn = turn()?;
        Ok(Turn {
            seconds: begun.elapsed().as_secs_f64(),
            used: Counters::of_tree(running.root()) - before,
            ..turn
        })
    }

    /// Half of what the slowest can do when each request takes `more` seconds beyond what it takes anyway.
    fn find_rate(&mut self, peers: &[Running], more: f64) -> Result<(), String> {
        if self.rate.is_some() {
            return Ok(());
        }
        let mut slowest = f64::INFINITY;
        for running in peers {
            // Other programs on the machine can only make it slower.
            let mut quickest: f64 = 0.0;
            for _ in 0..5 {
                let answered = self.load(running, OPEN_LOOP)?.ready()?.run(0.5, &[])?;
                quickest = quickest.max(answered.requests as f64 / answered.seconds);
            }
            slowest = slowest.min(quickest);
        }
        self.rate = Some((0.5 / (1.0 / slowest + more)).max(1.0));
        Ok(())
    }

    fn plan(&self, running: &Running) -> Result<Plan, String> {
        let front = running.peer.front;
        Ok(Plan {
            front,
            address: running.address,
            rate: self.rate.ok_or("no rate")?,
            duration: Duration::from_secs_f64(self.seconds),
            connections: self.connections as usize,
            request: match front.is_http2() {
                true => http2::get(front.scheme(), idle::PATH, &[KEY], Fields::NotKept),
                false => request(&[KEY]),
            },
            other: None,
        })
    }

    /// wrk for HTTP/1, h2load for HTTP/2, and clients of our own where each request is to have a connection with TLS.
    fn load(&self, running: &Running, sends: Sends) -> Result<Load, String> {
        let front = running.peer.front;
        let peers = self.around.places.bench.join("peers");
        let connections = sends.clients.unwrap_or(self.connections);
        let mut headers = vec![KEY];
        let streams = match sends.driver {
            Driver::Requests { streams } => streams,
            Driver::Handshakes { resumed } => {
                return Ok(Load::Handshakes(Handshakes {
                    front,
                    address: running.address,
                    clients: connections,
                    resumed,
                    request: request(&[KEY, ("Connection", "close")]),
                }));
            }
        };
        let mut url = format!("{}://{}{}", front.scheme(), running.address, sends.path);
        let mut body = None;
        if front == Front::Grpc {
            url = format!("{}://{}{}", front.scheme(), running.address, grpc::PATH);
            headers.extend(grpc::HEADERS);
            body = Some(h2load::write_body(
                &self.around.places.work,
                &grpc::MESSAGE,
            )?);
        }
        if front.is_http2() {
            return Ok(Load::H2load(H2load {
                url,
                connections,
                streams,
                headers,
                body,
            }));
        }
        if sends.closes {
            headers.push(("Connection", "close"));
        }
        Ok(Load::Wrk(Saturation {
            url,
            connections,
            headers,
            script: sends.body.then(|| peers.join("request-body.lua")),
            openssl: peers.join("openssl.cnf"),
        }))
    }
}

/// How many rounds of its computation keep a peer busy for [`COMPUTED`].
fn rounds_to_compute(running: &Running) -> Result<u64, String> {
    let took = |rounds: u64| -> Result<f64, String> {
        let rounds = rounds.to_string();
        let mut seconds = Vec::new();
        for _ in 0..9 {
            let begun = Instant::now();
            probe::get(running.address, "/34", &[("x-compute", &rounds)])?;
            seconds.push(begun.elapsed().as_secs_f64());
        }
        // The lower quartile: others on the machine can only make it longer.
        Spread::of(&seconds)
            .map(|spread| spread.low)
            .ok_or_else(|| "no time".to_owned())
    };
    took(PROBE_ROUNDS)?; // compiles what is compiled late
    let a_round = (took(PROBE_ROUNDS)? - took(1)?).max(1e-9) / PROBE_ROUNDS as f64;
    Ok((COMPUTED.as_secs_f64() / a_round) as u64)
}

/// Request that an open loop sends, and with which the rate is found.
const OPEN_LOOP: Sends = Sends {
    path: idle::PATH,
    body: false,
    closes: false,
    clients: None,
    driver: Driver::Requests { streams: 1 },
};

/// In a turn.
const RELOADS: u32 = 2;

/// Time that one request in [`COMPUTE_EVERY`] computes.
const COMPUTED: Duration = Duration::from_millis(5);
const COMPUTE_EVERY: u64 = 100;

/// Some milliseconds in any language.
const PROBE_ROUNDS: u64 = 2_000_000;
