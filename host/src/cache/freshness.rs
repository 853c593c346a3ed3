//! How long a response may be used again (RFC 9111 §4.2).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::StatusCode;

use super::directives::{ResponseDirectives, seconds};
use crate::config::StatusSet;
use crate::message::{Headers, KnownHeader};

/// Times of a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// When it came, by the clock of the machine.
    pub came: Moment,
    /// How old it was then (RFC 9111 §4.2.3: `corrected_initial_age`).
    pub age: Duration,
    pub lifetime: Duration,
    /// How long after that it is still used while it is fetched anew (RFC 5861 §3).
    pub stale_while_revalidate: Duration,
    /// How long after that it is still used where it cannot be fetched anew (RFC 5861 §4).
    pub stale_if_error: Duration,
    /// Each use of it needs the origin's word, fresh or not: `no-cache`.
    pub is_always_validated: bool,
    /// Once stale, no use of it without the origin's word.
    pub forbids_stale: bool,
    /// When the origin has failed last instead of sending it anew.
    pub failed: Option<Moment>,
}

/// A moment of the machine's clock, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self(millis(since.unwrap_or_default()))
    }

    /// The time from another moment to this one; none where the clock was set back.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Reads the date of a field (RFC 9110 §5.6.7). `None`: it is none.
    pub fn of_date(text: &[u8]) -> Option<Self> {
        let date = httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()?;
        let since = date.duration_since(UNIX_EPOCH).ok()?;
        Some(Self(millis(since)))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Settings of a route that say how long responses are fresh where they do not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Defaults {
    /// Lifetimes by status, of responses that say nothing themselves. The first that has the status counts.
    pub lifetimes: Vec<(StatusSet, Duration)>,
    /// Part of the time since `Last-Modified` for which one is fresh that says nothing else (RFC 9111 §4.2.2); 0: none is.
    pub heuristic: f64,
    /// In the place of `stale-while-revalidate`, where that is not given.
    pub stale_while_revalidate: Duration,
    /// In the place of `stale-if-error`, where that is not given.
    pub stale_if_error: Duration,
}

impl Defaults {
    fn lifetime(&self, status: StatusCode) -> Option<Duration> {
        let mut all = self.lifetimes.iter();
        let found = all.find(|(statuses, _)| statuses.contains(status.as_u16()));
        found.map(|(_, lifetime)| *lifetime)
    }
}

/// Whether a response says itself how long it is fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// By `max-age`, `s-maxage`, `no-cache` or `Expires`.
    Explicit,
    /// By the settings of its route.
    Default,
    /// By its `Last-Modified`.
    Heuristic,
    /// Nothing that it says.
    None,
}

impl Freshness {
    /// Freshness of a response that was asked for at one moment and came at another.
    pub fn of(
        status: StatusCode,
        headers: &Headers,
        (directives, is_targeted): (&ResponseDirectives, bool),
        (asked, came): (Moment, Moment),
        defaults: &Defaults,
    ) -> (Self, Source) {
        let date = headers.get(KnownHeader::Date).and_then(Moment::of_date);
        let (lifetime, source) = lifetime(
            status,
            headers,
            (directives, is_targeted),
            date.unwrap_or(came),
            defaults,
        );
        // Settings keep nothing in use that the origin says is stale at once.
        let is_stale_at_once = source == Source::Explicit && lifetime.is_zero();
        let told = |seconds: Option<u64>, default| match seconds {
            Some(seconds) => Duration::from_secs(seconds),
            None if is_stale_at_once => Duration::ZERO,
            None => default,
        };
        let freshness = Self {
            came,
            age: age(headers, date, (asked, came)),
            lifetime,
            stale_while_revalidate: told(
                directives.stale_while_revalidate,
                defaults.stale_while_revalidate,
            ),
            stale_if_error: told(directives.stale_if_error, defaults.stale_if_error),
            is_always_validated: directives.no_cache,
            forbids_stale: directives.forbids_stale(),
            failed: None,
        };
        (freshness, source)
    }

    pub fn age_at(&self, now: Moment) -> Duration {
        self.age.saturating_add(now.since(self.came))
    }

