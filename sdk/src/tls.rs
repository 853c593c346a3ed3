//! TLS of a client's connection, as plugins see it.

use std::marker::PhantomData;
use std::time::Duration;

pub use castling_abi::TlsFact;

use crate::buffer::read_text;
use crate::{Request, host};

/// TLS between client and gateway: a handle to what the host keeps, read when it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Tls<'r> {
    _request: PhantomData<&'r Request>,
}

/// The certificate that the client has shown. It has been verified: the handshake with any other ends, also where the listener
/// requires none.
#[derive(Clone, Copy, Debug)]
pub struct ClientCertificate<'r> {
    _request: PhantomData<&'r Request>,
}

impl<'r> Tls<'r> {
    pub(crate) fn of(_: &'r Request) -> Option<Self> {
        fact(TlsFact::Version).map(|_| Self {
            _request: PhantomData,
        })
    }

    /// `TLSv1.2` or `TLSv1.3`.
    pub fn version(&self) -> String {
        fact(TlsFact::Version).unwrap_or_default()
    }

    /// The cipher suite by its name in the registry of IANA, `TLS_AES_128_GCM_SHA256` say.
    pub fn cipher(&self) -> String {
        fact(TlsFact::Cipher).unwrap_or_default()
    }

    /// The group of the key exchange, `X25519MLKEM768` say; `None` where a session of TLS 1.2 was resumed.
    pub fn group(&self) -> Option<String> {
        fact(TlsFact::Group)
    }

    /// The name of the server that the client asked for (SNI), in lower case; `None` where it asked for none. The request's
    /// [host](Request::host) may be another.
    pub fn server_name(&self) -> Option<String> {
        fact(TlsFact::ServerName)
    }

    /// The protocol that was agreed on (ALPN), `http/1.1` say; `None` where there was no talk of it.
    pub fn alpn(&self) -> Option<String> {
        fact(TlsFact::Alpn)
    }

    /// Whether the session is one of before.
    pub fn is_resumed(&self) -> bool {
        is_so(TlsFact::Resumed)
    }

    /// Whether the request came as early data, which anyone may have replayed. The gateway takes none.
    pub fn is_early(&self) -> bool {
        is_so(TlsFact::Early)
    }

    /// The certificate that the client has shown; `None` where it has shown none.
    pub fn client_certificate(&self) -> Option<ClientCertificate<'r>> {
        let is_there = fact(TlsFact::ClientVerify).is_some_and(|verified| verified == "SUCCESS");
        is_there.then_some(ClientCertificate {
            _request: PhantomData,
        })
    }
}

impl ClientCertificate<'_> {
    /// The subject's name (RFC 4514), `CN=ada,O=Example` say. It is ASCII, and what could end a part is escaped. Empty where there
    /// is none.
    pub fn subject(&self) -> String {
        fact(TlsFact::ClientSubject).unwrap_or_default()
    }

    /// The issuer's name, likewise.
    pub fn issuer(&self) -> String {
        fact(TlsFact::ClientIssuer).unwrap_or_default()
    }

    /// The serial number, in upper-case hexadecimal digits, two a byte. With the issuer it tells a certificate from all others.
    pub fn serial(&self) -> String {
        fact(TlsFact::ClientSerial).unwrap_or_default()
    }

    /// The SHA-256 fingerprint, in lower-case hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        fact(TlsFact::ClientFingerprint).unwrap_or_default()
    }

    /// From when on it is good, since 1970-01-01 UTC as [`clock::wall`](crate::clock::wall).
    pub fn not_before(&self) -> Duration {
        time(TlsFact::ClientNotBefore)
    }

    /// Until when it is good, likewise.
    pub fn not_after(&self) -> Duration {
        time(TlsFact::ClientNotAfter)
    }

    /// The DNS names that it is for.
    pub fn dns_names(&self) -> Vec<String> {
        list(TlsFact::ClientDns)
    }

    /// The IP addresses that it is for.
    pub fn ip_addresses(&self) -> Vec<String> {
        list(TlsFact::ClientIp)
    }

    /// The URIs that it is for; a SPIFFE id is one.
    pub fn uris(&self) -> Vec<String> {
        list(TlsFact::ClientUri)
    }

    /// The email addresses that it is for.
    pub fn emails(&self) -> Vec<String> {
        list(TlsFact::ClientEmail)
    }

    /// All of it, PEM.
    pub fn pem(&self) -> String {
        let encoded = fact(TlsFact::ClientCertificate).unwrap_or_default();
        let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
        for line in encoded.trim_matches(':').as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem + "-----END CERTIFICATE-----\n"
    }
}

