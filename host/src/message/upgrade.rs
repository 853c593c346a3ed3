//! Protocols that go on where a request has ended.

use http::StatusCode;

use super::{Headers, KnownHeader};

/// Protocol that a client asks to go on with: by `Upgrade` (RFC 9110 §7.8), or by CONNECT. Taken by the codec, before the fields
/// of the connection are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// By `Upgrade`, or by an extended CONNECT (RFC 8441).
    WebSocket,
    /// Bytes of any protocol, for the host and port that CONNECT names (RFC 9110 §9.3.6).
    Connect,
}

impl Upgrade {
    /// The protocol that the fields of a request ask for. `None`: none that is known.
    pub fn of(headers: &Headers) -> Option<Self> {
        let mut options = headers
            .get_all(KnownHeader::Connection)
            .flat_map(|value| value.split(|&byte| byte == b','));
        let is_asked = options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
        let mut protocols = headers.get_all(KnownHeader::Upgrade);
        let protocol = protocols.next().filter(|_| is_asked)?;
        let is_known = protocol.eq_ignore_ascii_case(WEBSOCKET);
        (is_known && protocols.next().is_none()).then_some(Self::WebSocket)
    }

    /// Name in `Upgrade` and `:protocol`. `None`: it is asked for without one.
    pub const fn token(self) -> Option<&'static [u8]> {
        match self {
            Self::WebSocket => Some(WEBSOCKET),
            Self::Connect => None,
        }
    }

    /// Status of a response that agrees, by HTTP/1.
    pub fn is_agreed_by(self, status: StatusCode) -> bool {
        match self {
            Self::WebSocket => status == StatusCode::SWITCHING_PROTOCOLS,
            Self::Connect => status.is_success(),
        }
    }
}

const WEBSOCKET: &[u8] = b"websocket";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_is_asked_for_by_two_fields() {
        let of = |connection: &str, upgrade: &str| {
            let mut headers = Headers::new();
            headers.add(KnownHeader::Connection, connection.as_bytes());
            headers.add(KnownHeader::Upgrade, upgrade.as_bytes());
            Upgrade::of(&headers)
        };
        assert_eq!(of("Upgrade", "WebSocket"), Some(Upgrade::WebSocket));
        assert_eq!(
            of("keep-alive, upgrade", "websocket"),
            Some(Upgrade::WebSocket)
        );
        for (connection, upgrade) in [
            ("close", "websocket"),
            ("upgrade", "h2c"),
            ("upgrade", "websocket, h2c"),
            ("upgraded", "websocket"),
        ] {
            assert_eq!(of(connection, upgrade), None, "{connection}: {upgrade}");
        }
        assert_eq!(Upgrade::of(&Headers::new()), None);
    }
}
