//! Bounded loads: while everybody asks for one key, no peer holds more than its bound.

use std::time::Duration;

use super::super::asks::Hanging;
use super::super::fleet::Fleet;
use super::super::tally::Tally;
use super::super::{Options, gateway};
use crate::show::Report;

const WEIGHTS: [u32; 5] = [2, 1, 1, 1, 1];
const FACTOR: f64 = 1.25;

/// Policies with a bound, and how many workers keep it together.
const CASES: [(&str, &str, usize); 4] = [
    ("ketama", KETAMA, 1),
    ("ketama", KETAMA, 4),
    ("maglev", MAGLEV, 4),
    // The plugin counts what its own worker has under way.
    ("hash-ring plugin", "{ plugin = \"hash-ring-bounded\" }", 1),
];
const KETAMA: &str = "{ hash = \"$http_x_user\", bounded = 1.25 }";
const MAGLEV: &str = "{ hash = \"$http_x_user\", method = \"maglev\", bounded = 1.25 }";

/// Age of what a worker knows of others' requests, and a margin.
const KNOWN: Duration = Duration::from_millis(15);

pub(super) fn run(options: &Options, report: &mut Report, tally: &mut Tally) {
    let count = (options.requests / 100).min(120) as u64;
    for (name, policy, number) in CASES {
        let fleet = Fleet::start(WEIGHTS.len());
        let peers = fleet.weighted(&WEIGHTS);
        let proxy = gateway::start(number, &format!("peers = [{peers}]\nbalance = {policy}"));
        let pause = if number == 1 { Duration::ZERO } else { KNOWN };
        let mut beyond = Vec::new();
        let look = |held: &[u64]| beyond.extend(beyond_bound(held));
        let hanging = Hanging::one_by_one(proxy.address(), &fleet, count, pause, look);
        let held = fleet.held();
        report.claim(
            format!(
                "2: {name}, bounded, {}: no peer ever holds more than {FACTOR} times its share",
                gateway::workers(number)
            ),
            format!(
                "{} do, {count} of one key are held by {held:?}",
                beyond.len()
            ),
            beyond.is_empty(),
        );
        report.details(beyond);
        tally.add(name, count as usize, hanging.release(&fleet));
    }
}

/// A line if a peer holds more than its bound, rounded up.
fn beyond_bound(held: &[u64]) -> Option<String> {
    let (all, weight): (u64, u32) = (held.iter().sum(), WEIGHTS.iter().sum());
    let bound = |own: u32| (FACTOR * all as f64 * f64::from(own) / f64::from(weight)).ceil();
    let mut peers = held.iter().zip(WEIGHTS);
    let is_beyond = peers.any(|(held, own)| *held as f64 > bound(own));
    is_beyond.then(|| format!("{held:?} of {all}"))
}
