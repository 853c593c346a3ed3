//! Limits of a plugin beyond memory and CPU time, and how a limit that it has reached is named.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use castling_abi::rules::usage::is_within;
use tracing::warn;

use crate::config::PluginLimits;
use crate::exchange::{Section, Size, Usage};

/// A limit that was reached, as errors name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    /// Limit of the plugin's `limits`.
    key: &'static str,
    pub(super) value: u64,
    unit: &'static str,
}

impl Reached {
    pub(super) fn count(key: &'static str, value: usize) -> Self {
        Self {
            key,
            value: value as u64,
            unit: "",
        }
    }

    pub(super) fn bytes(key: &'static str, value: usize) -> Self {
        Self {
            unit: " bytes",
            ..Self::count(key, value)
        }
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, unit } = self;
        write!(f, "limits.{key} of {value}{unit} reached")
    }
}

impl std::error::Error for Reached {}

/// How much a plugin may add to a part of an exchange.
#[derive(Clone, Copy)]
pub(super) struct Allowance {
    part: Section,
    most: Size,
}

impl Allowance {
    pub(super) fn of(limits: &PluginLimits, part: Section) -> Self {
        let most = match part {
            Section::RequestHead | Section::ReplyHead => most_of_head(limits),
            Section::Variables => Size {
                count: limits.variables,
                bytes: limits.variable_bytes,
            },
        };
        Self { part, most }
    }

    /// In a head.
    #[inline]
    pub(super) fn of_head(part: Section, most: Size) -> Self {
        Self { part, most }
    }

    /// Whether there is room for something of this extent alone.
    #[inline]
    pub(super) fn admits(self, made: Size) -> bool {
        made.is_within(self.most)
    }

    /// Usage once `comes` is there in the place of `goes`; `None`: more than there is room for.
    #[inline]
    pub(super) fn after(self, added: Usage, comes: Size, goes: Size) -> Option<Usage> {
        let after = added.after(comes, goes);
        after.is_within(self.most).then_some(after)
    }

    /// The limit that so much is beyond.
    #[cold]
    pub(super) fn reached(self, added: Usage) -> Reached {
        let Size { count, bytes } = self.most;
        match (self.part, is_within(added.count, count)) {
            (Section::RequestHead | Section::ReplyHead, false) => Reached::count("headers", count),
            (Section::RequestHead | Section::ReplyHead, true) => {
                Reached::bytes("header_bytes", bytes)
            }
            (Section::Variables, false) => Reached::count("variables", count),
            (Section::Variables, true) => Reached::bytes("variable_bytes", bytes),
        }
    }
}

/// Allowance of a plugin in a head.
pub(super) fn most_of_head(limits: &PluginLimits) -> Size {
    Size {
        count: limits.headers,
        bytes: limits.header_bytes,
    }
}

/// The lines a second that a plugin may bring into the log. What is beyond is dropped, and a line says how many.
pub(super) struct LineBudget {
    plugin: Arc<str>,
    lines_a_second: u32,
    /// Second of one thread; a mutex because it lies in a store.
    second: Mutex<Second>,
}

#[derive(Clone, Copy, Debug)]
struct Second {
    began: Instant,
    lines: u32,
    /// Since the last line that told it.
    dropped: u64,
}

const SECOND: Duration = Duration::from_secs(1);

impl LineBudget {
    pub(super) fn new(plugin: &Arc<str>, lines_a_second: u32) -> Arc<Self> {
        Arc::new(Self {
            plugin: Arc::clone(plugin),
            lines_a_second,
            second: Mutex::new(Second {
                began: Instant::now(),
                lines: 0,
                dropped: 0,
            }),
        })
    }

    /// Whether one more line may be written now. Must be called where tasks can be spawned that stay on their thread: one
    /// tells later what was dropped.
    pub(super) fn admits(self: &Arc<Self>) -> bool {
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = second.admits(Instant::now(), self.lines_a_second);
        if !admitted && second.dropped == 1 {
            tokio::task::spawn_local(Arc::clone(self).tell());
        }
        admitted
    }

    async fn tell(self: Arc<Self>) {
        tokio::time::sleep(SECOND).await;
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        let dropped = std::mem::take(&mut second.dropped);
        let (plugin, limit) = (&*self.plugin, self.lines_a_second);
        warn!(
            plugin,
            dropped,
            "{dropped} log lines of plugin {plugin} were dropped: limits.log_lines of {limit} a second reached"
        );
    }
}

impl Second {
    fn admits(&mut self, now: Instant, lines_a_second: u32) -> bool {
        if now.duration_since(self.began) >= SECOND {
            self.began = now;
            self.lines = 0;
        }
        let admitted = self.lines < lines_a_second;
        match admitted {
            true => self.lines += 1,
            false => self.dropped += 1,
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_named_with_its_value_and_unit() {
        let text = |reached: Reached| reached.to_string();
        assert_eq!(
            text(Reached::bytes("memory", 65536)),
            "limits.memory of 65536 bytes reached"
        );
        assert_eq!(
            text(Reached::count("calls", 3)),
            "limits.calls of 3 reached"
        );
    }

    #[test]
    fn each_second_has_its_own_lines() {
        let began = Instant::now();
        let mut second = Second {
            began,
            lines: 0,
            dropped: 0,
        };
        let mut admits = |after_ms: u64| {
            let now = began + Duration::from_millis(after_ms);
            second.admits(now, 2)
        };
        assert_eq!([admits(0), admits(10), admits(999)], [true, true, false]);
        assert_eq!(
            [admits(1000), admits(1500), admits(1999)],
            [true, true, false]
        );
        assert_eq!(second.dropped, 2);
    }
}
