//! Shares of requests that are over at once: turns, draws, and networks of clients.

use std::net::Ipv4Addr;

use super::super::asks::{ask, ask_from, told_apart};
use super::super::fleet::Fleet;
use super::super::tally::Tally;
use super::super::{Options, gateway};
use super::statistics::{SIGMAS, Shares, of_maglev};
use crate::show::Report;

const WEIGHTS: [u32; 8] = [8, 4, 2, 2, 1, 1, 1, 1];
const WORKERS: usize = 4;

pub(super) fn run(options: &Options, report: &mut Report, tally: &mut Tally) {
    turns(options, report, tally);
    draws(options, report, tally);
    networks(options, report, tally);
}

/// Round robin: any row of requests is shared out by weight, give or take two, in each worker.
fn turns(options: &Options, report: &mut Report, tally: &mut Tally) {
    let fleet = Fleet::start(WEIGHTS.len());
    let proxy = gateway::start(WORKERS, &format!("peers = [{}]", fleet.weighted(&WEIGHTS)));
    let requests = vec![String::new(); options.requests];
    let (_, failures) = told_apart(ask(proxy.address(), &requests, 32, 0));
    let counts = fleet.requests();
    let shares = Shares {
        counts: &counts,
        weights: &WEIGHTS,
    };
    let (off, most) = (shares.farthest(), 2 * WORKERS);
    report.claim(
        format!(
            "2: round_robin, {WORKERS} workers: shares by weight, give or take {most} requests (2 a worker)"
        ),
        format!("{off:.1} off, {} requests to {counts:?}", requests.len()),
        off <= most as f64,
    );
    tally.add("round_robin", requests.len(), failures);
}

/// Random: with nothing under way each request is a draw by weight.
fn draws(options: &Options, report: &mut Report, tally: &mut Tally) {
    let fleet = Fleet::start(WEIGHTS.len());
    let peers = fleet.weighted(&WEIGHTS);
    let proxy = gateway::start(WORKERS, &format!("peers = [{peers}]\nbalance = \"random\""));
    let requests = vec![String::new(); options.requests / 4];
    let (_, failures) = told_apart(ask(proxy.address(), &requests, 1, 0));
    let counts = fleet.requests();
    let shares = Shares {
        counts: &counts,
        weights: &WEIGHTS,
    };
    let off = shares.deviations(|_| 0.0);
    report.claim(
        format!("2: random: idle peers are drawn by weight, within {SIGMAS} sd"),
        format!("{off:.1} sd, {} requests to {counts:?}", requests.len()),
        off <= SIGMAS,
    );
    tally.add("random", requests.len(), failures);
}

/// `ip_hash`: clients of a network have one peer, in all workers, and networks are shared out by weight.
fn networks(options: &Options, report: &mut Report, tally: &mut Tally) {
    let fleet = Fleet::start(WEIGHTS.len());
    let peers = fleet.weighted(&WEIGHTS);
    let proxy = gateway::start(
        WORKERS,
        &format!("peers = [{peers}]\nbalance = \"ip_hash\""),
    );
    let networks = options.requests / 20;
    let (mut counts, mut apart, mut failures) = (vec![0; WEIGHTS.len()], 0, Vec::new());
    for network in 0..networks {
        let [_, _, high, low] = (network as u32).to_be_bytes();
        let served_by = |host| {
            // 127.1 has the peers.
            let client = Ipv4Addr::new(127, 2 + high, low, host);
            ask_from(client, proxy.address())
        };
        match (served_by(1), served_by(200)) {
            (Ok(one), Ok(other)) => {
                counts[one] += 1;
                apart += usize::from(one != other);
            }
            (one, other) => failures.extend([one, other].into_iter().filter_map(Result::err)),
        }
    }
    let shares = Shares {
        counts: &counts,
        weights: &WEIGHTS,
    };
    let off = shares.deviations(of_maglev);
    report.claim(
        "2: ip_hash: 0 networks have clients at two peers",
        format!("{apart} of {networks}"),
        apart == 0,
    );
    report.claim(
        format!("2: ip_hash: networks are shared out by weight, within {SIGMAS} sd"),
        format!("{off:.1} sd, {counts:?}"),
        off <= SIGMAS,
    );
    tally.add("ip_hash", 2 * networks, failures);
}
