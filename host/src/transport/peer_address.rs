//! Addresses of peers: what the gateway connects to.

use std::fmt;
use std::net::{AddrParseError, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Address of a peer. Written and read as `127.0.0.1:8080`, `[::1]:8080` or `unix:/run/app.sock`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum PeerAddress {
    Inet(SocketAddr),
    /// A stream socket with this path, which is absolute.
    Unix(PathBuf),
}

impl PeerAddress {
    /// The path in `unix:PATH`, as the config and [`PeerAddress`] write it. `None`: the text is another address.
    pub fn unix_path(text: &str) -> Option<&Path> {
        text.strip_prefix(UNIX_PREFIX).map(Path::new)
    }

    /// `None`: a Unix socket.
    pub fn inet(&self) -> Option<SocketAddr> {
        match self {
            Self::Inet(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX_PREFIX}{}", path.display()),
        }
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Inet(address)
    }
}

impl From<PeerAddress> for String {
    fn from(address: PeerAddress) -> Self {
        address.to_string()
    }
}

impl TryFrom<String> for PeerAddress {
    type Error = AddrParseError;

    fn try_from(text: String) -> Result<Self, AddrParseError> {
        match Self::unix_path(&text) {
            Some(path) => Ok(Self::Unix(path.to_owned())),
            None => text.parse().map(Self::Inet),
        }
    }
}

const UNIX_PREFIX: &str = "unix:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in ["127.0.0.1:80", "[::1]:8080", "unix:/run/app.sock"] {
            let address = PeerAddress::try_from(text.to_owned()).unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(address.inet().is_none(), text.starts_with("unix:"));
            let sent = serde_json::to_string(&address).unwrap();
            assert_eq!(serde_json::from_str::<PeerAddress>(&sent).unwrap(), address);
        }
        assert!(PeerAddress::try_from("app:80".to_owned()).is_err());
    }
}