    /// Whether it may be used without a word of the origin.
    pub fn is_fresh_at(&self, now: Moment) -> bool {
        !self.is_always_validated && self.age_at(now) < self.lifetime
    }

    /// Time since it is stale; zero while it is fresh.
    pub fn staleness_at(&self, now: Moment) -> Duration {
        self.age_at(now).saturating_sub(self.lifetime)
    }

    /// Whether it may be used while it is fetched anew.
    pub fn is_usable_meanwhile(&self, now: Moment) -> bool {
        !self.forbids_stale
            && !self.is_always_validated
            && self.staleness_at(now) < self.stale_while_revalidate
    }

    /// Whether it may be used where it cannot be fetched anew.
    pub fn is_usable_after_error(&self, now: Moment) -> bool {
        !self.forbids_stale
            && !self.is_always_validated
            && self.staleness_at(now) < self.stale_if_error
    }

    /// Whether it may be used because the origin has failed just now, which is not asked again for a moment.
    pub fn rests_after_error(&self, now: Moment) -> bool {
        let has_failed = |failed: Moment| now >= failed && now.since(failed) < RESTS_FOR;
        self.failed.is_some_and(has_failed) && self.is_usable_after_error(now)
    }

    /// Seconds that are left of its lifetime; negative once it is stale.
    pub fn seconds_left_at(&self, now: Moment) -> i64 {
        let seconds = |it: Duration| i64::try_from(it.as_secs()).unwrap_or(i64::MAX);
        seconds(self.lifetime).saturating_sub(seconds(self.age_at(now)))
    }
}

/// How long an origin that has failed is not asked again for what there is a stale response of.
const RESTS_FOR: Duration = Duration::from_secs(1);

/// RFC 9111 §4.2.1.
fn lifetime(
    status: StatusCode,
    headers: &Headers,
    (directives, is_targeted): (&ResponseDirectives, bool),
    date: Moment,
    defaults: &Defaults,
) -> (Duration, Source) {
    if let Some(seconds) = directives.s_maxage.or(directives.max_age) {
        return (Duration::from_secs(seconds), Source::Explicit);
    }
    let expires = headers.get_all(&http::header::EXPIRES).next();
    if let (Some(text), false) = (expires, is_targeted) {
        // RFC 9111 §5.3: what is no date, "0" above all, is in the past.
        let until = Moment::of_date(text).unwrap_or(Moment(0));
        return (until.since(date), Source::Explicit);
    }
    if directives.no_cache {
        return (Duration::ZERO, Source::Explicit);
    }
    if let Some(lifetime) = defaults.lifetime(status) {
        return (lifetime, Source::Default);
    }
    let modified = headers.get(&http::header::LAST_MODIFIED);
    let may_guess = directives.public || HEURISTIC.contains(&status.as_u16());
    match modified.and_then(Moment::of_date) {
        Some(modified) if defaults.heuristic > 0.0 && may_guess => {
            let old = date.since(modified);
            (old.mul_f64(defaults.heuristic), Source::Heuristic)
        }
        Some(_) | None => (Duration::ZERO, Source::None),
    }
}

/// Statuses of responses that are fresh for some time though nobody has said so (RFC 9110 §15.1). 206 is not stored.
const HEURISTIC: [u16; 11] = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];

/// RFC 9111 §4.2.3: the age of a response when it came.
fn age(headers: &Headers, date: Option<Moment>, (asked, came): (Moment, Moment)) -> Duration {
    let apparent = date.map_or(Duration::ZERO, |date| came.since(date));
    let mut told = headers.get_all(&http::header::AGE);
    let told = match (told.next(), told.next()) {
        (None, _) => Duration::ZERO,
        // An age that cannot be read is old (as the public suite of tests has it; RFC 9111 §5.1 leaves it open).
        (Some(one), None) => seconds(Some(one)).map_or(FOREVER, Duration::from_secs),
        (Some(_), Some(_)) => FOREVER,
    };
    apparent.max(told.saturating_add(came.since(asked)))
}

