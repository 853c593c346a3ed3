//! Text of `castling check` about an upstream: its peers, how one is chosen, and what its requests are held to.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::rc::Rc;

use crate::config::{
    Balance, CheckKind, HashMethod, HealthCheck, Retry, RetryOn, SlowStart, Sticky, Upstream,
};
use crate::upstream::Peer;

/// Peers with what tells them from an ordinary one: `10.0.0.1:80 (weight 2, backup)`.
pub(super) fn peers(peers: &[Rc<Peer>]) -> Vec<String> {
    let described = |peer: &Rc<Peer>| {
        let weight = peer.weight.get();
        let notes = [
            (weight != 1).then(|| format!("weight {weight}")),
            peer.is_backup.get().then(|| "backup".to_owned()),
            peer.zone.as_ref().map(|zone| format!("zone {zone}")),
            peer.route.as_ref().map(|route| format!("route {route}")),
        ];
        let notes: Vec<String> = notes.into_iter().flatten().collect();
        match notes.is_empty() {
            true => peer.label.to_string(),
            false => format!("{} ({})", peer.label, notes.join(", ")),
        }
    };
    peers.iter().map(described).collect()
}

/// Addresses that several names of the config have: such a peer gets the requests of all of them.
pub(super) fn same_address(peers: &[Rc<Peer>]) -> Vec<String> {
    let mut names: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for peer in peers {
        let name = String::from_utf8_lossy(peer.host.as_bytes()).into_owned();
        names.entry(&*peer.label).or_default().push(name);
    }
    let shared = names.into_iter().filter(|(_, names)| names.len() > 1);
    let told = |(address, names): (&str, Vec<String>)| {
        let (names, count) = (names.join(", "), names.len());
        format!("{address} is listed as {names}, and gets the requests of {count} peers")
    };
    shared.map(told).collect()
}

/// Describes how a peer is chosen and found well, a line each.
pub(super) fn describe_choice(upstream: &Upstream, text: &mut String) {
    // Writing to a String cannot fail.
    if let Some(file) = &upstream.peers_file {
        let _ = writeln!(text, "  list: {}, looked at each second", file.display());
    }
    if let Some(url) = &upstream.peers_url {
        let _ = writeln!(text, "  list: {}, asked each {:?}", url.url, url.interval);
    }
    let _ = writeln!(text, "  balance: {}", policy(&upstream.balance));
    if let Some(SlowStart { window, aggression }) = upstream.slow_start {
        let _ = writeln!(text, "  slow start: {window:?}, aggression {aggression}");
    }
    if let Some(check) = &upstream.check {
        let _ = writeln!(text, "  check: {}", checked(check));
    }
}

fn policy(balance: &Balance) -> String {
    let word = match balance {
        Balance::RoundRobin => "round_robin",
        Balance::LeastConn => "least_conn",
        Balance::LeastTime => "least_time",
        Balance::Random => "random",
        Balance::Ewma => "ewma",
        Balance::IpHash => "ip_hash",
        Balance::Target => "target",
        Balance::Plugin(plugin) => return format!("plugin {plugin}"),
        Balance::Hash(hash) => {
            let method = match hash.method {
                HashMethod::Ketama => "ketama",
                HashMethod::Maglev => "maglev",
            };
            let bounded = hash.bounded.map(|bounded| format!(", bounded {bounded}"));
            let bounded = bounded.unwrap_or_default();
            return format!("hash of {} ({method}{bounded})", hash.key);
        }
    };
    word.to_owned()
}

/// `http GET /ready each 5s, down after 3 failures, up after 2 passes`.
fn checked(check: &HealthCheck) -> String {
    let kind = match &check.kind {
        CheckKind::Tcp => "tcp".to_owned(),
        CheckKind::Http(http) => format!("http {} {}", http.method, http.path),
        CheckKind::Grpc { service } if service.is_empty() => "grpc".to_owned(),
        CheckKind::Grpc { service } => format!("grpc {service}"),
    };
    let port = check.port.map(|port| format!(" at port {port}"));
    let (port, interval) = (port.unwrap_or_default(), check.interval);
    let (fall, rise) = (check.fall, check.rise);
    format!("{kind}{port} each {interval:?}, down after {fall} failures, up after {rise} passes")
}

