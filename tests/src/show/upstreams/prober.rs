//! Part 5: eight workers and one prober: checks come as often as the config says, over a reload, an upgrade and dying workers.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::fleet::Fleet;
use super::{Options, gateway};
use crate::show::{Progress, Report};
use crate::{Exposition, Proxy, until};

const WORKERS: usize = 8;
const PEERS: usize = 10;
/// Peers that fail their checks, and are checked half as often.
const ILL: usize = 3;
const JITTER: f64 = 0.1;

/// Checks of one peer while it was watched.
struct Watched {
    /// Checks that the config says.
    expected: f64,
    /// Least that the time between two may be by the config.
    least: Duration,
    times: Vec<Instant>,
}

impl Watched {
    fn gaps(&self) -> impl Iterator<Item = Duration> {
        self.times.windows(2).map(|pair| pair[1] - pair[0])
    }

    /// Most checks that it may be off by: one at either end, and six standard deviations of so many intervals that are each longer
    /// or shorter by up to the jitter, evenly.
    fn tolerance(&self) -> f64 {
        2.0 + 6.0 * JITTER / 3_f64.sqrt() * self.expected.sqrt()
    }

    fn off(&self) -> f64 {
        (self.times.len() as f64 - self.expected).abs() / self.tolerance()
    }
}

pub(super) fn run(options: &Options, report: &mut Report, progress: &mut Progress) {
    let interval = (options.lasts / 60).clamp(Duration::from_millis(100), Duration::from_secs(1));
    let fleet = Fleet::start(PEERS);
    (0..ILL).for_each(|peer| fleet.be_ill(peer, true));
    let mut proxy = gateway::start(WORKERS, &upstream(&fleet, interval));
    until("the ill peers are down", || {
        proxy.log().matches("peer is down").count() >= ILL
    });
    let begun = Instant::now();
    let quarter = options.lasts / 4;
    let mut wait = |quarters: u32, what: &str| {
        progress.step(what);
        let end = begun + quarter * quarters;
        std::thread::sleep(end.saturating_duration_since(Instant::now()));
    };
    wait(1, "calm");
    let reloaded = proxy.reload();
    wait(2, "after a reload");
    let upgraded = proxy.upgrade(&[]);
    wait(3, "after an upgrade");
    kill_all(&proxy);
    wait(4, "workers were killed");
    let ended = Instant::now();
    let watched = |peer: usize| watched(&fleet, peer, interval, begun, ended);
    let all: Vec<Watched> = (0..PEERS).map(watched).collect();
    let done = [reloaded.code, upgraded.code];
    report.claim(
        format!("5: {WORKERS} workers, a reload, an upgrade, {WORKERS} workers killed"),
        format!("{done:?}"),
        done == [Some(0); 2],
    );
    match options.claims_times {
        true => claim(report, &all, interval, ended - begun),
        false => claim_no_more(report, &all, interval, ended - begun),
    }
    claim_metric(report, &proxy, &fleet);
}

fn upstream(fleet: &Fleet, interval: Duration) -> String {
    let (peers, ms) = (fleet.listed(0..PEERS), interval.as_millis());
    format!(
        "peers = [{peers}]\n\
         check = {{ path = \"/health\", interval = \"{ms}ms\", fast_interval = \"{ms}ms\", down_interval = \"{}ms\", \
         timeout = \"{ms}ms\", jitter = {JITTER} }}",
        2 * ms
    )
}

/// Kills one worker after the other, each when the one before has been replaced.
fn kill_all(proxy: &Proxy) {
    for worker in proxy.until_workers(WORKERS) {
        worker.signal(Signal::KILL);
        until("another worker", || {
            let workers = proxy.workers();
            workers.len() == WORKERS && !workers.contains(&worker)
        });
    }
}

fn watched(
    fleet: &Fleet,
    peer: usize,
    interval: Duration,
    begun: Instant,
    ended: Instant,
) -> Watched {
    let interval = if peer < ILL { interval * 2 } else { interval };
    let mut times = fleet.checks(peer);
    times.retain(|at| (begun..ended).contains(at));
    Watched {
        expected: (ended - begun).as_secs_f64() / interval.as_secs_f64(),
        least: interval.mul_f64(1.0 - JITTER),
        times,
    }
}

fn claim(report: &mut Report, all: &[Watched], interval: Duration, lasts: Duration) {
    let counts: Vec<usize> = all.iter().map(|peer| peer.times.len()).collect();
    let counted: usize = counts.iter().sum();
    let expected: f64 = all.iter().map(|peer| peer.expected).sum();
    let seconds = lasts.as_secs_f64();
    report.claim(
        "5: checks a second, within 2 % of the config's",
        format!(
            "{:.2}, by the config {:.2}",
            counted as f64 / seconds,
            expected / seconds
        ),
        (counted as f64 / expected - 1.0).abs() <= 0.02,
    );
    let farthest = all.iter().map(Watched::off).fold(0.0, f64::max);
    report.claim(
        "5: checks of each peer, the config's give or take 2 and 6 standard deviations of the jitter",
        format!("{counts:?} in {seconds:.1} s, the farthest off by {:.0} % of it", farthest * 100.0),
        farthest <= 1.0,
    );
    let early = |peer: &Watched| {
        // Times are those of the peer, who may be told late of one and in time of the next.
        let least = peer.least.mul_f64(0.95);
        peer.gaps().filter(|gap| *gap < least).count()
    };
    let early: usize = all.iter().map(early).sum();
    report.claim(
        format!(
            "5: 0 checks of a peer come sooner after another than {} % of its interval",
            (100.0 * (1.0 - JITTER)) as u32
        ),
        early,
        early == 0,
    );
    let longest = all[ILL..].iter().flat_map(Watched::gaps).max();
    let (longest, most) = (
        longest.unwrap_or(Duration::MAX),
        interval.mul_f64(1.0 + JITTER) + TAKEN_OVER_IN,
    );
    report.claim(
        format!("5: no peer that is well is without a check for longer than {most:.1?}"),
        format!("{longest:.2?}"),
        longest <= most,
    );
}

/// Time in which a worker is replaced and goes on with the checks.
const TAKEN_OVER_IN: Duration = Duration::from_millis(500);

/// Claims what holds however slow the machine is.
fn claim_no_more(report: &mut Report, all: &[Watched], interval: Duration, lasts: Duration) {
    let most = |peer: &Watched| lasts.as_secs_f64() / peer.least.as_secs_f64() + 3.0;
    let counts: Vec<usize> = all.iter().map(|peer| peer.times.len()).collect();
    report.claim(
        format!("5: no peer is checked more often than every {interval:?}, less {JITTER}"),
        format!("{counts:?} in {lasts:.1?}"),
        all.iter().all(|peer| peer.times.len() as f64 <= most(peer)),
    );
}

/// Claims that the gateway has counted the checks that the peers have; those under way may be missing.
fn claim_metric(report: &mut Report, proxy: &Proxy, fleet: &Fleet) {
    let metrics = proxy.command("metrics", &[]).expect_success().stdout;
    let counted = Exposition::parse(&metrics).sum("castling_upstream_checks_total", &[]);
    let seen: usize = (0..PEERS).map(|peer| fleet.checks(peer).len()).sum();
    let spare = (PEERS + WORKERS) as f64;
    report.claim(
        format!("5: the gateway's own count is that of the peers, give or take {spare} under way"),
        format!("{counted}, {seen}"),
        (counted - seen as f64).abs() <= spare,
    );
}
