//! Part 3: an outage of all peers at twice their capacity, and twice the capacity without an outage.

use std::time::{Duration, Instant};

use super::open_load::{OpenLoad, Sample};
use super::peer::{Behaviour, Capacity, Peer};
use super::plot::{Line, Plot};
use super::{Options, config, plot};
use crate::Proxy;
use crate::show::{Progress, Report};

pub(super) fn run(options: &Options, report: &mut Report, progress: &mut Progress) {
    outage(options, report, progress);
    overload(options, report, progress);
}

/// Three peers with 7 places each, of which a request takes one for 50 ms on the average: 420 requests a second.
const PEERS: usize = 3;
const CAPACITY: Capacity = Capacity {
    places: 7,
    takes: Duration::from_millis(40)..Duration::from_millis(60),
};
const A_SECOND: u32 = 420;

fn peers() -> Vec<Peer> {
    let names = ['a', 'b', 'c'].into_iter().take(PEERS);
    names.map(|name| Peer::start(name, &CAPACITY)).collect()
}

/// The most that the load on peers may be of the clients' own.
const MOST_LOAD: f64 = 1.2;
/// Share of what was served before that is a recovery, and the longest that one may take.
const RECOVERED: f64 = 0.9;
const RECOVERS_WITHIN: Duration = Duration::from_secs(2);

fn outage(options: &Options, report: &mut Report, progress: &mut Progress) {
    progress.step("an outage of all peers, with the budget of retries");
    let with = Outage::run(options, "concurrency = {}");
    progress.step("the same without budget and limit");
    let without = Outage::run(options, "retry = { budget = \"off\" }");
    let load = with.load();
    let what = "3: in an outage the load on peers stays under 1.2 times the clients' own";
    let measured = format!("{load:.2} times; without the budget {:.2}", without.load());
    // The budget is a share of the last second's requests: a shorter outage has the retries of those before it, too.
    match with.third > Duration::from_secs(5) {
        true => report.claim(what, measured, load < MOST_LOAD),
        false => report.figure(what, measured),
    }
    let recovery = |outage: &Outage| match outage.recovery() {
        Some(after) => format!("after {:.1} s", after.as_secs_f64()),
        None => "not while it was watched".to_owned(),
    };
    let measured = format!(
        "{} ({:.0} a second before); without budget and limit {} ({:.0} before)",
        recovery(&with),
        with.before(),
        recovery(&without),
        without.before()
    );
    let what = "3: what was served before the outage is served again within 2 s";
    match options.claims_times {
        true => report.claim(
            what,
            measured,
            with.recovery()
                .is_some_and(|after| after <= RECOVERS_WITHIN),
        ),
        false => report.figure(what, measured),
    }
    plot::save("outage", &Outage::plot(&with, &without));
}

/// A load at twice the capacity: all peers fail in its second third.
struct Outage {
    begun: Instant,
    third: Duration,
    samples: Vec<Sample>,
    arrivals: Vec<Instant>,
}

impl Outage {
    fn run(options: &Options, keys: &str) -> Self {
        let peers = peers();
        let proxy = Proxy::with_config(&config(&peers, keys, "")).start();
        let third = options.lasts / 6;
        let load = OpenLoad {
            address: proxy.address(),
            rate: 2 * A_SECOND,
            lasts: third * 3,
            patience: PATIENCE,
        };
        let load = load.start();
        let begun = load.begun;
        std::thread::sleep((begun + third).saturating_duration_since(Instant::now()));
        peers.iter().for_each(|peer| peer.behave(Behaviour::Closes));
        std::thread::sleep((begun + third * 2).saturating_duration_since(Instant::now()));
        peers.iter().for_each(|peer| peer.behave(Behaviour::Serves));
        Self {
            begun,
            third,
            samples: load.samples(),
            arrivals: peers.iter().flat_map(Peer::take_arrivals).collect(),
        }
    }

    /// Requests that peers have seen in the outage, a request of the clients'.
    fn load(&self) -> f64 {
        let is_in =
            |at: &Instant| (self.begun + self.third..self.begun + self.third * 2).contains(at);
        let arrivals = self.arrivals.iter().filter(|at| is_in(at)).count();
        let requests = self
            .samples
            .iter()
            .filter(|sample| is_in(&sample.at))
            .count();
        arrivals as f64 / requests as f64
    }

    /// Good answers a second in the second half of the time before the outage.
    fn before(&self) -> f64 {
        self.good_between(self.third / 2, self.third)
    }

    /// Time from the end of the outage to the begin of the first second in which nearly as much as before was served.
    fn recovery(&self) -> Option<Duration> {
        let window = Duration::from_secs(1).min(self.third / 3);
        let steps = (0..).map(|step| STEP * step);
        let mut starts = steps.take_while(|start| *start + window <= self.third);
        starts.find(|start| {
            let from = self.third * 2 + *start;
            self.good_between(from, from + window) >= RECOVERED * self.before()
        })
    }

    fn good_between(&self, from: Duration, to: Duration) -> f64 {
        let ends = |sample: &&Sample| {
            let end = (sample.at + sample.took).duration_since(self.begun);
            sample.is_good() && from <= end && end < to
        };
        self.samples.iter().filter(ends).count() as f64 / (to - from).as_secs_f64()
    }

