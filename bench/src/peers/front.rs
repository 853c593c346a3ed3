//! How clients come to a peer: with TLS or without, by which version of HTTP.

/// A folder `fronts` beside each base of a config has a file for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// HTTP/1 without TLS.
    Plain,
    /// HTTP/1 by TLS 1.3.
    Tls(Key),
    /// HTTP/2 by prior knowledge, without TLS.
    Http2,
    /// HTTP/2 by TLS 1.3 and ALPN, with a key on P-256.
    Http2Tls,
    /// Calls of gRPC without TLS, by HTTP/2 on both sides.
    Grpc,
}

/// Kind of the key of a peer's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    P256,
    Rsa2048,
}

impl Front {
    /// Name of its files, without the ending.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls(_) => "tls",
            Self::Http2 => "http2",
            Self::Http2Tls => "http2-tls",
            Self::Grpc => "grpc",
        }
    }

    /// `None` without TLS.
    pub(super) fn key(self) -> Option<Key> {
        match self {
            Self::Tls(key) => Some(key),
            Self::Http2Tls => Some(Key::P256),
            Self::Plain | Self::Http2 | Self::Grpc => None,
        }
    }

    pub(super) fn is_http2(self) -> bool {
        match self {
            Self::Http2 | Self::Http2Tls | Self::Grpc => true,
            Self::Plain | Self::Tls(_) => false,
        }
    }

    pub(super) fn scheme(self) -> &'static str {
        match self.key() {
            Some(_) => "https",
            None => "http",
        }
    }

    /// Protocol that clients offer by ALPN.
    pub(super) fn alpn(self) -> &'static [u8] {
        match self.is_http2() {
            true => b"h2",
            false => b"http/1.1",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn each_base_has_a_file_for_each_front() {
        let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        let fronts = [
            Front::Plain,
            Front::Tls(Key::P256),
            Front::Http2,
            Front::Http2Tls,
            Front::Grpc,
        ];
        for base in ["nginx/conf", "haproxy/cfg", "envoy/yaml", "castling/toml"] {
            let (folder, ending) = base.split_once('/').unwrap();
            for front in fronts {
                let file = format!("{folder}/fronts/{}.{ending}", front.name());
                assert!(peers.join(&file).exists(), "{file}");
            }
        }
    }
}
