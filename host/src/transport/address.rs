//! The two ends of a client's connection, as plugins, logs and peers are told of them.

use std::fmt;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// The client's end. A client of a Unix socket has no address; it is told as `unix:`, as nginx does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress {
    ip: Option<IpAddr>,
    port: Option<u16>,
    /// The other end of the connection, where it is a proxy that has named the client.
    proxy: Option<Proxy>,
}

/// A proxy by its address; `None`: it has come over a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Proxy(Option<IpAddr>);

/// The gateway's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerAddress {
    Tcp(SocketAddr),
    /// `unix:PATH`, with the path of the config.
    Unix(Arc<str>),
}

impl ServerAddress {
    /// `None`: a Unix socket has none.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()),
            Self::Unix(_) => None,
        }
    }
}

impl ClientAddress {
    /// Peer of a Unix socket.
    pub const UNIX: Self = Self {
        ip: None,
        port: None,
        proxy: None,
    };

    /// Where there is no client: a plugin's call out, a connection that is not there yet.
    pub const NOBODY: Self = Self {
        ip: Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        port: Some(0),
        proxy: None,
    };

    /// Whether it is [`Self::NOBODY`], whose address no client has.
    #[inline]
    pub fn is_nobody(&self) -> bool {
        self.ip == Self::NOBODY.ip
    }

    /// `None` for one of a Unix socket, unless a plugin has found out who stands behind it.
    pub fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The port stays: who asks for it asks for the connection's.
    pub fn set_ip(&mut self, ip: IpAddr) {
        self.ip = Some(ip.to_canonical());
    }

    /// Notes that a proxy with this address has named the client.
    pub fn set_behind(&mut self, proxy: Option<IpAddr>) {
        self.proxy = Some(Proxy(proxy));
    }

    /// Address of the other end of the connection: the client's, or that of the proxy that has named it.
    pub fn connection_ip(&self) -> Option<IpAddr> {
        match self.proxy {
            Some(Proxy(ip)) => ip,
            None => self.ip,
        }
    }

    /// The IP address alone, or `unix:`.
    pub fn host(&self) -> AddressText {
        self.ip.map_or(AddressText::UNIX, AddressText::new)
    }
}

/// An IPv4 client of a socket that takes both families is `::ffff:192.0.2.1` to the kernel (RFC 4291 §2.5.5.2); logs,
/// plugins and peers are told the IPv4 address, whichever listener it came through.
impl From<SocketAddr> for ClientAddress {
    fn from(address: SocketAddr) -> Self {
        Self {
            ip: Some(address.ip().to_canonical()),
            port: Some(address.port()),
            proxy: None,
        }
    }
}

/// For logs: `192.0.2.1:50000` or `unix:`.
impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ip, self.port) {
            (Some(ip), Some(port)) => SocketAddr::new(ip, port).fmt(f),
            _ => f.write_str(str::from_utf8(self.host().bytes()).unwrap_or_default()),
        }
    }
}

/// Client for limits: an IPv4 address, or the /64 network of an IPv6 address, which one client mostly has to
/// itself (RFC 6177 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl Network {
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(ipv6) => {
                let [a, b, c, d, ..] = ipv6.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
            ipv4 @ IpAddr::V4(_) => Self(ipv4),
        }
    }
}

/// An IP address as text, or `unix:`. For requests: the machinery of `Display` takes 600 instructions for one.
#[derive(Clone, Copy, Debug)]
pub struct AddressText {
    text: [u8; ADDRESS_BYTES],
    len: usize,
}

/// An IPv6 address takes at most 45.
const ADDRESS_BYTES: usize = 48;

impl AddressText {
    const UNIX: Self = {
        let mut it = Self::EMPTY;
        let (name, _) = it.text.split_at_mut(5);
        name.copy_from_slice(b"unix:");
        it.len = 5;
        it
    };

    const EMPTY: Self = Self {
        text: [0; ADDRESS_BYTES],
        len: 0,
    };

    pub fn new(address: IpAddr) -> Self {
        let mut it = Self::EMPTY;
        match address {
            IpAddr::V4(address) => it.put_ipv4(address),
            IpAddr::V6(address) => {
                let mut rest = &mut it.text[..];
                write!(rest, "{address}").expect("an address fits its room");
                it.len = ADDRESS_BYTES - rest.len();
            }
        }
        it
    }

    pub fn bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }

    fn put_ipv4(&mut self, address: Ipv4Addr) {
        for octet in address.octets() {
            let part = OCTETS[usize::from(octet)];
            // The part and, until the next one is there, what is behind its dot.
            self.text[self.len..self.len + part.len()].copy_from_slice(&part);
            self.len += 2 + usize::from(octet >= 10) + usize::from(octet >= 100);
        }
        self.len -= 1; // no dot behind the last one
    }
}

/// Each octet as text, and a dot behind it.
const OCTETS: [[u8; 4]; 256] = {
    let mut octets = [[0; 4]; 256];
    let mut octet = 0;
    while octet < octets.len() {
        let [hundreds, tens, ones] = [octet / 100, octet / 10 % 10, octet % 10];
        let [hundreds, tens, ones] = [b'0' + hundreds as u8, b'0' + tens as u8, b'0' + ones as u8];
        octets[octet] = match octet {
            0..10 => [ones, b'.', 0, 0],
            10..100 => [tens, ones, b'.', 0],
            _ => [hundreds, tens, ones, b'.'],
        };
        octet += 1;
    }
    octets
};

impl From<SocketAddr> for ServerAddress {
    /// An IPv4 address is told as one, as a client's is.
    fn from(address: SocketAddr) -> Self {
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => Self::Tcp((ip, address.port()).into()),
            // The scope is kept.
            IpAddr::V6(_) => Self::Tcp(address),
        }
    }
}

impl ServerAddress {
    /// `None`: a Unix socket.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Where there is no client.
    pub const NOBODY: Self = Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_client_without_an_address_is_unix() {
        let mut client = ClientAddress::UNIX;
        assert_eq!(
            (client.host().bytes(), client.port()),
            (&b"unix:"[..], None)
        );
        assert_eq!(client.to_string(), "unix:");
        client.set_ip(IpAddr::from([192, 0, 2, 1]));
        assert_eq!(client.to_string(), "192.0.2.1");
    }

    #[test]
    fn one_with_an_address_has_a_port() {
        let client = ClientAddress::from(SocketAddr::from(([192, 0, 2, 1], 5000)));
        assert_eq!(client.host().bytes(), b"192.0.2.1");
        assert_eq!(client.to_string(), "192.0.2.1:5000");
    }

    #[test]
    fn an_ipv4_address_is_told_as_one_whatever_the_socket() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:5000".parse().unwrap();
        let plain: SocketAddr = "192.0.2.1:5000".parse().unwrap();
        let mut client = ClientAddress::from(mapped);
        assert_eq!(client, ClientAddress::from(plain));
        client.set_ip("::ffff:198.51.100.7".parse().unwrap());
        assert_eq!(client.host().bytes(), b"198.51.100.7");
        assert_eq!(ServerAddress::from(mapped), ServerAddress::Tcp(plain));
        let ipv6: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        assert_eq!(ServerAddress::from(ipv6), ServerAddress::Tcp(ipv6));
    }

    proptest! {
        #[test]
        fn addresses_are_written_as_others_write_them(address: IpAddr) {
            let expected = address.to_string();
            let text = AddressText::new(address);
            prop_assert_eq!(text.bytes(), expected.as_bytes());
        }
    }
}