/// Describes what is not as it is by default, a line each.
pub(super) fn describe_protection(upstream: &Upstream, text: &mut String) {
    let Upstream {
        retry,
        breaker,
        concurrency,
        ..
    } = upstream;
    if *retry != Retry::DEFAULT {
        let budget = match &retry.budget {
            Some(budget) => format!(
                "{} of the requests, or {} a second",
                budget.ratio, budget.min
            ),
            None => "any number".to_owned(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  tries {}, again upon {}: {budget}",
            upstream.tries,
            upon(&retry.on)
        );
        if retry.spill_bytes > 0 {
            let (memory, disk) = (retry.buffer_bytes, retry.spill_bytes);
            let _ = writeln!(
                text,
                "  bodies to send again: {memory} bytes in memory, {disk} on disk"
            );
        }
        if let Some(hedge) = retry.hedge {
            let _ = writeln!(text, "  hedges after {:?}: {}", hedge.after, hedge.max);
        }
    }
    let limits = [
        ("connections", breaker.connections),
        ("pending", breaker.pending),
        ("active", breaker.active),
        ("retries", breaker.retries),
    ];
    let limits: Vec<String> = limits
        .into_iter()
        .filter_map(|(name, limit)| Some(format!("{name} {}", limit?)))
        .collect();
    if !limits.is_empty() {
        let _ = writeln!(text, "  breaker: {}", limits.join(", "));
    }
    if let Some(learnt) = concurrency {
        let (min, max, wait) = (learnt.min, learnt.max, learnt.queue_time);
        let _ = writeln!(text, "  concurrency: {min} to {max}, others wait {wait:?}");
    }
}

/// Describes what keeps the requests of a session at one peer.
pub(super) fn describe_sticky(upstream: &Upstream, text: &mut String) {
    let by = match &upstream.sticky {
        None => return,
        Some(Sticky::Cookie(cookie)) => format!("by cookie {}", cookie.name),
        Some(Sticky::Route(texts)) => format!("by route, {}", texts.join(", ")),
        Some(Sticky::Learn(learnt)) => {
            let (learn, lookup) = (learnt.learn.join(", "), learnt.lookup.join(", "));
            let (zone, timeout) = (&learnt.zone, learnt.timeout);
            format!("learnt by {learn}, looked up by {lookup}, {timeout:?} in zone {zone}")
        }
    };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  sessions {by}");
}

/// `connect, reset, 502, 503`; the statuses 500 to 599 as `5xx`.
fn upon(on: &RetryOn) -> String {
    let words = [
        ("connect", on.connect),
        ("reset", on.reset),
        ("timeout", on.timeout),
        ("invalid_header", on.invalid_header),
    ];
    let chosen = words.into_iter().filter(|(_, is_on)| *is_on);
    let mut names: Vec<String> = chosen.map(|(word, _)| word.to_owned()).collect();
    let has = |status: &u16| on.statuses.contains(*status);
    let has_all = (500..600).all(|status| has(&status));
    names.extend((400..500).filter(has).map(|status| status.to_string()));
    match has_all {
        true => names.push("5xx".to_owned()),
        false => names.extend((500..600).filter(has).map(|status| status.to_string())),
    }
    match names.is_empty() {
        true => "nothing".to_owned(),
        false => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StatusSet;

    #[test]
    fn causes_are_named_as_in_the_config() {
        let mut statuses = StatusSet::NONE;
        for status in [429, 502] {
            statuses.insert(status..=status);
        }
        let mut on = RetryOn {
            connect: true,
            statuses,
            ..RetryOn::NOTHING
        };
        assert_eq!(upon(&on), "connect, 429, 502");
        on.statuses.insert(500..=599);
        assert_eq!(upon(&on), "connect, 429, 5xx");
        assert_eq!(upon(&RetryOn::NOTHING), "nothing");
        assert!(upon(&Retry::DEFAULT.on).ends_with("timeout, invalid_header"));
    }
}
