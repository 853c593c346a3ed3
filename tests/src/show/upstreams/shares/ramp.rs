//! Slow start: the share of a peer that comes up, over time, beside the curve that its config says.

use std::time::{Duration, Instant};

use super::super::Options;
use super::super::fleet::Fleet;
use super::super::plot::write;
use super::super::tally::Tally;
use super::plot;
use super::statistics::SIGMAS;
use crate::load::{Load, Running};
use crate::show::Report;
use crate::{Proxy, until};

const PEERS: usize = 4;
/// The peer that comes up.
const LATE: usize = PEERS - 1;

/// A policy with a slow start.
#[derive(Clone, Copy)]
pub(super) struct Ramp {
    pub(super) name: &'static str,
    balance: &'static str,
    aggression: f64,
    /// Clients that send one request after the other. Where a peer that is idle is better than one that is not, whatever its weight,
    /// it is one.
    clients: usize,
    /// Whether requests are drawn, so that a share is off by chance.
    is_drawn: bool,
}

pub(super) const RAMPS: [Ramp; 4] = [
    Ramp {
        name: "round_robin",
        balance: "round_robin",
        aggression: 1.0,
        clients: 4,
        is_drawn: false,
    },
    Ramp {
        name: "round_robin, aggression 2",
        balance: "round_robin",
        aggression: 2.0,
        clients: 4,
        is_drawn: false,
    },
    Ramp {
        name: "least_conn",
        balance: "least_conn",
        aggression: 1.0,
        clients: 1,
        is_drawn: false,
    },
    Ramp {
        name: "random",
        balance: "random",
        aggression: 1.0,
        clients: 1,
        is_drawn: true,
    },
];

/// Part of the window that a sample takes.
const SAMPLES: u32 = 40;

/// Most that a share may be off by, beside what chance makes of it.
const TOLERANCE: f64 = 0.01;

/// Share of the late peer in one stretch of time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Middle of the stretch, in windows since the peer came up.
    pub(super) at: f64,
    pub(super) share: f64,
    pub(super) ideal: f64,
    requests: f64,
}

impl Ramp {
    /// Share that the late peer should have at a time, in windows.
    pub(super) fn ideal(&self, at: f64) -> f64 {
        let part = at.clamp(0.0, 1.0).powf(1.0 / self.aggression).max(0.1);
        part / (LATE as f64 + part)
    }

    /// Mean of the share between two times.
    fn mean(&self, from: f64, to: f64) -> f64 {
        const STEPS: u32 = 50;
        let step =
            |n: u32| self.ideal(from + (to - from) * (f64::from(n) + 0.5) / f64::from(STEPS));
        (0..STEPS).map(step).sum::<f64>() / f64::from(STEPS)
    }

    /// How much of what it may be off by a sample is: 1 at most.
    fn off(&self, sample: &Sample) -> f64 {
        let variance = sample.ideal * (1.0 - sample.ideal) / sample.requests;
        // A turn more or less in each of two workers.
        let chance = match self.is_drawn {
            true => SIGMAS * variance.sqrt(),
            false => 4.0 / sample.requests,
        };
        (sample.share - sample.ideal).abs() / (TOLERANCE + chance)
    }
}

/// A policy under load.
struct Warming {
    fleet: Fleet,
    load: Running,
    /// When the late peer came up.
    up: Instant,
    /// Counts at the end of the last sample, and its time in windows.
    last: (f64, Vec<u64>),
    samples: Vec<Sample>,
}

pub(super) fn run(options: &Options, report: &mut Report, tally: &mut Tally) {
    let window = (options.lasts / 3).max(Duration::from_secs(1));
    let fleets = RAMPS.map(|_| Fleet::start(PEERS));
    let proxy = Proxy::with_config(&config(&fleets, window)).start();
    for fleet in &fleets {
        fleet.be_ill(LATE, true);
    }
    let late = fleets
        .each_ref()
        .map(|fleet| fleet.address(LATE).to_string());
    until("the late peers are down", || {
        let log = proxy.log();
        let is_told = |address: &String| {
            let mut lines = log.lines().filter(|line| line.contains("peer is down"));
            lines.any(|line| line.contains(address))
        };
        late.iter().all(is_told)
    });
    let mut all = begin(&proxy, fleets);
    loop {
        std::thread::sleep(window / SAMPLES);
        for (ramp, warming) in RAMPS.iter().zip(&mut all) {
            warming.sample(ramp, window);
        }
        if all.iter().all(|it| it.up.elapsed() > window.mul_f64(1.25)) {
            break;
        }
    }
    let mut curves = Vec::new();
    for (ramp, warming) in RAMPS.iter().zip(all) {
        let Warming { load, samples, .. } = warming;
        let loaded = load.stop();
        claim(options, report, ramp, &samples);
        tally.add(ramp.name, loaded.good, loaded.failures);
        curves.push(samples);
    }
    write("slow-start", &plot::ramps(&curves));
}

