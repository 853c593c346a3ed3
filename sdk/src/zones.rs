//! Zones: memory that all workers share. They outlive workers and reloads.
//!
//! Four kinds: [`counter`] zones hold numbers by key, for rate limits and the like; [`kv()`] zones hold values by key;
//! [`gauge()`] zones have permits by key, of which so many are out at a time; a [`topic()`] has
//! messages to all workers.
//!
//! A counter zone is made in the config (`[zones.limits] kind = "counter"`) and granted to the plugin
//! (`grants = { zones = ["limits"] }`); its size is fixed, and when it is full, what would be gone soonest makes
//! room. So it never fails for want of room; it is right for as long as it is large enough: a key that had to make
//! room counts as new.
//!
//! ```
//! use castling_sdk::prelude::*;
//! use castling_sdk::testing::Exchange;
//! use castling_sdk::zones::Counter;
//!
//! struct Lockout { failures: Counter }
//!
//! #[plugin]
//! impl Lockout {
//!     fn configure(_: std::collections::BTreeMap<String, String>) -> Self {
//!         Self { failures: zones::counter("failures") }
//!     }
//!
//!     fn preaccess(&self, request: &mut Request) -> Result<Verdict> {
//!         Ok(match self.failures.get(request.client_address())? {
//!             10.. => Response::status(429).into(),
//!             _ => Verdict::Continue,
//!         })
//!     }
//!
//!     fn response_headers(&self, request: &Request, reply: &mut Reply) -> Result<()> {
//!         if reply.status() == 401 {
//!             self.failures.add(request.client_address(), 1, Duration::from_secs(60))?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let plugin = Lockout { failures: zones::counter("failures") };
//! let mut exchange = Exchange::get("/").response(401);
//! for _ in 0..10 {
//!     let (request, reply) = exchange.request_and_reply();
//!     plugin.response_headers(request, reply).unwrap();
//! }
//! let again = plugin.preaccess(Exchange::get("/").request()).unwrap();
//! assert_eq!(again, Response::status(429).into());
//! ```

mod flight;
mod gauge;
mod kv;
mod topic;

use std::str::FromStr;
use std::time::Duration;

use castling_abi::Grant;
use serde::Deserialize;

use crate::buffer::status;
use crate::error::{self, Error, Result};
use crate::host;

pub use flight::{Flight, FlightGuard};
pub use gauge::{Gauge, Permit, gauge};
pub use kv::{Kv, kv};
pub use topic::{Topic, topic};

/// The counter zone of this name. Whether it is there and granted is found out when it is used, or asked by
/// [`Counter::must_be_granted`].
pub fn counter(name: impl Into<String>) -> Counter {
    Counter { zone: name.into() }
}

/// A zone of counts by key. Every call fails when the zone is not granted to the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    zone: String,
}

