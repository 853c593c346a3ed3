//! Text of `castling check` about what an upstream's requests are held to.

use std::fmt::Write;

use crate::config::{Retry, RetryOn, Sticky, Upstream};

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
            statuses.insert(status);
        }
        let mut on = RetryOn {
            connect: true,
            statuses,
            ..RetryOn::NOTHING
        };
        assert_eq!(upon(&on), "connect, 429, 502");
        (500..600).for_each(|status| on.statuses.insert(status));
        assert_eq!(upon(&on), "connect, 429, 5xx");
        assert_eq!(upon(&RetryOn::NOTHING), "nothing");
        assert!(upon(&Retry::DEFAULT.on).ends_with("timeout, invalid_header"));
    }
}
