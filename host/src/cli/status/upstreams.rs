//! Upstreams in `castling status`, and their peers in `castling upstream`.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::process::{CheckReport, PeerReport, UpstreamReport};

use super::{duration, or_dash, table};

/// Addresses that are shown of one upstream; `castling status --json` has all.
const ADDRESSES_SHOWN: usize = 8;

/// Peers of one upstream that are shown because they are not plainly up.
const NOT_UP_SHOWN: usize = 20;

/// A line for each upstream.
pub(super) fn summary(upstreams: &[UpstreamReport]) -> Option<String> {
    table(upstreams, UPSTREAM, upstream)
}

const UPSTREAM: [&str; 6] = ["upstream", "peers", "up", "not up", "active", "addresses"];

fn upstream(upstream: &UpstreamReport) -> [String; 6] {
    let peers = upstream.peers.iter().take(ADDRESSES_SHOWN);
    let mut addresses: Vec<String> = peers.map(|peer| peer.address.clone()).collect();
    let more = upstream.peers.len() - addresses.len();
    if more > 0 {
        addresses.push(format!("and {more} more"));
    }
    let mut by_state: BTreeMap<&str, usize> = BTreeMap::new();
    for peer in &upstream.peers {
        *by_state.entry(&peer.state).or_default() += 1;
    }
    let up = by_state.remove(UP).unwrap_or_default();
    let not_up = by_state
        .into_iter()
        .map(|(state, count)| format!("{count} {state}"));
    let active: u64 = upstream
        .peers
        .iter()
        .map(|peer| u64::from(peer.active))
        .sum();
    [
        upstream.name.clone(),
        upstream.peers.len().to_string(),
        up.to_string(),
        or_dash(not_up.collect::<Vec<_>>().join(", ")),
        active.to_string(),
        or_dash(addresses.join(", ")),
    ]
}

/// A line for each peer of which there is more to say than that it is up. None where there is none.
pub(super) fn not_up(upstreams: &[UpstreamReport]) -> Option<String> {
    let mut rows = Vec::new();
    let mut left_out = String::new();
    for upstream in upstreams {
        let peers = upstream.peers.iter().filter(|peer| !is_plainly_up(peer));
        let peers: Vec<&PeerReport> = peers.collect();
        let shown = peers.iter().take(NOT_UP_SHOWN);
        rows.extend(shown.map(|peer| (upstream.name.as_str(), *peer)));
        if let Some(more) = peers
            .len()
            .checked_sub(NOT_UP_SHOWN)
            .filter(|more| *more > 0)
        {
            let name = &upstream.name;
            // Writing to a String cannot fail.
            let _ = writeln!(
                left_out,
                "and {more} more of {name}: castling upstream {name}"
            );
        }
    }
    let row = |(name, peer): &(&str, &PeerReport)| {
        [
            peer.address.clone(),
            (*name).to_owned(),
            state(peer),
            weight(peer),
            peer.failures.to_string(),
            last_check(peer.check.as_ref()),
            peer.active.to_string(),
            or_dash(peer.operator.clone()),
        ]
    };
    let mut text = table(&rows, NOT_UP, row)?;
    text.push_str(&left_out);
    Some(text)
}

const NOT_UP: [&str; 8] = [
    "peer",
    "upstream",
    "state",
    "weight",
    "failures",
    "last check",
    "active",
    "by the operator",
];

/// Peers of one upstream, a line each.
pub(in crate::cli) fn peers_text(upstream: &UpstreamReport) -> String {
    let mut text = table(&upstream.peers, PEER, peer)
        .unwrap_or_else(|| format!("upstream {} has no peers at this moment\n", upstream.name));
    if !upstream.removed.is_empty() {
        let removed = upstream.removed.join(", ");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "taken out by the operator: {removed}");
    }
    text
}

const PEER: [&str; 10] = [
    "peer",
    "name",
    "slot",
    "state",
    "weight",
    "backup",
    "failures",
    "last check",
    "active",
    "by the operator",
];

