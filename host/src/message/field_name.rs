//! Names of header fields.

use castling_abi::rules::check::{self, MAX_NAME_BYTES, TOKEN, is_value_byte};
use http::HeaderName;

use super::swar::{self, make_lower};

macro_rules! known {
    ($($name:ident = $text:literal,)+) => {
        /// Names that the gateway itself asks for: a field of theirs is known by a number, and
        /// [`Headers`](super::Headers) knows without a look whether it has one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum KnownHeader { $($name,)+ }

        impl KnownHeader {
            /// Finds the header of a name in lower case.
            #[inline]
            pub fn of_lower(name: &[u8]) -> Option<Self> {
                Some(match name {
                    $($text => Self::$name,)+
                    _ => return None,
                })
            }

            /// In lower case.
            pub const fn text(self) -> &'static [u8] {
                match self { $(Self::$name => $text,)+ }
            }

            const ALL: &[Self] = &[$(Self::$name,)+];

            /// The longest has so many bytes.
            const LONGEST: usize = {
                let mut longest = 0;
                $(if longest < $text.len() { longest = $text.len(); })+
                longest
            };
        }
    };
}

known! {
    Allow = b"allow",
    Authorization = b"authorization",
    CdnLoop = b"cdn-loop",
    Connection = b"connection",
    ContentLength = b"content-length",
    ContentRange = b"content-range",
    ContentType = b"content-type",
    Date = b"date",
    Expect = b"expect",
    Forwarded = b"forwarded",
    Host = b"host",
    IfModifiedSince = b"if-modified-since",
    IfRange = b"if-range",
    IfUnmodifiedSince = b"if-unmodified-since",
    KeepAlive = b"keep-alive",
    ProxyConnection = b"proxy-connection",
    Server = b"server",
    Te = b"te",
    Trailer = b"trailer",
    TransferEncoding = b"transfer-encoding",
    Upgrade = b"upgrade",
    Via = b"via",
    XForwardedFor = b"x-forwarded-for",
    XForwardedHost = b"x-forwarded-host",
    XForwardedPort = b"x-forwarded-port",
    XForwardedProto = b"x-forwarded-proto",
    XRealIp = b"x-real-ip",
    XRequestId = b"x-request-id",
}

impl KnownHeader {
    /// Finds the header of a name in upper or lower case.
    pub fn of(name: &[u8]) -> Option<Self> {
        let mut lower = [0; Self::LONGEST];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        make_lower(lower);
        Self::of_lower(lower)
    }

    /// Whether it frames the message: no plugin sets it.
    #[inline]
    pub const fn is_framing(self) -> bool {
        FRAMING & self.bit() != 0
    }

    /// A bit of its own.
    pub const fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// Bits of those that frame a message. All fields that do are known.
const FRAMING: u32 = {
    let mut bits = 0;
    let mut at = 0;
    while at < KnownHeader::ALL.len() {
        let name = KnownHeader::ALL[at];
        if check::is_framing_lower(name.text()) {
            bits |= name.bit();
        }
        at += 1;
    }
    assert!(bits.count_ones() as usize == check::FRAMING.len());
    bits
};

/// A valid name: in lower case if it is known, else in any.
#[derive(Clone, Copy, Debug)]
pub struct FieldName<'a> {
    pub text: &'a [u8],
    pub kind: NameKind,
}

/// Facts of a valid name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    Known(KnownHeader),
    /// The name is in lower case.
    Lower,
    /// The name may be in any case.
    Other,
}

impl<'a> FieldName<'a> {
    /// `None`: it is no token (RFC 9110 §5.6.2), or longer than 64 KiB.
    #[inline]
    pub fn new(text: &'a [u8]) -> Option<Self> {
        Some(match NameKind::of(text)? {
            NameKind::Known(known) => known.into(),
            kind => Self { text, kind },
        })
    }

    #[inline]
    pub fn known(self) -> Option<KnownHeader> {
        self.kind.known()
    }
}

impl NameKind {
    /// `None`: it is no token, or too long.
    fn of(text: &[u8]) -> Option<Self> {
        if !matches!(text.len(), 1..=MAX_NAME_BYTES) {
            return None;
        }
        if swar::all(text, swar::are_of_plain_names) {
            return Some(KnownHeader::of_lower(text).map_or(Self::Lower, Self::Known));
        }
        Self::of_other(text)
    }

    /// Looks at a name with other characters in it than names are made of mostly.
    #[inline(never)]
    fn of_other(text: &[u8]) -> Option<Self> {
        let is_token = text.iter().all(|&byte| TOKEN[usize::from(byte)]);
        is_token.then(|| KnownHeader::of(text).map_or(Self::Other, Self::Known))
    }

    #[inline]
    pub fn known(self) -> Option<KnownHeader> {
        match self {
            Self::Known(known) => Some(known),
            Self::Lower | Self::Other => None,
        }
    }
}

impl From<KnownHeader> for FieldName<'_> {
    fn from(known: KnownHeader) -> Self {
        Self {
            text: known.text(),
            kind: NameKind::Known(known),
        }
    }
}

impl<'a> From<&'a HeaderName> for FieldName<'a> {
    fn from(name: &'a HeaderName) -> Self {
        // The `http` crate has all names in lower case.
        let text = name.as_str().as_bytes();
        Self {
            text,
            kind: KnownHeader::of_lower(text).map_or(NameKind::Lower, NameKind::Known),
        }
    }
}

/// Whether a field's value may be this (RFC 9110 §5.5, obs-text included): nothing that would end its line.
pub fn is_valid_value(value: &[u8]) -> bool {
    swar::all(value, swar::are_printable) || value.iter().all(|&byte| is_value_byte(byte))
}

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
            "Authorization",
            "CDN-Loop",
            "Content-Range",
            "Forwarded",
            "If-Modified-Since",
            "If-Range",
            "If-Unmodified-Since",
            "X-Forwarded-Port",
            "X-Real-IP",
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
            let known = KnownHeader::of(name.as_bytes()).expect(name);
            assert_eq!(known.text(), name.to_ascii_lowercase().as_bytes());
            assert_eq!(bits & known.bit(), 0);
            bits |= known.bit();
        }
        for other in ["", "hos", "hosts", "fate", "x-forwarded-by", "tt"] {
            assert_eq!(KnownHeader::of(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_name_has_a_longest_length() {
        let long = vec![b'a'; MAX_NAME_BYTES + 1];
        assert!(FieldName::new(&long).is_none());
        assert!(FieldName::new(&long[1..]).is_some());
    }

    proptest! {
        #[test]
        fn names_and_values_are_those_of_the_http_crate(
            bytes in prop::collection::vec(prop_oneof![3 => 0x20..0x7f_u8, 1 => any::<u8>()], 0..24),
        ) {
            let name = FieldName::new(&bytes);
            prop_assert_eq!(name.is_some(), HeaderName::from_bytes(&bytes).is_ok());
            let has_upper = bytes.iter().any(u8::is_ascii_uppercase);
            prop_assert!(!name.is_some_and(|name| name.kind == NameKind::Lower && has_upper));
            prop_assert_eq!(is_valid_value(&bytes), HeaderValue::from_bytes(&bytes).is_ok());
        }
    }
}
