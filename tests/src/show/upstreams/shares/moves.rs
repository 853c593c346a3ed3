//! Keys that move when a peer leaves, comes, or is down.

use super::super::fleet::Fleet;
use super::super::plot::write;
use super::super::tally::Tally;
use super::super::{Options, gateway};
use super::hashes::{Keys, METHODS, Method, Placed};
use super::plot;
use super::statistics::SIGMAS;
use crate::Proxy;
use crate::show::Report;

/// Peers of which one leaves.
const SIZES: [usize; 6] = [2, 3, 5, 10, 20, 50];
/// Size at which one comes, too, and is down for a time.
const WHOLE: usize = 10;

/// Keys that one peer's coming or going has moved.
#[derive(Clone, Copy)]
pub(super) struct Moved {
    /// Peers with it.
    pub(super) peers: usize,
    /// Share of the keys that moved.
    pub(super) share: f64,
    /// Share of the keys that moved between two other peers.
    others: f64,
    /// Most that both may be.
    most: f64,
    others_most: f64,
}

impl Moved {
    /// `peer`: the one that comes or goes, of so many with it.
    fn of(method: Method, before: &Placed, after: &Placed, peer: usize, peers: usize) -> Self {
        let keys = before.0.len();
        let part = |moves: usize| moves as f64 / keys as f64;
        let moves: Vec<(usize, usize)> = before.moves(after).collect();
        let others = moves
            .iter()
            .filter(|(from, to)| *from != peer && *to != peer);
        Self {
            peers,
            share: part(moves.len()),
            others: part(others.count()),
            most: bound(method, peers, keys),
            others_most: method.others_move,
        }
    }

    fn holds(&self) -> bool {
        self.share <= self.most && self.others <= self.others_most
    }
}

/// Most keys that may move: 1/n, so many standard deviations of a peer's share, and of other peers' what the method may move.
fn bound(method: Method, peers: usize, keys: usize) -> f64 {
    let share = 1.0 / peers as f64;
    let sampled = (share * (1.0 - share) / keys as f64).sqrt();
    let deviation = sampled.hypot(share * (method.spread)(1));
    share + SIGMAS * deviation + method.others_move
}

pub(super) fn run(options: &Options, report: &mut Report, tally: &mut Tally) {
    let mut all = Vec::new();
    for method in METHODS {
        let moved = SIZES.map(|peers| one_leaves(options, tally, method, peers));
        claim_leaving(report, method, &moved);
        comes_and_is_down(options, report, tally, method);
        all.push(moved.to_vec());
    }
    write("hash-moves", &plot::moves(&all));
}

fn upstream(fleet: &Fleet, peers: usize, method: Method) -> String {
    let peers = fleet.listed(0..peers);
    format!("peers = [{peers}]\nbalance = {}", method.balance)
}

/// Asks for all keys, has the gateway go on with another number of peers, and asks again.
fn resized(
    options: &Options,
    tally: &mut Tally,
    method: Method,
    (from, to): (usize, usize),
) -> (Fleet, Proxy, Placed, Placed) {
    let fleet = Fleet::start(from.max(to));
    let mut proxy = gateway::start(2, &upstream(&fleet, from, method));
    let mut keys = Keys::new(options.requests / 5);
    let before = keys.peers(&proxy);
    let reloaded = proxy.reload_with(&gateway::config(2, &upstream(&fleet, to, method)));
    reloaded.expect_success();
    let after = keys.peers(&proxy);
    tally.add(method.name, 2 * keys.count, keys.failures);
    (fleet, proxy, before, after)
}

fn one_leaves(options: &Options, tally: &mut Tally, method: Method, peers: usize) -> Moved {
    let (_, _, before, after) = resized(options, tally, method, (peers, peers - 1));
    Moved::of(method, &before, &after, peers - 1, peers)
}

/// `moved`: by the numbers of peers of which one has left.
fn claim_leaving(report: &mut Report, method: Method, moved: &[Moved]) {
    let percents = |of: fn(&Moved) -> f64| -> String {
        let percents = moved.iter().map(|it| format!("{:.1}", of(it) * 100.0));
        percents.collect::<Vec<_>>().join(" ")
    };
    let others = moved.iter().map(|it| it.others).fold(0.0, f64::max);
    report.claim(
        format!(
            "2: {}, 1 of {} leaves: 1/n + eps of the keys move at most, of other peers' {:.0} %",
            method.name,
            SIZES.map(|peers| peers.to_string()).join(", "),
            method.others_move * 100.0
        ),
        format!(
            "{} %, at most {} %; of others' {:.2} %",
            percents(|it| it.share),
            percents(|it| it.most),
            others * 100.0
        ),
        moved.iter().all(Moved::holds),
    );
}

/// Has one come to ten peers, and another be down for a time.
fn comes_and_is_down(options: &Options, report: &mut Report, tally: &mut Tally, method: Method) {
    let (fleet, proxy, before, after) = resized(options, tally, method, (WHOLE, WHOLE + 1));
    let moved = Moved::of(method, &before, &after, WHOLE, WHOLE + 1);
    report.claim(
        format!(
            "2: {}, 1 comes to {WHOLE}: {:.1} % of the keys move at most (1/n + eps), of other peers' {:.0} %",
            method.name,
            moved.most * 100.0,
            moved.others_most * 100.0
        ),
        format!("{:.1} %, {:.2} %", moved.share * 100.0, moved.others * 100.0),
        moved.holds(),
    );
    let mut keys = Keys::new(options.requests / 5);
    order(&proxy, &fleet, "down");
    let down = keys.peers(&proxy);
    let moved: Vec<(usize, usize)> = after.moves(&down).collect();
    let strays = moved.iter().filter(|(from, _)| *from != 0).count();
    let heirs = (1..=WHOLE).filter(|peer| moved.iter().any(|(_, to)| to == peer));
    let (own, heirs) = (after.count_of(0), heirs.count());
    // Chance may give a peer none of few keys.
    let least = if own > 20 * WHOLE { WHOLE } else { WHOLE / 2 };
    report.claim(
        format!(
            "2: {}, 1 of {} is down: its keys alone move, to {least} others at least",
            method.name,
            WHOLE + 1
        ),
        format!(
            "{} of its {own} and {strays} of others, to {heirs} peers",
            moved.len() - strays
        ),
        strays == 0 && moved.len() == own && heirs >= least,
    );
    order(&proxy, &fleet, "up");
    let away = after.moved_to(&keys.peers(&proxy));
    report.claim(
        format!(
            "2: {}, it is up again: all keys are where they were",
            method.name
        ),
        format!("{away} are not"),
        away == 0,
    );
    tally.add(method.name, 2 * keys.count, keys.failures);
}

/// Orders this for the first peer.
#[track_caller]
fn order(proxy: &Proxy, fleet: &Fleet, verb: &str) {
    let address = fleet.address(0).to_string();
    let ordered = proxy.command("upstream", &["app", verb, &address]);
    ordered.expect_success();
}