pub(crate) fn fact(fact: TlsFact) -> Option<String> {
    read_text(|out| host::tls_get(fact, out)).ok()
}

fn is_so(asked: TlsFact) -> bool {
    fact(asked).is_some_and(|text| text == "yes")
}

fn list(asked: TlsFact) -> Vec<String> {
    let list = fact(asked);
    let list = list.as_deref().into_iter().flat_map(|list| list.split(','));
    list.map(unescaped).collect()
}

/// The text of which `\2C` is a comma.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = match after {
            [high, low, ..] if byte == b'\\' => digit(*high).zip(digit(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

fn time(asked: TlsFact) -> Duration {
    let text = fact(asked);
    Duration::from_secs(text.as_deref().and_then(seconds).unwrap_or(0))
}

/// Seconds from 1970 to `2026-01-31T00:00:00Z`; 0 for what was before.
fn seconds(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, separator: char| -> Option<[i64; 3]> {
        let numbers = text
            .split(separator)
            .map(str::parse)
            .collect::<Result<Vec<_>, _>>();
        numbers.ok()?.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hours, minutes, seconds] = numbers(time, ':')?;
    // Years begin with March, so that the odd day is the last; 400 of them have 146,097 days.
    let (year, month) = match month {
        ..=2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = 365 * year + year / 4 - year / 100 + year / 400 + of_year - DAYS_TO_1970;
    let total = days * 86_400 + hours * 3600 + minutes * 60 + seconds;
    Some(u64::try_from(total).unwrap_or(0))
}

/// Days from 0000-03-01 to 1970-01-01.
const DAYS_TO_1970: i64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Exchange;

    #[test]
    fn times_are_counted_from_1970() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59Z", 0),
            ("1970-03-01T00:00:01Z", 59 * 86_400 + 1),
            ("2000-02-29T12:34:56Z", 951_827_696),
            ("2026-01-31T00:00:00Z", 1_769_817_600),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for bad in ["", "Z", "2026-01-31", "2026-01T00:00:00Z"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_certificate_has_its_facts() {
        let mut exchange = Exchange::get("/")
            .tls()
            .tls_fact(TlsFact::ClientSubject, "CN=ada")
            .tls_fact(TlsFact::ClientUri, "spiffe://a/b,https://c/?d\\2Ce\\5C2C")
            .tls_fact(TlsFact::ClientNotAfter, "1970-01-01T00:01:00Z")
            .tls_fact(TlsFact::ClientCertificate, ":eA==:");
        let request = exchange.request();
        let tls = request.tls().unwrap();
        assert!(!tls.is_resumed() && !tls.is_early());
        let certificate = tls.client_certificate().unwrap();
        assert_eq!(certificate.uris(), ["spiffe://a/b", "https://c/?d,e\\2C"]);
        assert_eq!(certificate.dns_names(), [""; 0]);
        assert_eq!(certificate.not_after(), Duration::from_secs(60));
        let pem = "-----BEGIN CERTIFICATE-----\neA==\n-----END CERTIFICATE-----\n";
        assert_eq!(certificate.pem(), pem);
        let mut exchange = Exchange::get("/").tls();
        let tls = exchange.request().tls().unwrap();
        assert!(tls.client_certificate().is_none());
    }
}
