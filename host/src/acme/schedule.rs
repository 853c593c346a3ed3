//! Times of renewals, and waits after failures. All in seconds; times since 1970-01-01 UTC.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::Validity;

/// Time in which the authority would have a certificate renewed (RFC 9773 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub start: i64,
    pub end: i64,
}

/// Time at which a certificate is to be renewed: in the authority's window, if it has said one, else when two thirds of its life are
/// over, or half of it where that is less than ten days. A share and no fixed number of days: "30 days before the end" would renew a
/// certificate of six days without end.
///
/// The moment is by chance, so that gateways that began together do not all come at once, but always the same for the same
/// `certificate` (DER): a restart does not move it.
pub fn renewal_time(certificate: &[u8], validity: Validity, window: Option<Window>) -> i64 {
    let chance = chance(certificate);
    let Validity {
        not_before,
        not_after,
    } = validity;
    match window {
        // RFC 9773 §4.2: the end is later than the start.
        Some(Window { start, end }) if end > start => at_share(start, end, chance),
        Some(_) | None => {
            let life = not_after.saturating_sub(not_before);
            let share = match life < SHORT_LIFE {
                true => 1.0 / 2.0,
                false => 2.0 / 3.0,
            };
            at_share(not_before, not_after, share + chance * SPREAD)
        }
    }
}

/// Wait after so many failures in a row: a minute, then each time twice as long, half a day at most. What the authority has asked
/// for is kept to, within a week.
///
/// Let's Encrypt lets a name fail five times an hour; the sixth try comes after more than that.
pub fn failure_wait(failures: u32, asked_for: Option<u64>) -> i64 {
    let doublings = failures.saturating_sub(1).min(16);
    let own = (FIRST_WAIT << doublings).min(LONGEST_WAIT);
    let asked_for = asked_for.map_or(0, |seconds| seconds.min(LONGEST_ASKED));
    own.max(asked_for as i64)
}

/// Wait after a success, whatever the authority says about the renewal: an hour, but not more than a third of the certificate's life.
pub fn success_wait(validity: Validity) -> i64 {
    let life = validity.not_after.saturating_sub(validity.not_before);
    (life / 3).clamp(0, LEAST_USE)
}

fn at_share(from: i64, to: i64, share: f64) -> i64 {
    from.saturating_add((to.saturating_sub(from) as f64 * share) as i64)
}

/// A number from 0 to 1 that the certificate decides.
fn chance(certificate: &[u8]) -> f64 {
    let hash: [u8; 32] = Sha256::digest(certificate).into();
    f64::from(u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]])) / f64::from(u32::MAX)
}

const DAY: i64 = 24 * 3600;

/// Certificates with a shorter life are renewed when half of it is over.
const SHORT_LIFE: i64 = 10 * DAY;

/// Share of a life that renewals spread over.
const SPREAD: f64 = 0.02;

/// Shortest time between a certificate and its renewal.
const LEAST_USE: i64 = 3600;

const FIRST_WAIT: i64 = 60;
const LONGEST_WAIT: i64 = DAY / 2;
const LONGEST_ASKED: u64 = 7 * DAY as u64;

#[cfg(test)]
mod tests {
    use super::*;

    fn renewed(days: i64, window: Option<Window>) -> f64 {
        let validity = Validity {
            not_before: 100 * DAY,
            not_after: (100 + days) * DAY,
        };
        let at = renewal_time(b"certificate", validity, window);
        assert_eq!(at, renewal_time(b"certificate", validity, window));
        (at - 100 * DAY) as f64 / (days * DAY) as f64
    }

    #[test]
    fn a_certificate_is_renewed_after_a_share_of_its_life() {
        for days in [90, 45, 10] {
            let share = renewed(days, None);
            assert!((0.666..=0.687).contains(&share), "{days}: {share}");
        }
        for days in [9, 6, 1] {
            let share = renewed(days, None);
            assert!((0.499..=0.521).contains(&share), "{days}: {share}");
        }
    }

    #[test]
    fn gateways_do_not_all_come_at_once() {
        let validity = Validity {
            not_before: 0,
            not_after: 90 * DAY,
        };
        let times = [&b"a"[..], b"b", b"c"].map(|der| renewal_time(der, validity, None));
        assert!(times[0] != times[1] && times[1] != times[2], "{times:?}");
    }

    #[test]
    fn the_authoritys_window_counts_if_it_is_one() {
        let window = |start: i64, end: i64| {
            Some(Window {
                start: (100 + start) * DAY,
                end: (100 + end) * DAY,
            })
        };
        let share = renewed(90, window(10, 12));
        assert!((10.0..=12.0).contains(&(share * 90.0)), "{share}");
        // In the past: at once.
        assert!(renewed(90, window(-3, -1)) < 0.0);
        for no_window in [window(12, 10), window(12, 12)] {
            assert_eq!(renewed(90, no_window), renewed(90, None));
        }
    }

    #[test]
    fn no_certificate_is_renewed_at_once() {
        let wait = |not_before, not_after| {
            success_wait(Validity {
                not_before,
                not_after,
            })
        };
        assert_eq!(wait(0, 90 * DAY), 3600);
        assert_eq!(wait(100, 400), 100);
        assert_eq!((wait(9, 9), wait(9, 3)), (0, 0));
        assert_eq!(wait(i64::MIN, i64::MAX), 3600);
    }

    #[test]
    fn waits_double_from_a_minute_to_half_a_day() {
        let minutes: Vec<_> = (1..=11).map(|n| failure_wait(n, None) / 60).collect();
        assert_eq!(minutes, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 720]);
        assert_eq!(failure_wait(u32::MAX, None), DAY / 2);
        assert!((1..=5).map(|n| failure_wait(n, None)).sum::<i64>() >= 31 * 60);
        assert_eq!(failure_wait(1, Some(3600)), 3600);
        assert_eq!(failure_wait(5, Some(1)), 16 * 60);
        assert_eq!(failure_wait(1, Some(u64::MAX)), 7 * DAY);
    }
}
