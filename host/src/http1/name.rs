//! Names of header fields.

use http::HeaderName;

/// Names that the gateway itself asks for: a field of theirs is known by a number, and [`Headers`](super::Headers) knows
/// without a look whether it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Known {
    Allow,
    Connection,
    ContentLength,
    ContentType,
    Date,
    Expect,
    Host,
    KeepAlive,
    ProxyConnection,
    Server,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    Via,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
}

impl Known {
    /// Of a name in upper or lower case.
    pub fn of(name: &[u8]) -> Option<Self> {
        let first = name.first()?.to_ascii_lowercase();
        // Length and first letter leave one at most.
        let known = match (name.len(), first) {
            (2, b't') => Self::Te,
            (3, b'v') => Self::Via,
            (4, b'd') => Self::Date,
            (4, b'h') => Self::Host,
            (5, b'a') => Self::Allow,
            (6, b'e') => Self::Expect,
            (6, b's') => Self::Server,
            (7, b't') => Self::Trailer,
            (7, b'u') => Self::Upgrade,
            (10, b'c') => Self::Connection,
            (10, b'k') => Self::KeepAlive,
            (12, b'c') => Self::ContentType,
            (14, b'c') => Self::ContentLength,
            (15, b'x') => Self::XForwardedFor,
            (16, b'p') => Self::ProxyConnection,
            (16, b'x') => Self::XForwardedHost,
            (17, b't') => Self::TransferEncoding,
            (17, b'x') => Self::XForwardedProto,
            _ => return None,
        };
        name.eq_ignore_ascii_case(known.text()).then_some(known)
    }

    /// Of a name in lower case.
    #[inline]
    pub(super) fn of_lower(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"allow" => Self::Allow,
            b"connection" => Self::Connection,
            b"content-length" => Self::ContentLength,
            b"content-type" => Self::ContentType,
            b"date" => Self::Date,
            b"expect" => Self::Expect,
            b"host" => Self::Host,
            b"keep-alive" => Self::KeepAlive,
            b"proxy-connection" => Self::ProxyConnection,
            b"server" => Self::Server,
            b"te" => Self::Te,
            b"trailer" => Self::Trailer,
            b"transfer-encoding" => Self::TransferEncoding,
            b"upgrade" => Self::Upgrade,
            b"via" => Self::Via,
            b"x-forwarded-for" => Self::XForwardedFor,
            b"x-forwarded-host" => Self::XForwardedHost,
            b"x-forwarded-proto" => Self::XForwardedProto,
            _ => return None,
        })
    }

    /// In lower case.
    pub const fn text(self) -> &'static [u8] {
        match self {
            Self::Allow => b"allow",
            Self::Connection => b"connection",
            Self::ContentLength => b"content-length",
            Self::ContentType => b"content-type",
            Self::Date => b"date",
            Self::Expect => b"expect",
            Self::Host => b"host",
            Self::KeepAlive => b"keep-alive",
            Self::ProxyConnection => b"proxy-connection",
            Self::Server => b"server",
            Self::Te => b"te",
            Self::Trailer => b"trailer",
            Self::TransferEncoding => b"transfer-encoding",
            Self::Upgrade => b"upgrade",
            Self::Via => b"via",
            Self::XForwardedFor => b"x-forwarded-for",
            Self::XForwardedHost => b"x-forwarded-host",
            Self::XForwardedProto => b"x-forwarded-proto",
        }
    }

    /// A bit of its own.
    pub(super) const fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// A valid name: in lower case if it is known, else in any.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    pub(super) text: &'a [u8],
    pub(super) known: Option<Known>,
}

impl<'a> Name<'a> {
    /// `None`: it is no token (RFC 9110 §5.6.2), or longer than 64 KiB.
    pub fn new(text: &'a [u8]) -> Option<Self> {
        let is_valid =
            matches!(text.len(), 1..=MAX_NAME_BYTES) && text.iter().all(|&b| TOKEN[usize::from(b)]);
        is_valid.then(|| {
            let known = Known::of(text);
            Self {
                text: known.map_or(text, |known| known.text()),
                known,
            }
        })
    }

    pub fn known(self) -> Option<Known> {
        self.known
    }
}

impl From<Known> for Name<'_> {
    fn from(known: Known) -> Self {
        Self {
            text: known.text(),
            known: Some(known),
        }
    }
}

impl<'a> From<&'a HeaderName> for Name<'a> {
    fn from(name: &'a HeaderName) -> Self {
        let text = name.as_str().as_bytes();
        Self {
            text,
            known: Known::of(text),
        }
    }
}

/// Whether a field's value may be this (RFC 9110 §5.5, obs-text included): nothing that would end its line.
pub fn is_valid_value(value: &[u8]) -> bool {
    value
        .iter()
        .all(|&b| (b >= b' ' && b != 0x7f) || b == b'\t')
}

/// As the `http` crate has it.
pub(super) const MAX_NAME_BYTES: usize = u16::MAX as usize;

/// RFC 9110 §5.6.2: `tchar`.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let marks = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    let mut b = 0;
    while b < 128 {
        if (b as u8).is_ascii_alphanumeric() {
            table[b] = true;
        }
        b += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_names_are_known_in_any_case() {
        let mut bits = 0;
        for name in [
            "Allow",
            "CONNECTION",
            "content-Length",
            "Content-type",
            "date",
            "Expect",
            "HOST",
            "keep-alive",
            "Proxy-Connection",
            "Server",
            "TE",
            "trailer",
            "Transfer-Encoding",
            "Upgrade",
            "Via",
            "X-Forwarded-For",
            "x-forwarded-Host",
            "X-FORWARDED-PROTO",
        ] {
            let known = Known::of(name.as_bytes()).expect(name);
            assert_eq!(known.text(), name.to_ascii_lowercase().as_bytes());
            assert_eq!(bits & known.bit(), 0);
            bits |= known.bit();
        }
        for other in ["", "hos", "hosts", "fate", "x-forwarded-by", "tt"] {
            assert_eq!(Known::of(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_name_has_a_longest_length() {
        let long = vec![b'a'; MAX_NAME_BYTES + 1];
        assert!(Name::new(&long).is_none());
        assert!(Name::new(&long[1..]).is_some());
    }

    proptest! {
        #[test]
        fn names_and_values_are_those_of_the_http_crate(
            bytes in prop::collection::vec(prop_oneof![3 => 0x20..0x7f_u8, 1 => any::<u8>()], 0..12),
        ) {
            prop_assert_eq!(Name::new(&bytes).is_some(), HeaderName::from_bytes(&bytes).is_ok());
            prop_assert_eq!(is_valid_value(&bytes), HeaderValue::from_bytes(&bytes).is_ok());
        }
    }
}
