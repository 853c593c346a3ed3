//! A peer that is ten times slower than the others: policies that go by time send it little.

use std::time::Duration;

use super::super::fleet::Fleet;
use super::super::tally::Tally;
use super::super::{Options, gateway};
use crate::load::Load;
use crate::show::Report;

const PEERS: usize = 5;
const QUICK: Duration = Duration::from_millis(10);
const SLOW: Duration = Duration::from_millis(100);
const CLIENTS: usize = 16;
const POLICIES: [(&str, &str); 3] = [
    ("least_time", "\"least_time\""),
    ("ewma", "\"ewma\""),
    ("ewma plugin", "{ plugin = \"ewma\" }"),
];

/// Share of a peer that gets requests in proportion to its speed: 1 of 4 × 10 + 1.
const BY_SPEED: f64 = 1.0 / 41.0;

pub(super) fn run(options: &Options, report: &mut Report, tally: &mut Tally) {
    for (name, policy) in POLICIES {
        let fleet = Fleet::start(PEERS);
        (0..PEERS).for_each(|peer| fleet.delay(peer, QUICK));
        fleet.delay(PEERS - 1, SLOW);
        let peers = fleet.listed(0..PEERS);
        let proxy = gateway::start(2, &format!("peers = [{peers}]\nbalance = {policy}"));
        let load = Load {
            address: proxy.address(),
            clients: CLIENTS,
            requests_per_connection: 1_000_000,
            request: "GET / HTTP/1.1\r\nHost: show.test\r\n\r\n".to_owned(),
            bodies: (0..PEERS).map(|peer| peer.to_string()).collect(),
        };
        let running = load.start();
        std::thread::sleep(options.lasts / 12);
        let loaded = running.stop();
        let counts = fleet.requests();
        let share = counts[PEERS - 1] as f64 / counts.iter().sum::<u64>().max(1) as f64;
        let what = format!("2: {name}: a peer that is 10 times slower gets");
        let told = format!("{:.2} %, {counts:?}", share * 100.0);
        match options.claims_times {
            true => report.claim(
                format!(
                    "{what} {:.1} % at most, its part of the speed",
                    BY_SPEED * 100.0
                ),
                told,
                share <= BY_SPEED,
            ),
            false => report.figure(what, told),
        }
        tally.add(name, loaded.good, loaded.failures);
    }
}
