//! Part 4: a name whose addresses change every second under load, and an upstream with a thousand peers.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::fleet::Fleet;
use super::tally::Tally;
use super::{Options, gateway, thousand};
use crate::load::Load;
use crate::name_server::NameServer;
use crate::show::{Progress, Report};
use crate::{Exposition, Proxy};

/// Peers that there are, of which the name has some at a time.
const ALL: usize = 24;
const LISTED: usize = 6;
/// Peers that leave and come with each change: all but one.
const CHANGED: usize = 5;
/// A peer that has left is there for so many changes more, and then dies.
const OUTLIVES: usize = 2;

pub(super) fn run(options: &Options, report: &mut Report, progress: &mut Progress) {
    changing(options, report, progress);
    thousand::run(options, report, progress);
}

/// Peers of the name after so many changes.
fn listed(change: usize) -> impl Iterator<Item = usize> {
    (0..LISTED).map(move |n| (change * CHANGED + n) % ALL)
}

fn changing(options: &Options, report: &mut Report, progress: &mut Progress) {
    let every = (options.lasts / 60).clamp(Duration::from_millis(250), Duration::from_secs(1));
    let (server, fleet) = (NameServer::start(), Fleet::start(ALL));
    list(&server, &fleet, 0);
    let proxy = gateway::start(2, &upstream(&server, &fleet, every));
    let loads =
        [1_000_000, 20].map(|requests_per_connection| load(&proxy, requests_per_connection));
    let running = loads.map(Load::start);
    let mut seen = Seen::default();
    let begun = Instant::now();
    let mut change = 0;
    while begun.elapsed() < options.lasts {
        change += 1;
        fleet_follows(&fleet, change);
        let before = fleet.requests();
        list(&server, &fleet, change);
        std::thread::sleep(
            (begun + every * change as u32).saturating_duration_since(Instant::now()),
        );
        seen.note(&before, &fleet.requests(), change);
        progress.tell(|| {
            let good: usize = running.iter().map(|load| load.good()).sum();
            format!("{change} changes of the name, {good} requests")
        });
    }
    let [kept, short] = running.map(|load| load.stop());
    let (good, mut failures) = (kept.good + short.good, kept.failures);
    failures.extend(short.failures);
    let what = format!(
        "4: {CHANGED} of {LISTED} addresses of a name change every {every:.0?}, {change} times: "
    );
    let mut tally = Tally::default();
    tally.add("the name", good + failures.len(), failures);
    tally.claim(report, &what);
    let counted: u64 = fleet.requests().iter().sum();
    report.figure("4: requests that the addresses have had", counted);
    seen.claim(options, report, change);
    figures(report, &proxy, &server, good, kept.resent + short.resent);
}

fn upstream(server: &NameServer, fleet: &Fleet, every: Duration) -> String {
    let (port, servers, least) = (fleet.port(), server.address, every.as_millis() / 4);
    format!(
        "peers = [\"app.test:{port}\"]\n\
         resolve = {{ servers = [\"{servers}\"], family = \"ipv4\", min_interval = \"{}ms\" }}",
        least.max(100)
    )
}

fn load(proxy: &Proxy, requests_per_connection: usize) -> Load {
    Load {
        address: proxy.address(),
        clients: 12,
        requests_per_connection,
        request: "GET / HTTP/1.1\r\nHost: show.test\r\n\r\n".to_owned(),
        bodies: (0..ALL).map(|peer| peer.to_string()).collect(),
    }
}

/// Has the name server say the addresses after so many changes, which are good for no time.
fn list(server: &NameServer, fleet: &Fleet, change: usize) {
    let address = |peer| match fleet.address(peer).ip() {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    let addresses: Vec<Ipv4Addr> = listed(change).map(address).collect();
    server.set_addresses("app.test", &addresses, 0);
}

/// Before a change: those that are to be listed are there, and those that left long ago die.
fn fleet_follows(fleet: &Fleet, change: usize) {
    let lives = |peer: usize, change: usize| {
        let first = change.saturating_sub(OUTLIVES);
        (first..=change).any(|change| listed(change).any(|it| it == peer))
    };
    for peer in 0..ALL {
        let lived = change == 1 || lives(peer, change - 1);
        match (lived, lives(peer, change)) {
            (true, false) => fleet.kill(peer),
            (false, true) => fleet.revive(peer),
            (true, true) | (false, false) => {}
        }
    }
}

/// Fate of the changes.
#[derive(Default)]
struct Seen {
    /// Changes after which a peer that came got a request before the next.
    followed: usize,
    /// Requests at peers that had left one change before.
    late: u64,
    /// Peers that ever got a request.
    reached: [bool; ALL],
}

impl Seen {
    /// Notes what each had before a change, and at the next.
    fn note(&mut self, before: &[u64], after: &[u64], change: usize) {
        let more = |peer: usize| after[peer] - before[peer];
        let came = listed(change).filter(|peer| listed(change - 1).all(|it| it != *peer));
        self.followed += usize::from(came.into_iter().all(|peer| more(peer) > 0));
        let is_known = |peer: usize| {
            let first = change.saturating_sub(1);
            (first..=change).any(|change| listed(change).any(|it| it == peer))
        };
        for (peer, reached) in self.reached.iter_mut().enumerate() {
            *reached |= more(peer) > 0;
            if change > 1 && !is_known(peer) {
                self.late += more(peer);
            }
        }
    }

    fn claim(&self, options: &Options, report: &mut Report, changes: usize) {
        let reached = self.reached.iter().filter(|it| **it).count();
        let followed = format!("{} of {changes}", self.followed);
        if options.claims_times {
            report.claim(
                format!("4: all {ALL} addresses got requests"),
                reached,
                reached == ALL,
            );
            report.claim(
                "4: after each change, all that came got requests before the next",
                followed,
                self.followed == changes,
            );
            report.claim(
                "4: 0 requests to addresses that left a change before",
                self.late,
                self.late == 0,
            );
        } else {
            report.figure("4: addresses that got requests", reached);
            report.figure("4: changes that were followed before the next", followed);
        }
    }
}

fn figures(report: &mut Report, proxy: &Proxy, server: &NameServer, good: usize, resent: usize) {
    let metrics = proxy.command("metrics", &[]).expect_success().stdout;
    let metrics = Exposition::parse(&metrics);
    let sum = |name: &str| metrics.sum(name, &[("upstream", "app")]);
    report.figure(
        "4: requests, of which were sent again by the client, and tried again by the gateway",
        format!(
            "{good}, {resent}, {}",
            sum("castling_upstream_retries_total")
        ),
    );
    report.figure(
        "4: questions, answers taken over, connections made to peers",
        format!(
            "{}, {}, {}",
            server.questions(),
            metrics.sum("castling_upstream_resolutions_total", &[("result", "ok")]),
            sum("castling_upstream_connections_made_total")
        ),
    );
}