impl Counter {
    /// Fails when the config has no such counter zone or does not grant it to the plugin. In `configure`, so that `castling
    /// check` and a reload refuse a config that names one which is not there.
    ///
    /// ```
    /// # use castling_sdk::prelude::*;
    /// # use castling_sdk::testing::{self, ZoneFault};
    /// let limits = zones::counter("limits");
    /// limits.must_be_granted().map_err(|error| error.context("config.zone"))?;
    ///
    /// testing::set_zone_fault("limits", Some(ZoneFault::NotGranted));
    /// assert!(limits.must_be_granted().is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn must_be_granted(&self) -> Result<()> {
        error::must_be_granted(Grant::CounterZone, &self.zone)
    }

    /// Adds to the key's count and returns it. The count belongs to a window of time, which begins with the first
    /// addition after the one before has ended; at its end the count is gone. `window` is in whole milliseconds,
    /// rounded up.
    pub fn add(&self, key: impl AsRef<[u8]>, amount: u32, window: Duration) -> Result<u64> {
        let window_ms = i64::try_from(window.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX);
        let count = host::counter_add(
            self.zone.as_bytes(),
            key.as_ref(),
            i64::from(amount),
            window_ms,
        );
        self.count(count, "add")
    }

    /// The key's count; 0 when there is none.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<u64> {
        self.count(host::counter_get(self.zone.as_bytes(), key.as_ref()), "get")
    }

    /// Takes one of what the rate allows this key (GCRA, the generic cell rate algorithm: exact, and without windows
    /// at whose borders twice as much could pass). What is refused costs nothing: a client that keeps trying is
    /// allowed as much as one that waits.
    ///
    /// The key's count of [`Self::add`] is another thing; use different keys, or zones, for both.
    ///
    /// ```
    /// # use castling_sdk::prelude::*;
    /// use castling_sdk::zones::{Rate, Taken};
    ///
    /// let logins = zones::counter("limits");
    /// let rate = Rate::new(6, Duration::from_secs(60))?.burst(2);
    /// assert!(matches!(logins.take("ada", rate)?, Taken::Allowed { remaining: 1, .. }));
    /// assert!(matches!(logins.take("ada", rate)?, Taken::Allowed { remaining: 0, .. }));
    /// let Taken::Refused { retry_after, .. } = logins.take("ada", rate)? else { panic!() };
    /// assert_eq!(retry_after, Duration::from_secs(10));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn take(&self, key: impl AsRef<[u8]>, rate: Rate) -> Result<Taken> {
        let (interval_ns, burst) = (rate.interval_ns, i64::from(rate.burst));
        match host::rate_take(self.zone.as_bytes(), key.as_ref(), interval_ns, burst) {
            reset_ns @ 0.. => Ok(rate.allowed(reset_ns.unsigned_abs())),
            refused @ ..=REFUSED_FROM => {
                let wait_ns = refused.abs_diff(REFUSED_FROM);
                Ok(rate.refused(Duration::from_nanos(wait_ns)))
            }
            failed => Err(self.failure(failed, "take")),
        }
    }

    fn count(&self, result: i64, call: &str) -> Result<u64> {
        u64::try_from(result).map_err(|_| self.failure(result, call))
    }

    fn failure(&self, result: i64, call: &str) -> Error {
        let status = status(i32::try_from(result).unwrap_or(i32::MIN));
        error::bad_argument(
            format_args!("zone \"{}\": {call}", self.zone),
            status,
            "a key of up to 4096 bytes and a window of 1 ms or more",
        )
    }
}

/// From here down, `rate_take` says how long to wait; above stand statuses.
const REFUSED_FROM: i64 = -1_000;

/// How much is allowed: one each interval, and so many at once.
///
/// In a config it is a text: `"10/s"`, `"600/m"`, `"5/h"`, `"100/d"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Rate {
    interval: Duration,
    /// Interval in nanoseconds, or 292 years where it is longer. At least 1.
    interval_ns: i64,
    burst: u32,
}

impl Rate {
    /// `count` in each `per`, evenly: 10 a second is one each 100 ms, with a burst of 1. Fails when `count` is 0 or the
    /// interval would be below 1 ns.
    pub fn new(count: u32, per: Duration) -> Result<Self> {
        match per.checked_div(count) {
            Some(interval) if !interval.is_zero() => Ok(Self {
                interval,
                interval_ns: i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX),
                burst: 1,
            }),
            _ => Err(Error::msg(format_args!(
                "{count} in each {per:?} is no rate"
            ))),
        }
    }

    /// How many may come at once after a time without any, 1 to 4294967295. 0 is taken as 1.
    #[must_use]
    pub const fn burst(self, burst: u32) -> Self {
        let burst = if burst == 0 { 1 } else { burst };
        Self { burst, ..self }
    }

    /// Time after which another one is allowed.
    pub const fn interval(self) -> Duration {
        self.interval
    }

    fn allowed(self, reset_ns: u64) -> Taken {
        let used = reset_ns.div_ceil(self.interval_ns.unsigned_abs());
        let remaining = u64::from(self.burst).saturating_sub(used);
        Taken::Allowed {
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            reset: Duration::from_nanos(reset_ns),
        }
    }

    fn refused(self, retry_after: Duration) -> Taken {
        // Then there is room for one, so all but one of the burst are still to pass.
        let rest = self.interval.saturating_mul(self.burst - 1);
        Taken::Refused {
            retry_after,
            reset: retry_after.saturating_add(rest),
        }
    }
}