/// Starts the load, and has the late peers come up.
fn begin(proxy: &Proxy, fleets: [Fleet; RAMPS.len()]) -> Vec<Warming> {
    let loads: Vec<Running> = { RAMPS.iter().enumerate() }
        .map(|(number, ramp)| load(proxy, number, ramp.clients).start())
        .collect();
    loads.iter().for_each(|load| load.until_more(200));
    let well = Instant::now();
    fleets.iter().for_each(|fleet| fleet.be_ill(LATE, false));
    let warming = |(fleet, load): (Fleet, Running)| {
        let mut up = well;
        until("a check that passes", || {
            let found = fleet.checks(LATE).into_iter().find(|at| *at > well);
            up = found.unwrap_or(well);
            found.is_some()
        });
        Warming {
            last: (0.0, fleet.requests()),
            load,
            up,
            samples: Vec::new(),
            fleet,
        }
    };
    fleets.into_iter().zip(loads).map(warming).collect()
}

fn load(proxy: &Proxy, number: usize, clients: usize) -> Load {
    Load {
        address: proxy.address(),
        clients,
        requests_per_connection: 1_000_000,
        request: format!("GET /{number} HTTP/1.1\r\nHost: show.test\r\n\r\n"),
        bodies: (0..PEERS).map(|peer| peer.to_string()).collect(),
    }
}

impl Warming {
    fn sample(&mut self, ramp: &Ramp, window: Duration) {
        let (at, counts) = (self.up.elapsed(), self.fleet.requests());
        let to = at.as_secs_f64() / window.as_secs_f64();
        let (from, before) = std::mem::replace(&mut self.last, (to, counts));
        let more: Vec<u64> = { self.last.1.iter().zip(before) }
            .map(|(now, before)| now - before)
            .collect();
        let requests = more.iter().sum::<u64>() as f64;
        if requests > 0.0 {
            self.samples.push(Sample {
                at: f64::midpoint(from, to),
                share: more[LATE] as f64 / requests,
                ideal: ramp.mean(from, to),
                requests,
            });
        }
    }
}

fn claim(options: &Options, report: &mut Report, ramp: &Ramp, samples: &[Sample]) {
    let farthest = { samples.iter() }.max_by(|a, b| ramp.off(a).total_cmp(&ramp.off(b)));
    let name = ramp.name;
    let Some(farthest) = farthest else {
        return report.claim(format!("2: slow start, {name}: samples"), 0, false);
    };
    let Sample {
        at,
        share,
        ideal,
        requests,
    } = farthest;
    let chance = match ramp.is_drawn {
        true => format!("{SIGMAS} sd"),
        false => "4 requests".to_owned(),
    };
    let told = format!(
        "{} samples, the farthest at {:.2} of the window: {:.2} %, not {:.2} %, of {requests} requests",
        samples.len(),
        at,
        share * 100.0,
        ideal * 100.0
    );
    match options.claims_times {
        true => report.claim(
            format!("2: slow start, {name}: shares are within 1 point and {chance} of the curve"),
            format!("{told}; over all {:+.2} points", bias(samples) * 100.0),
            ramp.off(farthest) <= 1.0 && bias(samples).abs() <= TOLERANCE,
        ),
        false => report.figure(format!("2: slow start, {name}"), told),
    }
}

/// Mean distance from the curve.
fn bias(samples: &[Sample]) -> f64 {
    let requests: f64 = samples.iter().map(|sample| sample.requests).sum();
    let off = |sample: &Sample| (sample.share - sample.ideal) * sample.requests;
    samples.iter().map(off).sum::<f64>() / requests
}

fn config(fleets: &[Fleet], window: Duration) -> String {
    let mut config = CONFIG.to_owned();
    for ((number, ramp), fleet) in RAMPS.iter().enumerate().zip(fleets) {
        let upstream = UPSTREAM
            .replace("NUMBER", &number.to_string())
            .replace("PEERS", &fleet.listed(0..PEERS))
            .replace("POLICY", ramp.balance)
            .replace("WINDOW", &window.as_millis().to_string())
            .replace("AGGRESSION", &format!("{:.1}", ramp.aggression));
        config.push_str(&upstream);
    }
    config
}

const CONFIG: &str = r#"
[workers]
count = 2

[access_log]
file = "off"

[listeners.web]
bind = "{listen}"
"#;

const UPSTREAM: &str = r#"
[upstreams.uNUMBER]
peers = [PEERS]
balance = "POLICY"
slow_start = { window = "WINDOWms", aggression = AGGRESSION }
check = { path = "/health", interval = "500ms", fast_interval = "50ms", down_interval = "50ms", rise = 1 }

[[routes]]
path = "/NUMBER"
upstream = "uNUMBER"
"#;
