//! Warnings about `[listeners.NAME.tls]` and `[upstreams.NAME.tls]`: what an operator should look at, though it is no error.

use jiff::Timestamp;
use x509_parser::parse_x509_crl;

use super::certificate_facts::{Validity, validity};
use super::{Certificate, Config, Der, ListenerTls, TlsVersion, UpstreamTls};

const DAY_SECONDS: i64 = 24 * 3600;

/// Lines for a person, as things are at this time.
pub fn tls_warnings(config: &Config, now: Timestamp) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, listener) in &config.listeners {
        if let Some(tls) = &listener.tls {
            of_listener(tls, now, |place, what| {
                warnings.push(format!("{place}: listener {name}: {what}"));
            });
        }
    }
    for (name, upstream) in &config.upstreams {
        if let Some(tls) = &upstream.tls {
            of_upstream(tls, now, |place, what| {
                warnings.push(format!("{place}: upstream {name}: tls: {what}"));
            });
        }
    }
    warnings
}

fn of_upstream(tls: &UpstreamTls, now: Timestamp, mut warn: impl FnMut(&str, String)) {
    if !tls.verify {
        let what = "verify = false: whoever is on the way can read and change what goes to its peers and comes from them";
        warn(&tls.place, what.to_owned());
    }
    if let Some(certificate) = &tls.certificate
        && let Some(validity) = certificate.validity()
        && let Some(what) = about_time(validity, now, ": peers refuse it")
    {
        warn(&certificate.key_place, format!("the certificate {what}"));
    }
    if let Some(what) = about_suites(&tls.suites, tls.min_version) {
        warn(&tls.place, format!("suites: {what}"));
    }
    about_authorities(&tls.ca, &tls.crl, now, |what| warn(&tls.place, what));
}

fn of_listener(tls: &ListenerTls, now: Timestamp, mut warn: impl FnMut(&str, String)) {
    for certificate in &tls.certificates {
        let (place, title) = (&certificate.key_place, certificate.title());
        if let Some(validity) = certificate.validity()
            && let Some(what) = about_time(validity, now, ": clients refuse it")
        {
            warn(place, format!("the certificate for {title} {what}"));
        }
        if let Some(what) = about_key(certificate) {
            warn(place, format!("the certificate for {title} {what}"));
        }
    }
    if let Some(what) = about_suites(&tls.suites, tls.min_version) {
        warn(&tls.place, format!("suites: {what}"));
    }
    if tls.handshake_timeout.as_secs() > LONGEST_HANDSHAKE_SECONDS {
        let time = tls.handshake_timeout;
        warn(
            &tls.place,
            format!(
                "handshake_timeout: a client that sends nothing keeps a connection for {time:?}"
            ),
        );
    }
    if let Some(key_log) = &tls.key_log {
        let path = key_log.display();
        warn(
            &key_log.place,
            format!("KEY LOG IS ON: who reads {path} reads all that clients send"),
        );
    }
    let of_hosts = tls.hosts.iter().map(|hosts| &hosts.client_certificates);
    let mut places = Vec::new();
    for clients in of_hosts.chain([&tls.client_certificates]).flatten() {
        // Hosts that say nothing have the listener's.
        if !places.contains(&&clients.place) {
            places.push(&clients.place);
            let (ca, crl) = (&clients.authorities, &clients.revocation_lists);
            about_authorities(ca, crl, now, |what| {
                warn(&clients.place, format!("client_certificates: {what}"));
            });
        }
    }
}

/// Warning about the end of a certificate, at the place of its key. `None`: it is good for long enough.
pub fn expiry_warning(certificate: &Certificate, now: Timestamp) -> Option<String> {
    let what = about_time(certificate.validity()?, now, ": clients refuse it")?;
    let (place, title) = (&certificate.key_place, certificate.title());
    Some(format!("{place}: the certificate for {title} {what}"))
}

/// `then` says what comes of a certificate that is not good now. `None`: it is good for long enough.
fn about_time(validity: Validity, now: Timestamp, then: &str) -> Option<String> {
    let now = now.as_second();
    let Validity {
        not_before,
        not_after,
    } = validity;
    // A certificate of six days is not renewed a month before its end.
    let soon = ((not_after - not_before) / 3).min(30 * DAY_SECONDS);
    let left = not_after - now;
    let at = |seconds| {
        Timestamp::from_second(seconds).map_or_else(|_| "never".to_owned(), |at| at.to_string())
    };
    if left < 0 {
        let (at, ago) = (at(not_after), days(-left));
        return Some(format!("HAS EXPIRED at {at}, {ago} ago{then}"));
    }
    if not_before > now {
        let (at, until) = (at(not_before), days(not_before - now));
        return Some(format!(
            "IS NOT YET VALID, but from {at} on, in {until}{then}"
        ));
    }
    (left < soon).then(|| format!("expires at {}, in {}", at(not_after), days(left)))
}