fn peer(peer: &PeerReport) -> [String; 10] {
    [
        peer.address.clone(),
        peer.host.clone(),
        peer.slot.to_string(),
        state(peer),
        weight(peer),
        if peer.backup { "yes" } else { "no" }.to_owned(),
        peer.failures.to_string(),
        last_check(peer.check.as_ref()),
        peer.active.to_string(),
        or_dash(peer.operator.clone()),
    ]
}

const UP: &str = "up";

fn is_plainly_up(peer: &PeerReport) -> bool {
    peer.state == UP
        && peer.operator.is_empty()
        && peer.failures == 0
        && !is_warming(peer)
        && peer.check.as_ref().is_none_or(|check| check.passed)
}

fn is_warming(peer: &PeerReport) -> bool {
    peer.weight_now < f64::from(peer.weight)
}

/// State of a peer in words.
fn state(peer: &PeerReport) -> String {
    let since = peer.check.as_ref().and_then(|check| check.state_seconds);
    match (peer.state.as_str(), peer.ejected_seconds, since) {
        ("ejected", Some(left), _) => format!("ejected for {}", duration(left.ceil())),
        ("unhealthy", _, Some(since)) => format!("unhealthy for {}", duration(since)),
        (state, _, _) => or_dash(state.to_owned()),
    }
}

fn weight(peer: &PeerReport) -> String {
    match is_warming(peer) {
        true => format!("{:.1} of {}", peer.weight_now, peer.weight),
        false => peer.weight.to_string(),
    }
}

fn last_check(check: Option<&CheckReport>) -> String {
    let Some(check) = check else {
        return "-".to_owned();
    };
    let result = if check.passed { "passed" } else { "failed" };
    let ago = check
        .age_seconds
        .map_or_else(String::new, |age| format!(" {} ago", duration(age)));
    match check.against {
        0 => format!("{result}{ago}"),
        streak => format!("{result}{ago}, {streak} in a row"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(number: usize) -> PeerReport {
        PeerReport {
            address: format!("10.0.0.1:{number}"),
            weight: 2,
            weight_now: 2.0,
            state: UP.to_owned(),
            ..PeerReport::default()
        }
    }

    fn ejected(number: usize) -> PeerReport {
        PeerReport {
            state: "ejected".to_owned(),
            ejected_seconds: Some(7.4),
            failures: 3,
            ..up(number)
        }
    }

    fn app(peers: Vec<PeerReport>) -> [UpstreamReport; 1] {
        let name = "app".to_owned();
        let removed = Vec::new();
        [UpstreamReport {
            name,
            peers,
            removed,
        }]
    }

    #[test]
    fn of_a_thousand_peers_those_are_shown_that_are_not_plainly_up() {
        let all_up = app((0..1000).map(up).collect());
        assert_eq!(not_up(&all_up), None);
        let mut peers: Vec<PeerReport> = (0..1000).map(up).collect();
        peers[5] = ejected(5);
        let warming = PeerReport {
            weight_now: 0.2,
            ..up(7)
        };
        peers[7] = warming;
        let failed = CheckReport {
            age_seconds: Some(4.0),
            against: 2,
            ..CheckReport::default()
        };
        peers[9].check = Some(failed);
        let some = app(peers);
        let told = not_up(&some).unwrap();
        assert_eq!(told.lines().count(), 4, "{told}");
        for part in ["ejected for 8s", "0.2 of 2", "failed 4s ago, 2 in a row"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        let told = summary(&some).unwrap();
        assert!(told.contains("1000  999  1 ejected"), "{told}");
    }

    #[test]
    fn where_many_are_not_up_some_are_shown() {
        let told = not_up(&app((0..50).map(ejected).collect())).unwrap();
        assert_eq!(told.lines().count(), 1 + NOT_UP_SHOWN + 1);
        assert!(told.ends_with("and 30 more of app: castling upstream app\n"));
    }
}
