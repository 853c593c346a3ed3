//! The certificates that a config wants ordered, with what the store knows of each.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::acme::{Entry, Record, Store, renewal_time};
use crate::config::{self, Acme, AcmeCertificate, Certificate, Config, Validity, Workers};
use crate::transport::tls;

/// Everything that orders are made by, of one load of the config.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub acme: Acme,
    /// User and confinement of helpers.
    pub workers: Workers,
    /// By [`AcmeCertificate::id`].
    pub certificates: BTreeMap<String, AcmeCertificate>,
}

impl Wanted {
    /// `None`: the config has nothing to be ordered.
    pub fn of(config: &Config) -> Option<Self> {
        let tls = config.listeners.values().filter_map(|it| it.tls.as_ref());
        let certificates = tls.flat_map(|tls| &tls.acme);
        let certificates: BTreeMap<_, _> = certificates.map(|it| (it.id(), it.clone())).collect();
        let acme = config.acme.clone()?;
        (!certificates.is_empty()).then(|| Self {
            acme,
            workers: config.workers.clone(),
            certificates,
        })
    }

    /// Whether an order for this certificate would be the same by this config.
    pub fn orders_alike(&self, other: &Self, id: &str) -> bool {
        self.acme == other.acme && self.certificates.get(id) == other.certificates.get(id)
    }

    pub fn entry(&self, certificate: &AcmeCertificate) -> Entry {
        Entry::of(&self.acme, certificate)
    }
}

/// Reads the certificate that the store has for this entry. `Ok(None)`: there is none. The error is a line for a person.
pub fn stored(
    store: &Store,
    entry: &Entry,
    names: &[String],
) -> Result<Option<Certificate>, String> {
    let path = store.path(entry).display().to_string();
    let about = |error: String| format!("{path}: {error}");
    let read = store.certificate(entry).map_err(|e| about(e.to_string()))?;
    let Some(pem) = read else {
        return Ok(None);
    };
    parsed(&pem, names, &path).map(Some).map_err(about)
}

/// Certificate of a PEM text that has its chain and its key, if they fit each other and the names. The error is for a person.
pub fn parsed(pem: &[u8], names: &[String], place: &str) -> Result<Certificate, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem)
        .map(|der| Ok::<_, rustls_pki_types::pem::Error>(der?.as_ref().to_vec()))
        .collect();
    let chain = chain.map_err(|error| error.to_string())?;
    let is_for = config::names_of_chain(&chain)?;
    if let Some(name) = names.iter().find(|name| !is_for.contains(name)) {
        return Err(format!("the certificate is not for {name}"));
    }
    let certificate = Certificate {
        chain,
        key: config::private_key(pem)?,
        names: names.to_vec(),
        key_place: place.to_owned(),
    };
    tls::check_pair(&certificate)?;
    Ok(certificate)
}

/// Something that is to be done about a certificate, and when (seconds since 1970-01-01 UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    pub at: i64,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Asking the authority when to renew it: before the renewal that the answer may put off or bring forward.
    AskWindow,
    Order,
}

/// Next thing to be done about a certificate.
fn next_due(certificate: Option<&Certificate>, record: &Record) -> Due {
    let order = Due {
        at: order_at(certificate, record),
        what: What::Order,
    };
    let ask = certificate.map(|_| Due {
        at: record.ask_again.unwrap_or(0),
        what: What::AskWindow,
    });
    ask.map_or(order, |ask| ask.min(order))
}

/// Time of the next order.
pub fn order_at(certificate: Option<&Certificate>, record: &Record) -> i64 {
    let renewal = certificate.and_then(|certificate| {
        let der = certificate.chain.first()?;
        Some(renewal_time(der, certificate.validity()?, record.window))
    });
    renewal
        .unwrap_or(i64::MIN)
        .max(record.not_before.unwrap_or(i64::MIN))
}

/// Rank of what is next to be done about a certificate: the smallest comes first. Of those that could be done now, a name without a
/// certificate does not wait for one that is renewed, nor either for one that fails over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Urgency {
    at: i64,
    has_failed: bool,
    is_held: bool,
    pub due: Due,
}

