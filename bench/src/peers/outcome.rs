//! The outcome of a case: its rounds, and the figures in them.

use std::collections::BTreeMap;
use std::mem;

use serde::{Deserialize, Serialize};

use super::case::{Case, Goal, Quantity};
use super::metric::{Metric, Turn};
use super::peer::Peer;
use super::statistics::{self, Spread};

pub(super) struct Outcome<'a> {
    pub(super) case: &'a Case,
    pub(super) peers: Vec<Measured>,
    /// How much of the machine others used meanwhile, percent of one core.
    pub(super) used_by_others: f64,
    /// Date as `2026-01-31`.
    pub(super) date: String,
    /// Command that was typed.
    pub(super) command: String,
}

/// A peer in a case.
pub(super) struct Measured {
    pub(super) peer: Peer,
    pub(super) rounds: Vec<Round>,
    /// System calls a request.
    pub(super) syscalls: Option<f64>,
    /// Measurements of the round that is not over.
    turns: Turn,
}

/// Sums of a peer's turns of one round.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Round {
    /// By the metric's title.
    pub(super) figures: BTreeMap<String, f64>,
    pub(super) failed: u64,
    pub(super) resent: u64,
}

/// How a goal was met.
pub(super) struct Verdict {
    pub(super) goal: Goal,
    pub(super) value: Spread,
}

impl<'a> Outcome<'a> {
    pub(super) fn new(case: &'a Case, peers: impl Iterator<Item = Peer>) -> Self {
        let measured = |peer| Measured {
            peer,
            rounds: Vec::new(),
            syscalls: None,
            turns: Turn::default(),
        };
        Self {
            case,
            peers: peers.map(measured).collect(),
            used_by_others: 0.0,
            date: String::new(),
            command: String::new(),
        }
    }

    /// A turn of the peer at that place, in the present round.
    pub(super) fn add(&mut self, at: usize, turn: Turn) {
        self.peers[at].turns += turn;
    }

    pub(super) fn end_round(&mut self) {
        for measured in &mut self.peers {
            let turns = mem::take(&mut measured.turns);
            measured.rounds.push(Round::of(&turns));
        }
    }

    pub(super) fn count_syscalls(&mut self, at: usize, a_request: f64) {
        self.peers[at].syscalls = Some(a_request);
    }

    /// Metrics that at least one peer has a figure of.
    pub(super) fn metrics(&self) -> Vec<Metric> {
        let has = |metric: &Metric| {
            let mut peers = self.peers.iter();
            peers.any(|measured| measured.spread(*metric).is_some())
        };
        Metric::ALL.into_iter().filter(has).collect()
    }

    /// Ratios of a peer to the first one, round by round.
    pub(super) fn ratio(&self, of: &Measured, metric: Metric) -> Option<Spread> {
        let to = self.peers.first()?;
        Spread::of(&statistics::ratios(&of.values(metric), &to.values(metric)))
    }

    /// Goals whose peers were measured.
    pub(super) fn verdicts(&self) -> Vec<Verdict> {
        let find = |id| self.peers.iter().find(|measured| measured.peer.id == id);
        let value = |goal: &Goal| {
            let castling = find("castling")?;
            match (goal.of, goal.to) {
                (Quantity::Metric(metric), Some(to)) => {
                    let to = find(to)?.values(metric);
                    Spread::of(&statistics::ratios(&castling.values(metric), &to))
                }
                (Quantity::Metric(metric), None) => castling.spread(metric),
                (Quantity::Syscalls, _) => Spread::of(&[castling.syscalls?]),
            }
        };
        let goals = self.case.goals.iter();
        goals
            .filter_map(|goal| {
                let value = value(goal)?;
                Some(Verdict { goal: *goal, value })
            })
            .collect()
    }

