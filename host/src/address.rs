//! The two ends of a client's connection, as plugins, logs and peers are told of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// The client's end. A client of a Unix socket has no address; it is told as `unix:`, as nginx does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress {
    ip: Option<IpAddr>,
    port: Option<u16>,
}

/// The gateway's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerAddress {
    Tcp(SocketAddr),
    /// `unix:PATH`, with the path of the config.
    Unix(Arc<str>),
}

impl ClientAddress {
    /// Of a Unix socket.
    pub const UNIX: Self = Self {
        ip: None,
        port: None,
    };

    /// Where there is no client: a plugin's call out, a connection that is not there yet.
    pub const NOBODY: Self = Self {
        ip: Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        port: Some(0),
    };

    /// `None` for one of a Unix socket, unless a plugin has found out who stands behind it.
    pub fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The port stays: who asks for it asks for the connection's.
    pub fn set_ip(&mut self, ip: IpAddr) {
        self.ip = Some(ip);
    }

    /// The IP address alone, or `unix:`.
    pub fn host(&self) -> impl fmt::Display {
        Host(self.ip)
    }
}

impl From<SocketAddr> for ClientAddress {
    fn from(address: SocketAddr) -> Self {
        Self {
            ip: Some(address.ip()),
            port: Some(address.port()),
        }
    }
}

/// For logs: `192.0.2.1:50000` or `unix:`.
impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ip, self.port) {
            (Some(ip), Some(port)) => SocketAddr::new(ip, port).fmt(f),
            (ip, _) => Host(ip).fmt(f),
        }
    }
}

struct Host(Option<IpAddr>);

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(ip) => ip.fmt(f),
            None => f.write_str("unix:"),
        }
    }
}

impl ServerAddress {
    /// Where there is no client.
    pub const NOBODY: Self = Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_without_an_address_is_unix() {
        let mut client = ClientAddress::UNIX;
        assert_eq!(
            (client.host().to_string(), client.port()),
            ("unix:".to_owned(), None)
        );
        assert_eq!(client.to_string(), "unix:");
        client.set_ip(IpAddr::from([192, 0, 2, 1]));
        assert_eq!(client.to_string(), "192.0.2.1");
    }

    #[test]
    fn one_with_an_address_has_a_port() {
        let client = ClientAddress::from(SocketAddr::from(([192, 0, 2, 1], 5000)));
        assert_eq!(client.host().to_string(), "192.0.2.1");
        assert_eq!(client.to_string(), "192.0.2.1:5000");
    }
}
