//! Requests that are held open: policies that go by what is under way keep it even, by weight.

use std::time::Duration;

use super::super::asks::Hanging;
use super::super::fleet::Fleet;
use super::super::tally::Tally;
use super::super::{Options, gateway};
use super::statistics::apart;
use crate::show::Report;

const WEIGHTS: [u32; 6] = [4, 2, 1, 1, 1, 1];

/// A policy, and how far it may be from even.
struct Case {
    policy: &'static str,
    workers: usize,
    pace: Pace,
    /// 1 where the policy counts the request that is to come.
    next: f64,
    /// Most that the loads of two peers may be apart, in requests for each unit of weight.
    most: f64,
}

impl Case {
    const fn new(policy: &'static str, workers: usize, pace: Pace, most: f64) -> Self {
        Self {
            policy,
            workers,
            pace,
            next: 0.0,
            most,
        }
    }

    const fn counts_next(self) -> Self {
        Self { next: 1.0, ..self }
    }

    /// The policy as a config has it.
    fn balance(&self) -> String {
        match self.policy.split_once(' ') {
            Some((plugin, _)) => format!("{{ plugin = \"{plugin}\" }}"),
            None => format!("\"{}\"", self.policy),
        }
    }

    fn told(&self) -> String {
        let pace = match self.pace {
            Pace::OneByOne => "one by one",
            Pace::AtOnce => "at once",
        };
        format!(
            "2: {}, {}, held requests, {pace}",
            self.policy,
            gateway::workers(self.workers)
        )
    }
}

#[derive(Clone, Copy)]
enum Pace {
    /// Each when all workers know of the one before.
    OneByOne,
    AtOnce,
}

/// Age of what a worker knows of others' requests, and a margin.
const KNOWN: Duration = Duration::from_millis(15);

/// Most of the better of two random ones, whose tail is exponential: in simulations of it with these weights, loads are more than 4
/// apart in one of 2000, more than 6 in one of 20,000. Draws without a choice are 15 apart on average, where 60 are held by each unit.
const TWO_CHOICES: f64 = 8.0;

const CASES: [Case; 9] = {
    use Pace::{AtOnce, OneByOne};
    [
        Case::new("least_conn", 1, AtOnce, 1.0),
        Case::new("least_conn", 4, OneByOne, 1.0),
        // Workers do not know of each other's: one each.
        Case::new("least_conn", 4, AtOnce, 4.0),
        Case::new("least_time", 1, AtOnce, 1.0).counts_next(),
        Case::new("least_time", 4, OneByOne, 1.0).counts_next(),
        Case::new("random", 4, AtOnce, TWO_CHOICES),
        Case::new("ewma", 4, AtOnce, TWO_CHOICES).counts_next(),
        Case::new("ewma plugin", 1, AtOnce, TWO_CHOICES).counts_next(),
        Case::new("ewma plugin", 4, OneByOne, TWO_CHOICES).counts_next(),
    ]
};

pub(super) fn run(options: &Options, report: &mut Report, tally: &mut Tally) {
    let few = (options.requests / 100).min(200) as u64;
    for case in &CASES {
        let count = match case.pace {
            Pace::OneByOne => few,
            Pace::AtOnce => 3 * few,
        };
        let fleet = Fleet::start(WEIGHTS.len());
        let (peers, balance) = (fleet.weighted(&WEIGHTS), case.balance());
        let upstream = format!("peers = [{peers}]\nbalance = {balance}");
        let proxy = gateway::start(case.workers, &upstream);
        let gateway = proxy.address();
        let hanging = match case.pace {
            Pace::OneByOne => Hanging::one_by_one(gateway, &fleet, count, KNOWN, |_| ()),
            Pace::AtOnce => Hanging::at_once(gateway, &fleet, count),
        };
        let held = fleet.held();
        let apart = apart(&held, &WEIGHTS, case.next);
        report.claim(
            format!(
                "{}: loads by weight are at most {} apart",
                case.told(),
                case.most
            ),
            format!("{apart:.1}, {count} are held by {held:?}"),
            apart <= case.most,
        );
        tally.add(case.policy, count as usize, hanging.release(&fleet));
    }
}