    fn plot(with: &Self, without: &Self) -> Plot {
        let good = |outage: &Self| {
            let ends = outage.samples.iter().filter(|sample| sample.is_good());
            plot::a_second(ends.map(|sample| sample.at + sample.took - outage.begun))
        };
        let arrivals =
            |outage: &Self| plot::a_second(outage.arrivals.iter().map(|at| *at - outage.begun));
        let until = (with.third * 3).as_secs_f64();
        Plot {
            title: format!(
                "All peers fail from {:.0} to {:.0} s, at twice their capacity",
                with.third.as_secs_f64(),
                2.0 * with.third.as_secs_f64()
            ),
            x: ("s", until),
            y: "a second",
            lines: vec![
                Line::new(
                    "requests that peers see, budget and limit",
                    "#2f6f4f",
                    arrivals(with),
                )
                .thin(),
                Line::new("good answers, budget and limit", "#2f6f4f", good(with)),
                Line::new(
                    "requests that peers see, neither",
                    "#c2622d",
                    arrivals(without),
                )
                .thin(),
                Line::new("good answers, neither", "#c2622d", good(without)),
            ],
        }
    }
}

/// Clients leave after so long.
const PATIENCE: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(100);

/// The most that p99 of accepted requests may be of the calm one.
const MOST_TIMES: f64 = 2.0;

/// The limit is of all peers together: a policy that takes turns lets what waits pile up at one of them.
const BY_LOAD: &str = "balance = \"least_conn\"";

fn overload(options: &Options, report: &mut Report, progress: &mut Progress) {
    let limit = &format!("{BY_LOAD}\nconcurrency = {{}}");
    progress.step("half of the capacity, then twice the capacity");
    let [calm, limited] = Times::in_turn(options, limit, [A_SECOND / 2, A_SECOND * 2]);
    progress.step("a start at twice the capacity");
    let [cold] = Times::in_turn(options, limit, [A_SECOND * 2]);
    progress.step("twice the capacity, without a limit");
    let [unlimited] = Times::in_turn(options, BY_LOAD, [A_SECOND * 2]);
    let loads = [
        ("at twice the capacity", &limited),
        ("after a start at twice the capacity", &cold),
    ];
    for (what, limited) in loads {
        accepted(options, report, what, &calm, limited, &unlimited);
    }
    report.claim(
        "3: half of the capacity is served whole",
        format!("{} of {} failed", calm.failed, calm.good() + calm.failed),
        !options.claims_times || calm.failed == 0,
    );
    let line = |name, color, times: &Times| Line::new(name, color, times.curve());
    let plot = Plot {
        title: "How long accepted requests take at twice the capacity".to_owned(),
        x: ("% of them", 100.0),
        y: "ms",
        lines: vec![
            line("half of the capacity", "#2d6fc2", &calm),
            line("twice, with the limit", "#2f6f4f", &limited),
            line("twice from the start, with the limit", "#8a9ba8", &cold),
        ],
    };
    plot::save("overload", &plot);
}

fn accepted(
    options: &Options,
    report: &mut Report,
    what: &str,
    calm: &Times,
    limited: &Times,
    unlimited: &Times,
) {
    let times = limited.quantile(0.99) / calm.quantile(0.99);
    let what = format!("3: {what}, p99 of the accepted requests is within 2 times the calm one");
    let measured = format!(
        "{:.0} ms, {times:.2} times {:.0} ms; {:.0} of {A_SECOND} a second served; without a limit {:.0} ms, {:.0} a second",
        limited.quantile(0.99),
        calm.quantile(0.99),
        limited.a_second,
        unlimited.quantile(0.99),
        unlimited.a_second
    );
    match options.claims_times {
        true => report.claim(what, measured, times <= MOST_TIMES),
        false => report.figure(what, measured),
    }
}

/// Times of the good answers of a load, once the limit has been learnt.
struct Times {
    /// Ascending, ms.
    ms: Vec<f64>,
    failed: usize,
    a_second: f64,
}

impl Times {
    /// Loads at these rates on one gateway, one after the other.
    fn in_turn<const N: usize>(options: &Options, keys: &str, rates: [u32; N]) -> [Self; N] {
        let peers = peers();
        let proxy = Proxy::with_config(&config(&peers, keys, "")).start();
        rates.map(|rate| Self::of(&proxy, rate, options.lasts / 3))
    }

    fn of(proxy: &Proxy, rate: u32, lasts: Duration) -> Self {
        let load = OpenLoad {
            address: proxy.address(),
            rate,
            lasts,
            patience: PATIENCE,
        };
        let load = load.start();
        let from = load.begun + lasts / 4;
        let samples = load.samples();
        let learnt = samples.iter().filter(|sample| sample.at >= from);
        let (good, failed): (Vec<_>, Vec<_>) = learnt.partition(|sample| sample.is_good());
        let mut ms: Vec<f64> = good
            .iter()
            .map(|sample| sample.took.as_secs_f64() * 1e3)
            .collect();
        ms.sort_by(f64::total_cmp);
        Self {
            a_second: ms.len() as f64 / (lasts * 3 / 4).as_secs_f64(),
            ms,
            failed: failed.len(),
        }
    }

    fn good(&self) -> usize {
        self.ms.len()
    }

    fn quantile(&self, share: f64) -> f64 {
        let idx = (self.ms.len() as f64 * share) as usize;
        self.ms
            .get(idx.min(self.ms.len().saturating_sub(1)))
            .copied()
            .unwrap_or(f64::INFINITY)
    }

    fn curve(&self) -> Vec<(f64, f64)> {
        (0..=99)
            .map(|percent| {
                (
                    f64::from(percent),
                    self.quantile(f64::from(percent) / 100.0),
                )
            })
            .collect()
    }
}
