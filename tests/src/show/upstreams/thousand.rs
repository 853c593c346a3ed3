//! An upstream with a thousand peers: all are reached, and each costs a worker little memory.

use super::asks::{ask, told_apart};
use super::fleet::Fleet;
use super::tally::Tally;
use super::{Options, gateway};
use crate::Proxy;
use crate::show::{Progress, Report};

const WORKERS: usize = 2;
const CONNECTIONS: usize = 32;

/// Policies that are asked.
const POLICIES: [(&str, &str); 4] = [
    ("round_robin", "\"round_robin\""),
    ("least_conn", "\"least_conn\""),
    ("ketama", "{ hash = \"$http_x_user\" }"),
    ("ewma plugin", "{ plugin = \"ewma\" }"),
];

pub(super) fn run(options: &Options, report: &mut Report, progress: &mut Progress) {
    let fleet = Fleet::start(options.peers);
    let (mut tally, goal) = (Tally::default(), options.peer_bytes);
    for (name, balance) in POLICIES {
        progress.step(&format!("{} peers, {name}", options.peers));
        let mut each = |kept: usize| {
            let lines = format!("balance = {balance}\nkeepalive = {{ connections = {kept} }}");
            let few = Measured::of(options, &fleet, 1, &lines, &mut tally);
            let many = Measured::of(options, &fleet, fleet.len(), &lines, &mut tally);
            if kept == 0 {
                claim_reached(options, report, name, &many.counts);
            }
            let peers = (fleet.len() * WORKERS) as f64;
            let more = |few: u64, many: u64| many.saturating_sub(few) as f64 * 1024.0 / peers;
            (
                more(few.fresh_kib, many.fresh_kib),
                more(few.used_kib, many.used_kib),
            )
        };
        let ((fresh, used), (_, connected)) = (each(0), each(MOST_KEPT));
        report.claim(
            format!("4: {name}: a peer takes at most {goal} bytes of a worker"),
            format!("{fresh:.0} before the first request, {used:.0} after all"),
            used.max(fresh) <= goal as f64,
        );
        report.figure(
            format!("4: {name}: bytes of a peer with the connections that are kept to it"),
            format!("{connected:.0}"),
        );
    }
    tally.claim(report, &format!("4: {} peers: ", options.peers));
}

/// Connections that are kept by default.
const MOST_KEPT: usize = 16_384;

/// A gateway that was asked.
struct Measured {
    /// Memory of the workers before a request and after all.
    fresh_kib: u64,
    used_kib: u64,
    counts: Vec<u64>,
}

impl Measured {
    /// `lines`: of the upstream, besides so many of the peers.
    fn of(options: &Options, fleet: &Fleet, peers: usize, lines: &str, tally: &mut Tally) -> Self {
        let listed = fleet.listed(0..peers);
        let proxy = gateway::start(WORKERS, &format!("peers = [{listed}]\n{lines}"));
        let fresh_kib = workers_kib(&proxy);
        let before = fleet.requests();
        let fields = (0..options.requests).map(|n| format!("X-User: user-{n}\r\n"));
        let fields: Vec<String> = fields.collect();
        let (_, failures) = told_apart(ask(proxy.address(), &fields, CONNECTIONS, 0));
        tally.add(lines, fields.len(), failures);
        let after = fleet.requests().into_iter();
        Self {
            fresh_kib,
            used_kib: workers_kib(&proxy),
            counts: after
                .zip(before)
                .map(|(now, before)| now - before)
                .collect(),
        }
    }
}

fn workers_kib(proxy: &Proxy) -> u64 {
    let workers = proxy.workers().into_iter();
    workers.map(|worker| worker.anonymous_kib()).sum()
}

/// Claims that all were reached; by round robin, each in its turns.
fn claim_reached(options: &Options, report: &mut Report, name: &str, counts: &[u64]) {
    let reached = counts.iter().filter(|count| **count > 0).count();
    let least = counts.iter().min().copied().unwrap_or(0);
    let most = counts.iter().max().copied().unwrap_or(0);
    let told = format!(
        "{reached}, {least} to {most} of {} requests each",
        options.requests
    );
    let (turns, off) = (
        (options.requests / options.peers) as u64,
        2 * WORKERS as u64,
    );
    let peers = options.peers;
    match name {
        "round_robin" => report.claim(
            format!(
                "4: {name}: all {peers} peers answer, {turns} requests each, give or take {off}"
            ),
            told,
            reached == peers && least + off >= turns && most <= turns + off,
        ),
        _ => report.claim(
            format!("4: {name}: all {peers} peers answer"),
            told,
            reached == peers,
        ),
    }
}
