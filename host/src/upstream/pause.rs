//! The time between two tries.

use std::time::Duration;

use crate::config::Backoff;
use crate::message::{FieldName, Headers};

/// Wait before a retry. `repeated`: how many retries were waited for before. Full jitter: any time up to the bound, so that
/// requests that have failed together do not come back together.
pub(super) fn pause(backoff: &Backoff, repeated: u32, random: u64) -> Duration {
    let bound = backoff.base.saturating_mul(1 << repeated.min(20));
    let bound = bound.min(backoff.max);
    let share = (random >> 11) as f64 / (1_u64 << 53) as f64;
    bound.mul_f64(share)
}

/// Wait that a response asks for (RFC 9110 §10.2.3), no longer than `max`. A date is one that has not come.
pub(super) fn retry_after(headers: &Headers, max: Duration) -> Option<Duration> {
    let value = headers.get(FieldName::new(b"retry-after")?)?;
    let text = str::from_utf8(value).ok()?.trim();
    if httpdate::parse_http_date(text).is_ok() {
        return Some(max);
    }
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // A number that is too large for its type is longer than any maximum.
    is_number.then(|| {
        text.parse()
            .map_or(max, |it| Duration::from_secs(it).min(max))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::random;

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff {
            base: Duration::from_millis(25),
            max: Duration::from_millis(250),
        };
        let longest = |repeated| pause(&backoff, repeated, u64::MAX).as_millis();
        assert_eq!(
            [0, 1, 2, 3, 4, 99].map(longest),
            [25, 50, 100, 200, 250, 250]
        );
        assert_eq!(pause(&backoff, 3, 0), Duration::ZERO);
        let all: Duration = (0..1000).map(|_| pause(&backoff, 0, random::next())).sum();
        assert!((10_000..15_000).contains(&all.as_millis()), "{all:?}");
    }

    #[test]
    fn what_a_peer_asks_for_is_waited_for_within_bounds() {
        let max = Duration::from_millis(2500);
        let asked = |value: &str| {
            let mut headers = Headers::new();
            if let Some(name) = FieldName::new(b"Retry-After") {
                headers.add(name, value.as_bytes());
            }
            retry_after(&headers, max).map(|wait| wait.as_millis())
        };
        assert_eq!(asked("0"), Some(0));
        assert_eq!(asked(" 1 "), Some(1000));
        assert_eq!(asked("3"), Some(2500));
        assert_eq!(asked("99999999999999999999999999"), Some(2500));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), Some(2500));
        for bad in ["", "-1", "+1", "1.5", "soon", "1, 2"] {
            assert_eq!(asked(bad), None, "{bad}");
        }
        assert_eq!(retry_after(&Headers::new(), max), None);
    }
}