    pub(super) fn print(&self) {
        let metrics = self.metrics();
        for measured in &self.peers {
            let mut line = format!("{:<16}", measured.peer.id);
            for metric in &metrics {
                let Some(spread) = measured.spread(*metric) else {
                    continue;
                };
                line.push_str(&format!("  {} {}", metric.title(), short(spread.median)));
                if metric.is_compared()
                    && let Some(ratio) = self.ratio(measured, *metric)
                {
                    line.push_str(&format!(
                        " (x{:.2}, {:.2} to {:.2})",
                        ratio.median, ratio.low, ratio.high
                    ));
                }
            }
            if let Some(syscalls) = measured.syscalls {
                line.push_str(&format!("  syscalls/request {syscalls:.2}"));
            }
            if measured.failed() > 0 {
                line.push_str(&format!("  FAILED {}", measured.failed()));
            }
            if measured.resent() > 0 {
                line.push_str(&format!("  resent {}", measured.resent()));
            }
            println!("{line}");
        }
        for verdict in self.verdicts() {
            println!("    {}", verdict.text());
        }
        println!("    others used {:.0} % of a core", self.used_by_others);
    }
}

impl Round {
    fn of(turns: &Turn) -> Self {
        let figure = |metric: Metric| Some((metric.title().to_owned(), metric.of(turns)?));
        Self {
            figures: Metric::ALL.into_iter().filter_map(figure).collect(),
            failed: turns.failed,
            resent: turns.resent,
        }
    }
}

impl Measured {
    /// Values of rounds that were kept.
    pub(super) fn again(peer: Peer, rounds: Vec<Round>, syscalls: Option<f64>) -> Self {
        Self {
            peer,
            rounds,
            syscalls,
            turns: Turn::default(),
        }
    }

    /// Round by round.
    pub(super) fn values(&self, metric: Metric) -> Vec<Option<f64>> {
        let figure = |round: &Round| round.figures.get(metric.title()).copied();
        self.rounds.iter().map(figure).collect()
    }

    pub(super) fn spread(&self, metric: Metric) -> Option<Spread> {
        let values: Vec<f64> = self.values(metric).into_iter().flatten().collect();
        Spread::of(&values)
    }

    pub(super) fn failed(&self) -> u64 {
        self.rounds.iter().map(|round| round.failed).sum()
    }

    pub(super) fn resent(&self) -> u64 {
        self.rounds.iter().map(|round| round.resent).sum()
    }
}

impl Verdict {
    /// Description of what was measured, and beside whom.
    pub(super) fn figure(&self) -> String {
        let what = match self.goal.of {
            Quantity::Metric(metric) => metric.title(),
            Quantity::Syscalls => "syscalls/request",
        };
        match self.goal.to {
            Some(to) => format!("{what} / {to}"),
            None => what.to_owned(),
        }
    }

    pub(super) fn text(&self) -> String {
        format!(
            "{}: {:.2} (must {:.2}, goal {:.2}): {}",
            self.figure(),
            self.value.median,
            self.goal.must,
            self.goal.goal,
            self.word()
        )
    }

    pub(super) fn word(&self) -> &'static str {
        if self.value.median <= self.goal.goal {
            "goal met"
        } else if self.value.median <= self.goal.must {
            "met"
        } else {
            "missed"
        }
    }
}

/// Three digits that count.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        v if v >= 0.0005 => format!("{value:.2}"),
        _ => "0".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::case;
    use crate::peers::counters::Counters;

    fn round(cpu_us: u64) -> Turn {
        Turn {
            requests: 1000,
            seconds: 1.0,
            used: Counters {
                cpu_ns: cpu_us * 1_000_000,
                ..Counters::default()
            },
            ..Turn::default()
        }
    }

    #[test]
    fn a_goal_is_judged_by_the_median_of_the_rounds_ratios() {
        let cases = case::all();
        let plain = cases.iter().find(|case| case.name == "plain").unwrap();
        let peers = plain.peers.iter().copied();
        let mut outcome = Outcome::new(
            plain,
            peers.filter(|p| ["nginx", "castling"].contains(&p.id)),
        );
        // The machine drifts to twice the time; the ratio stays.
        for (nginx, castling) in [(10, 9), (20, 18), (20, 30)] {
            outcome.add(0, round(nginx));
            outcome.add(1, round(castling));
            outcome.end_round();
        }
        let verdicts = outcome.verdicts();
        assert_eq!(verdicts.len(), 1, "syscalls were not counted");
        assert_eq!(
            verdicts[0].text(),
            "CPU µs/request / nginx: 0.90 (must 1.00, goal 0.80): met"
        );
    }

    #[test]
    fn figures_have_three_digits() {
        let shown = [0.0, 0.01234, 4.321, 99.94, 12345.6].map(short);
        assert_eq!(shown, ["0", "0.01", "4.32", "99.9", "12346"]);
    }
}