impl FromStr for Rate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let seconds = |unit: &str| match unit.trim() {
            "s" => Some(1),
            "m" => Some(60),
            "h" => Some(60 * 60),
            "d" => Some(24 * 60 * 60),
            _ => None,
        };
        text.split_once('/')
            .and_then(|(count, unit)| Some((count.trim().parse().ok()?, seconds(unit)?)))
            .and_then(|(count, seconds)| Self::new(count, Duration::from_secs(seconds)).ok())
            .ok_or_else(|| {
                Error::msg(format_args!(
                    "`{}` is not a rate: expected \"10/s\", \"600/m\", \"5/h\" or \"100/d\"",
                    text.escape_debug()
                ))
            })
    }
}

impl TryFrom<String> for Rate {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

/// Answer of [`Counter::take`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// There was one to take.
    Allowed {
        /// How many more could be taken now.
        remaining: u32,
        /// Until the whole burst is there again, if none is taken meanwhile.
        reset: Duration,
    },
    /// There was none; nothing was taken.
    Refused {
        /// Until one can be taken. Above zero.
        retry_after: Duration,
        /// Until the whole burst is there again, if none is taken meanwhile.
        reset: Duration,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::advance_clock;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn counts_end_with_their_window() {
        let counter = counter("limits");
        assert_eq!(counter.get("a").unwrap(), 0);
        assert_eq!(counter.add("a", 1, SECOND).unwrap(), 1);
        assert_eq!(counter.add("b", 5, SECOND).unwrap(), 5);
        advance_clock(Duration::from_millis(999));
        assert_eq!(counter.add("a", 2, SECOND).unwrap(), 3);
        advance_clock(Duration::from_millis(1));
        assert_eq!(counter.get("a").unwrap(), 0);
        assert_eq!(counter.add("a", 1, SECOND).unwrap(), 1);
        assert_eq!(super::counter("other").get("a").unwrap(), 0);
    }

    #[test]
    fn a_rate_lets_a_burst_pass_and_then_one_each_interval() {
        let (counter, rate) = (counter("limits"), "2/s".parse::<Rate>().unwrap().burst(3));
        let half = SECOND / 2;
        for used in 1..=3 {
            let expected = Taken::Allowed {
                remaining: 3 - used,
                reset: half * used,
            };
            assert_eq!(counter.take("a", rate).unwrap(), expected);
        }
        advance_clock(half / 2);
        let refused = Taken::Refused {
            retry_after: half / 2,
            reset: half / 2 + SECOND,
        };
        assert_eq!(counter.take("a", rate).unwrap(), refused);
        assert_eq!(
            counter.take("a", rate).unwrap(),
            refused,
            "a refusal costs nothing"
        );
        advance_clock(half / 2);
        assert!(matches!(
            counter.take("a", rate).unwrap(),
            Taken::Allowed { remaining: 0, .. }
        ));
        advance_clock(10 * SECOND);
        assert!(matches!(
            counter.take("a", rate).unwrap(),
            Taken::Allowed { remaining: 2, .. }
        ));
    }

    #[test]
    fn a_rate_is_read_as_people_write_it() {
        let interval = |text: &str| text.parse::<Rate>().unwrap().interval();
        assert_eq!(interval("10/s"), SECOND / 10);
        assert_eq!(interval("600 / m"), SECOND / 10);
        assert_eq!(interval("1/h"), 3_600 * SECOND);
        assert_eq!(interval("4/d"), 21_600 * SECOND);
        for bad in ["", "10", "0/s", "-1/s", "1/y", "4294967295/s/s", "1.5/s"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
        let error = serde_json::from_str::<Rate>(r#""10""#).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("`10` is not a rate: expected"),
            "{error}"
        );
    }

    #[test]
    fn what_a_zone_refuses_is_an_error_that_names_it() {
        let error = counter("limits").add("a", 1, Duration::ZERO).unwrap_err();
        assert_eq!(
            error.to_string(),
            "zone \"limits\": add: bad argument: expected a key of up to 4096 bytes and a window of 1 ms or more"
        );
    }
}
