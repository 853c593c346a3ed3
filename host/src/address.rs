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

/// Room for the text of an IP address: an IPv6 one takes at most 45 bytes.
pub type AddressRoom = [u8; 48];

/// The address as text, written into `room`.
pub fn text(address: IpAddr, room: &mut AddressRoom) -> &[u8] {
    use std::io::Write;
    if let IpAddr::V4(address) = address {
        return ipv4_text(address, room);
    }
    let mut rest = &mut room[..];
    let size = rest.len();
    write!(rest, "{address}").expect("an address fits its room");
    let len = size - rest.len();
    &room[..len]
}

/// The machinery of `Display` takes 900 instructions for one.
fn ipv4_text(address: Ipv4Addr, room: &mut AddressRoom) -> &[u8] {
    let mut len = 0;
    let mut put = |byte| {
        room[len] = byte;
        len += 1;
    };
    for (idx, octet) in address.octets().into_iter().enumerate() {
        if idx > 0 {
            put(b'.');
        }
        if octet >= 100 {
            put(b'0' + octet / 100);
        }
        if octet >= 10 {
            put(b'0' + octet / 10 % 10);
        }
        put(b'0' + octet % 10);
    }
    &room[..len]
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
    fn an_address_is_written_as_it_is_shown() {
        let octets = [0, 9, 10, 99, 100, 199, 255];
        let v4 = octets.map(|octet| IpAddr::from([octet, 1, octet, 254]));
        let v6 = [
            "::",
            "::ffff:192.0.2.1",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ];
        let v6 = v6.map(|address| address.parse().unwrap());
        for address in v4.into_iter().chain(v6) {
            let mut room = [0; 48];
            assert_eq!(text(address, &mut room), address.to_string().as_bytes());
        }
    }

    #[test]
    fn one_with_an_address_has_a_port() {
        let client = ClientAddress::from(SocketAddr::from(([192, 0, 2, 1], 5000)));
        assert_eq!(client.host().to_string(), "192.0.2.1");
        assert_eq!(client.to_string(), "192.0.2.1:5000");
    }
}
