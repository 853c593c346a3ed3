//! Policies by a key: how keys are shared out, and that each stays where it is.

use super::super::asks::{Answer, ask, told_apart};
use super::super::fleet::Fleet;
use super::super::tally::Tally;
use super::super::{Options, gateway};
use super::statistics::{SIGMAS, Shares, of_ketama, of_maglev};
use crate::Proxy;
use crate::show::Report;

/// A policy by a key.
#[derive(Clone, Copy)]
pub(super) struct Method {
    pub(super) name: &'static str,
    pub(super) balance: &'static str,
    /// Standard deviation of a peer's share, relative, by its weight.
    pub(super) spread: fn(u32) -> f64,
    /// Share of the keys of peers that stay which may move when one comes or goes.
    pub(super) others_move: f64,
}

pub(super) const METHODS: [Method; 3] = [
    Method {
        name: "ketama",
        balance: "{ hash = \"$http_x_user\" }",
        spread: of_ketama,
        others_move: 0.0,
    },
    Method {
        name: "maglev",
        balance: "{ hash = \"$http_x_user\", method = \"maglev\" }",
        spread: of_maglev,
        others_move: 0.02,
    },
    Method {
        name: "hash-ring plugin",
        balance: "{ plugin = \"hash-ring\" }",
        spread: of_ketama,
        others_move: 0.0,
    },
];

const WEIGHTS: [u32; 10] = [5, 4, 3, 2, 1, 1, 1, 1, 1, 1];
const CONNECTIONS: usize = 32;

pub(super) fn run(options: &Options, report: &mut Report, tally: &mut Tally) {
    for method in METHODS {
        let fleet = Fleet::start(WEIGHTS.len());
        let peers = fleet.weighted(&WEIGHTS);
        let upstream = format!("peers = [{peers}]\nbalance = {}", method.balance);
        let proxy = gateway::start(4, &upstream);
        let mut keys = Keys::new(options.requests / 2);
        let first = keys.peers(&proxy);
        claim_shares(report, method, &first);
        let again = keys.peers(&proxy);
        proxy.reload().expect_success();
        let reloaded = keys.peers(&proxy);
        let moved = first.moved_to(&again) + first.moved_to(&reloaded);
        report.claim(
            format!(
                "2: {}: 0 keys have two peers, in 4 workers and after a reload",
                method.name
            ),
            format!("{moved} of {}", keys.count),
            moved == 0,
        );
        tally.add(method.name, 3 * keys.count, keys.failures);
    }
}

fn claim_shares(report: &mut Report, method: Method, placed: &Placed) {
    let mut counts = [0; WEIGHTS.len()];
    placed
        .0
        .iter()
        .flatten()
        .for_each(|peer| counts[*peer] += 1);
    let shares = Shares {
        counts: &counts,
        weights: &WEIGHTS,
    };
    let off = shares.deviations(method.spread);
    report.claim(
        format!(
            "2: {}: shares of keys by weight, within {SIGMAS} sd, one of {:.1} % for weight 1 but for chance",
            method.name,
            (method.spread)(1) * 100.0
        ),
        format!("{off:.1} sd, {counts:?}"),
        off <= SIGMAS,
    );
}

/// Keys that are asked for again and again.
pub(super) struct Keys {
    pub(super) count: usize,
    fields: Vec<String>,
    /// Requests are sent in other connections each time.
    turn: usize,
    pub(super) failures: Vec<String>,
}

/// The peer of each key; `None` where the request has failed.
pub(super) struct Placed(pub(super) Vec<Option<usize>>);

impl Keys {
    pub(super) fn new(count: usize) -> Self {
        let fields = (0..count).map(|key| format!("X-User: user-{key}\r\n"));
        Self {
            count,
            fields: fields.collect(),
            turn: 0,
            failures: Vec::new(),
        }
    }

    /// Asks for each key.
    pub(super) fn peers(&mut self, proxy: &Proxy) -> Placed {
        self.turn += 5;
        let answers = ask(proxy.address(), &self.fields, CONNECTIONS, self.turn);
        let peer = |answer: &Result<Answer, String>| answer.as_ref().ok().map(|answer| answer.peer);
        let placed = Placed(answers.iter().map(peer).collect());
        self.failures.extend(told_apart(answers).1);
        placed
    }
}

impl Placed {
    /// Keys that have another peer in the other one.
    pub(super) fn moved_to(&self, other: &Self) -> usize {
        self.moves(other).count()
    }

    /// The peers before and after of keys that have moved.
    pub(super) fn moves<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (usize, usize)> + 'a {
        let pairs = self.0.iter().zip(&other.0);
        let pairs = pairs.filter_map(|(before, after)| before.zip(*after));
        pairs.filter(|(before, after)| before != after)
    }

    /// Keys of one peer.
    pub(super) fn count_of(&self, peer: usize) -> usize {
        let of_it = self.0.iter().flatten().filter(|it| **it == peer);
        of_it.count()
    }
}