pub fn urgency(held: Option<&Certificate>, record: &Record, now: i64) -> Urgency {
    let due = next_due(held, record);
    Urgency {
        at: due.at.max(now),
        has_failed: record.failures > 0,
        is_held: held.is_some(),
        due,
    }
}

/// Fault of a certificate that has just come, by the time in which it is good. `None`: it has none.
pub fn untimely(certificate: &Certificate, now: i64) -> Option<String> {
    let Some(validity) = certificate.validity() else {
        return Some("the authority's certificate does not say how long it is good".to_owned());
    };
    let Validity {
        not_before,
        not_after,
    } = validity;
    let at = |seconds| text_of(seconds).unwrap_or_else(|| "no time".to_owned());
    let what = if not_after <= now {
        format!("is over since {}", at(not_after))
    } else if not_before > now + CLOCK_DIFFERENCE {
        format!("is good only from {} on", at(not_before))
    } else if order_at(Some(certificate), &Record::default()) <= now {
        let (from, to) = (at(not_before), at(not_after));
        format!("is good from {from} to {to}, and to be renewed when it comes")
    } else {
        return None;
    };
    let here = at(now);
    Some(format!(
        "the authority's certificate {what} (here it is {here})"
    ))
}

/// Whether this one is good now, and for longer than the other.
pub fn is_longer_good(certificate: &Certificate, other: Option<&Certificate>, now: i64) -> bool {
    let end = |it: &Certificate| it.validity().map(|it| it.not_after);
    is_good(certificate, now)
        && other.is_none_or(|other| !is_good(other, now) || end(certificate) > end(other))
}

/// Whether this one may take the other's place: one that is good now does not make way for one that is not.
pub fn is_as_good(certificate: &Certificate, other: Option<&Certificate>, now: i64) -> bool {
    is_good(certificate, now) || !other.is_some_and(|other| is_good(other, now))
}

fn is_good(certificate: &Certificate, now: i64) -> bool {
    let validity = certificate.validity();
    validity.is_some_and(|it| it.not_before <= now + CLOCK_DIFFERENCE && it.not_after > now)
}

/// Difference between this machine's clock and an authority's that is no fault.
const CLOCK_DIFFERENCE: i64 = 300;

/// RFC 3339 in UTC; `None`: no such time.
pub fn text_of(seconds: i64) -> Option<String> {
    Some(Timestamp::from_second(seconds).ok()?.to_string())
}

