//! `retry` of an upstream or a route.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::sections::TIMEOUT;
use super::super::statuses::status_range;
use super::super::table::{Table, Value};
use super::super::tree::NodeKind;
use super::super::{Backoff, Hedge, Retry, RetryBudget, RetryOn, RetryOverrides};

/// Keys of `[upstreams.NAME.retry]`. `tries`: of the upstream. `spill_limit`: as [`overrides`] has it.
pub(super) fn retry(value: Value<'_>, tries: u32, spill_limit: Option<u64>) -> Option<Retry> {
    let mut table = value.table()?;
    let keys = overrides(&mut table, Some(tries), spill_limit);
    let mut retry = keys.over(&Retry::DEFAULT);
    if let Some(value) = table.get("budget") {
        retry.budget = value.only_with_retries(Some(tries)).and_then(budget);
    }
    table.finish();
    Some(retry)
}

/// Keys that a route may have, too. `tries`: those that there are, where that is known. `spill_limit`: bytes that a worker may have
/// on disk, where there is a place for them.
pub(in super::super) fn overrides(
    table: &mut Table<'_>,
    tries: Option<u32>,
    spill_limit: Option<u64>,
) -> RetryOverrides {
    let given = table.optional("on", |value| {
        Some((value, on(value.only_with_retries(tries)?)?))
    });
    let on = given.map(|(_, on)| on);
    let keys = RetryOverrides {
        on,
        non_idempotent: table.optional("non_idempotent", |value| {
            let is_more = on.is_none_or(|on| on != RetryOn { connect: on.connect, ..RetryOn::NOTHING });
            match value.only_with_retries(tries)?.boolean()? {
                true if !is_more => value.refuse(
                    "non_idempotent has no effect with on = [\"connect\"]: a peer without a connection has worked on nothing",
                ),
                is_so => Some(is_so),
            }
        }),
        same_peer: table.optional("same_peer", |value| value.only_with_retries(tries)?.boolean()),
        timeout: table.optional("timeout", |value| value.duration(TIMEOUT)),
        try_timeout: None,
        backoff: table.optional("backoff", |value| backoff(value.only_with_retries(tries)?)),
        buffer_bytes: table.optional("buffer", |value| value.only_with_retries(tries)?.size(0..=64 << 20)),
        spill_bytes: table.optional("spill", |value| {
            spill(value.only_with_retries(tries)?, spill_limit)
        }),
        hedge: None,
    };
    let hedge = table.optional("hedge", |value| hedge(value.only_with_retries(tries)?));
    let try_timeout = table.optional("try_timeout", |value| {
        let try_timeout = value.duration(TIMEOUT)?;
        match keys.timeout {
            Some(timeout) if try_timeout >= timeout => {
                value.expected("less than `timeout`, which is for all tries")
            }
            _ => Some(try_timeout),
        }
    });
    RetryOverrides {
        try_timeout,
        hedge,
        ..keys
    }
}

fn spill(value: Value<'_>, limit: Option<u64>) -> Option<usize> {
    let bytes: u64 = value.size(0..=1 << 40)?;
    match limit {
        None if bytes > 0 => value.expected("`spill_dir` in [workers], the folder that it goes to"),
        Some(limit) if bytes > limit => value.expected("no more than `spill_limit` of [workers]"),
        _ => usize::try_from(bytes).ok(),
    }
}

impl Value<'_> {
    /// Refuses a key that is about second tries where there are none.
    fn only_with_retries(self, tries: Option<u32>) -> Option<Self> {
        match tries {
            Some(1) => self.refuse(format_args!(
                "{} with tries = 1 has no effect: expected more tries",
                self.key()
            )),
            _ => Some(self),
        }
    }
}

fn on(value: Value<'_>) -> Option<RetryOn> {
    let mut on = RetryOn::NOTHING;
    let words = value.set(|item| {
        let word = match item.kind() {
            NodeKind::Text(text) => text.as_str(),
            _ => "",
        };
        let flag = match word {
            "connect" => Word::Connect,
            "reset" => Word::Reset,
            "timeout" => Word::Timeout,
            "invalid_header" => Word::InvalidHeader,
            _ => match status_range(item) {
                Some(statuses) if *statuses.start() >= 400 => Word::Statuses(statuses),
                Some(_) | None => return item.expected(ON_RULE),
            },
        };
        Some(flag)
    })?;
    for word in words {
        match word {
            Word::Connect => on.connect = true,
            Word::Reset => on.reset = true,
            Word::Timeout => on.timeout = true,
            Word::InvalidHeader => on.invalid_header = true,
            Word::Statuses(statuses) => on.statuses.insert(statuses),
        }
    }
    Some(on)
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Word {
    Connect,
    Reset,
    Timeout,
    InvalidHeader,
    Statuses(RangeInclusive<u16>),
}

const ON_RULE: &str = "\"connect\", \"reset\", \"timeout\", \"invalid_header\" or statuses of 400 to 599 such as 503, \"5xx\" or \"500-504\"";

fn backoff(value: Value<'_>) -> Option<Backoff> {
    let mut table = value.table()?;
    let Backoff { base, max } = Retry::DEFAULT.backoff;
    let time = |value: Value<'_>| value.duration(Duration::ZERO..=MAX_BACKOFF);
    let max = table.or("max", max, time);
    let base = table.or("base", base.min(max), |value| match time(value)? {
        base if base > max => value.expected("no more than `max`"),
        base => Some(base),
    });
    table.finish();
    Some(Backoff { base, max })
}

const MAX_BACKOFF: Duration = Duration::from_secs(60);

fn hedge(value: Value<'_>) -> Option<Hedge> {
    let mut table = value.table()?;
    let after = table.required("after", "a duration such as \"100ms\"", |value| {
        value.duration(Duration::from_millis(1)..=MAX_BACKOFF)
    });
    let max = table.or("max", 1, |value| value.integer(1..=10));
    table.finish();
    Some(Hedge { after: after?, max })
}

/// `"off"`, or a table.
fn budget(value: Value<'_>) -> Option<RetryBudget> {
    if let NodeKind::Text(_) = value.kind() {
        return value.choice(&[("off", None)])?;
    }
    let mut table = value.table()?;
    let RetryBudget { ratio, min } = RetryBudget::DEFAULT;
    let budget = RetryBudget {
        ratio: table.or("ratio", ratio, |value| value.number(0.0..=10.0)),
        min: table.or("min", min, |value| value.integer(0..=10_000)),
    };
    table.finish();
    Some(budget)
}