/// A time that is longer than any lifetime.
const FOREVER: Duration = Duration::from_secs(1 << 32);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::FieldName;

    const NOW: Moment = Moment(1_800_000_000_000);

    fn date(seconds: i64) -> String {
        let at = UNIX_EPOCH + Duration::from_millis(NOW.0);
        let by = Duration::from_secs(seconds.unsigned_abs());
        httpdate::fmt_http_date(if seconds < 0 { at - by } else { at + by })
    }

    fn of(fields: &[(&str, &str)], defaults: &Defaults) -> (Freshness, Source) {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.add(FieldName::new(name.as_bytes()).unwrap(), value.as_bytes());
        }
        let (directives, is_targeted) = ResponseDirectives::of(&headers);
        let times = (Moment(NOW.0 - 2000), NOW);
        let directives = (&directives, is_targeted);
        Freshness::of(StatusCode::OK, &headers, directives, times, defaults)
    }

    fn seconds_left(fields: &[(&str, &str)]) -> i64 {
        of(fields, &Defaults::default()).0.seconds_left_at(NOW)
    }

    #[test]
    fn lifetimes_are_told_in_this_order() {
        let (past, future) = (date(-100), date(100));
        // The answer took 2 s, which count as age.
        for (fields, left) in [
            (&[("cache-control", "max-age=10, s-maxage=60")][..], 58),
            (&[("cache-control", "max-age=10"), ("expires", &future)], 8),
            (&[("expires", &future), ("date", &date(0))], 98),
            (&[("expires", &future)], 98),
            (&[("expires", &past)], -2),
            (&[("expires", "0")], -2),
            (&[("cdn-cache-control", "public"), ("expires", &future)], -2),
            (&[("cache-control", "max-age=60"), ("age", "20")], 38),
            (&[("cache-control", "max-age=60"), ("date", &past)], -40),
            (
                &[("cache-control", "max-age=60"), ("date", "yesterday")],
                58,
            ),
            (&[], -2),
        ] {
            assert_eq!(seconds_left(fields), left, "{fields:?}");
        }
        for age in ["x", "-1", "1.5", "1, 1", ""] {
            let fields = [("cache-control", "max-age=60"), ("age", age)];
            assert!(seconds_left(&fields) < -1_000_000, "{age}");
        }
    }

    #[test]
    fn routes_say_what_responses_do_not() {
        let minute = Duration::from_secs(60);
        let defaults = Defaults {
            lifetimes: vec![
                (StatusSet::from_iter([404..=404]), Duration::ZERO),
                (StatusSet::from_iter([200..=299]), minute),
            ],
            stale_if_error: minute,
            ..Defaults::default()
        };
        let (own, source) = of(&[], &defaults);
        assert_eq!((own.lifetime, source), (minute, Source::Default));
        let (own, source) = of(&[("cache-control", "no-cache")], &defaults);
        assert_eq!((own.lifetime, source), (Duration::ZERO, Source::Explicit));
        let guessing = Defaults {
            heuristic: 0.1,
            ..Defaults::default()
        };
        let modified = date(-1000);
        let fields = [("last-modified", modified.as_str())];
        let (own, source) = of(&fields, &guessing);
        assert_eq!((own.lifetime.as_secs(), source), (100, Source::Heuristic));
        assert_eq!(of(&fields, &Defaults::default()).1, Source::None);
    }

    #[test]
    fn stale_ones_are_used_as_long_as_they_may_be() {
        let at = |control: &str, seconds: u64| {
            let (own, _) = of(&[("cache-control", control)], &Defaults::default());
            let then = Moment(NOW.0 + seconds * 1000);
            let usable = (
                own.is_usable_meanwhile(then),
                own.is_usable_after_error(then),
            );
            (own.is_fresh_at(then), usable)
        };
        let both = "max-age=10, stale-while-revalidate=10, stale-if-error=20";
        assert_eq!(at(both, 7), (true, (true, true)));
        assert_eq!(at(both, 8), (false, (true, true)));
        assert_eq!(at(both, 20), (false, (false, true)));
        assert_eq!(at(both, 29), (false, (false, false)));
        for strict in ["must-revalidate", "proxy-revalidate", "s-maxage=10"] {
            let control = format!("{both}, {strict}");
            assert_eq!(at(&control, 9), (false, (false, false)), "{strict}");
        }
        let (is_fresh, usable) = at(&format!("{both}, no-cache"), 0);
        assert_eq!((is_fresh, usable), (false, (false, false)));
    }
}