/// Now, in seconds since 1970-01-01 UTC.
pub fn now() -> i64 {
    Timestamp::now().as_second()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::Window;
    use crate::config::{KeyForm, PrivateKey};

    /// A certificate that is good from now on for a day.
    fn certificate() -> Certificate {
        good_for(0, 24 * 3600)
    }

    /// A certificate that is good between these times, seconds from now.
    fn good_for(from: i64, to: i64) -> Certificate {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["a.test".to_owned()]).unwrap();
        let at = |seconds: i64| {
            let since = u64::try_from(now() + seconds).unwrap();
            std::time::UNIX_EPOCH + std::time::Duration::from_secs(since)
        };
        params.not_before = at(from).into();
        params.not_after = at(to).into();
        Certificate {
            chain: vec![params.self_signed(&key).unwrap().der().to_vec()],
            key: PrivateKey {
                form: KeyForm::Pkcs8,
                der: key.serialize_der(),
            },
            names: vec!["a.test".to_owned()],
            key_place: String::new(),
        }
    }

    #[test]
    fn without_a_certificate_one_is_ordered_as_soon_as_failures_allow() {
        let order = |at| Due {
            at,
            what: What::Order,
        };
        assert_eq!(next_due(None, &Record::default()), order(i64::MIN));
        let failed = Record {
            not_before: Some(7),
            ask_again: Some(3),
            ..Record::default()
        };
        assert_eq!(next_due(None, &failed), order(7));
    }

    #[test]
    fn the_authority_is_asked_before_the_renewal() {
        let certificate = certificate();
        let (fresh, now) = (Record::default(), now());
        assert_eq!(next_due(Some(&certificate), &fresh).what, What::AskWindow);
        let asked = Record {
            ask_again: Some(now + 100_000),
            ..Record::default()
        };
        let due = next_due(Some(&certificate), &asked);
        assert_eq!(due.what, What::Order);
        assert!((now + 43_000..now + 46_000).contains(&due.at), "{due:?}");
        let hurried = Record {
            window: Some(Window {
                start: now - 20,
                end: now - 10,
            }),
            ..asked
        };
        let due = next_due(Some(&certificate), &hurried);
        assert!(due.at < now && due.what == What::Order, "{due:?}");
        let failed = Record {
            not_before: Some(now + 60),
            ..hurried
        };
        assert_eq!(order_at(Some(&certificate), &failed), now + 60);
    }

    #[test]
    fn a_certificate_of_no_use_is_a_failure_and_takes_no_better_ones_place() {
        let now = now();
        let fault = |from, to| untimely(&good_for(from, to), now);
        assert_eq!(fault(0, 86_400), None);
        assert_eq!(fault(100, 86_400), None, "a clock that differs a little");
        assert_eq!(fault(-3600, 6 * 86_400), None);
        for (from, to, what) in [
            (-7200, -3600, "is over since"),
            (-1, 0, "is over since"),
            (0, 1, "to be renewed when it comes"),
            (-80_000, 6400, "to be renewed when it comes"),
            (3600, 86_400, "is good only from"),
        ] {
            let told = fault(from, to).unwrap();
            assert!(told.contains(what), "{from} {to}: {told}");
        }
        let (over, short, long) = (good_for(-9, -3), good_for(-900, 60), certificate());
        assert!(!is_longer_good(&over, None, now), "of no use");
        assert!(is_longer_good(&short, None, now));
        assert!(is_longer_good(&short, Some(&over), now));
        assert!(!is_longer_good(&short, Some(&long), now));
        assert!(!is_as_good(&over, Some(&short), now));
        assert!(is_as_good(&over, None, now) && is_as_good(&over, Some(&over), now));
        assert!(is_as_good(&short, Some(&long), now), "as the store has it");
    }

    #[test]
    fn names_without_a_certificate_come_first_and_those_that_fail_last() {
        let (now, held) = (now(), good_for(-80_000, 6400));
        let record = |failures, not_before| Record {
            failures,
            not_before: Some(not_before),
            ask_again: Some(now + 100_000),
            ..Record::default()
        };
        let mut ranks = [
            urgency(Some(&certificate()), &record(0, 0), now),
            urgency(None, &record(3, now + 60), now),
            urgency(None, &record(3, 0), now),
            urgency(Some(&held), &record(0, 0), now),
            urgency(None, &record(0, now - 1), now),
        ];
        let wanted: Vec<_> = ranks.iter().copied().rev().collect();
        ranks.sort();
        assert_eq!(ranks[..3], wanted[..3]);
        assert_eq!(ranks[3..], wanted[3..]);
    }

    #[test]
    fn a_certificate_for_other_names_or_with_another_key_is_not_taken() {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["a.test".to_owned()]).unwrap();
        let chain = params.self_signed(&key).unwrap().pem();
        let names = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let good = key.serialize_pem() + &chain;
        let taken = parsed(good.as_bytes(), &names(&["a.test"]), "x").unwrap();
        assert_eq!((taken.names, taken.chain.len()), (names(&["a.test"]), 1));
        let refused =
            |pem: String, of: &[&str]| parsed(pem.as_bytes(), &names(of), "x").unwrap_err();
        let other = refused(good, &["a.test", "b.test"]);
        assert_eq!(other, "the certificate is not for b.test");
        let another = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let other = refused(another + &chain, &["a.test"]);
        assert_eq!(other, "x: key: it is not the key of the certificate");
        refused(key.serialize_pem(), &["a.test"]);
        refused(chain, &["a.test"]);
    }
}