/// A length of time for a person.
fn days(seconds: i64) -> String {
    match seconds / DAY_SECONDS {
        0 => format!("{} hours", seconds / 3600),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

fn about_key(certificate: &Certificate) -> Option<String> {
    let bits = certificate.rsa_bits()?;
    (bits > 2048).then(|| {
        format!(
            "has an RSA key of {bits} bits, whose signatures take several times those of 2048 bits and a hundred times \
             those of P-256"
        )
    })
}

/// A version that is wanted and has no suite is not spoken.
fn about_suites(suites: &[String], min_version: TlsVersion) -> Option<&'static str> {
    if suites.is_empty() {
        return None;
    }
    // Suites of TLS 1.3 name no key exchange.
    let is_older = |name: &String| name.contains("_WITH_");
    if suites.iter().all(is_older) {
        return Some("none of them is of TLS 1.3, which is not spoken");
    }
    let may_be_older = min_version == TlsVersion::V12;
    (may_be_older && !suites.iter().any(is_older))
        .then_some("none of them is of TLS 1.2, which is not spoken though min_version is \"1.2\"")
}

/// Authorities themselves are trusted whatever their time; that of their lists counts.
fn about_authorities(ca: &[Der], crl: &[Der], now: Timestamp, mut warn: impl FnMut(String)) {
    for (Der(der), number) in ca.iter().zip(1..) {
        if let Some(validity) = validity(der)
            && let Some(what) = about_time(validity, now, "")
        {
            warn(format!("authority {number} {what}"));
        }
    }
    for (Der(der), number) in crl.iter().zip(1..) {
        if let Some(what) = about_list(der, now) {
            warn(format!("revocation list {number} {what}"));
        }
    }
}

fn about_list(der: &[u8], now: Timestamp) -> Option<String> {
    let (_, list) = parse_x509_crl(der).ok()?;
    let next = list.next_update()?.timestamp();
    let left = next - now.as_second();
    let soon = (next - list.last_update().timestamp()) / 3;
    let so = "certificates of its authority are refused";
    if left < 0 {
        let ago = days(-left);
        return Some(format!("IS OUT OF DATE since {ago}: {so}"));
    }
    (left < soon).then(|| format!("is good for {} more, then {so}", days(left)))
}

/// Longest handshake that raises no question.
const LONGEST_HANDSHAKE_SECONDS: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    fn told(not_before: i64, not_after: i64, now: i64) -> Option<String> {
        let day = |days: i64| days * DAY_SECONDS;
        let validity = Validity {
            not_before: day(not_before),
            not_after: day(not_after),
        };
        let now = Timestamp::from_second(day(now)).unwrap();
        about_time(validity, now, ": so")
    }

    #[test]
    fn an_end_is_told_a_month_before_or_at_the_last_third() {
        assert_eq!(told(0, 365, 334), None);
        assert_eq!(
            told(0, 365, 336).as_deref(),
            Some("expires at 1971-01-01T00:00:00Z, in 29 days")
        );
        assert_eq!(told(0, 6, 3), None);
        assert_eq!(
            told(0, 6, 5).as_deref(),
            Some("expires at 1970-01-07T00:00:00Z, in 1 day")
        );
        assert_eq!(
            told(0, 6, 6).as_deref(),
            Some("expires at 1970-01-07T00:00:00Z, in 0 hours")
        );
    }

    #[test]
    fn what_no_client_takes_is_told_loudly() {
        let expired = told(0, 365, 377).unwrap();
        assert_eq!(
            expired,
            "HAS EXPIRED at 1971-01-01T00:00:00Z, 12 days ago: so"
        );
        let early = told(10, 365, 8).unwrap();
        assert_eq!(
            early,
            "IS NOT YET VALID, but from 1970-01-11T00:00:00Z on, in 2 days: so"
        );
    }

    #[test]
    fn a_version_without_suites_is_told() {
        let (new, old) = (
            "TLS_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        );
        let said = |version, suites: &[&str]| {
            let suites: Vec<String> = suites.iter().map(|name| (*name).to_owned()).collect();
            about_suites(&suites, version)
        };
        assert_eq!(said(TlsVersion::V12, &[]), None);
        assert_eq!(said(TlsVersion::V12, &[new, old]), None);
        assert_eq!(said(TlsVersion::V13, &[new]), None);
        assert!(
            said(TlsVersion::V12, &[new])
                .unwrap()
                .contains("of TLS 1.2")
        );
        assert!(
            said(TlsVersion::V12, &[old])
                .unwrap()
                .contains("of TLS 1.3")
        );
    }
}
