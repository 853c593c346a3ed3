//! Headers that the gateway puts in front of connections to peers.

use std::net::{IpAddr, SocketAddr};

use super::{Ends, INET_STREAM, INET6_STREAM, LOCAL, PROXY, V2_FIXED_BYTES, V2_SIGNATURE};
use crate::config::HeaderVersion;

/// Client that a connection is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// None: the connection is the gateway's own.
    Nobody,
    /// Client has no IP address.
    Unknown,
    Known(Ends),
}

/// Further facts of a known client's connection, which a header of version 2 has as fields (TLVs).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts<'a> {
    /// Protocol that was agreed on (ALPN).
    pub alpn: Option<&'a str>,
    /// Name of the server that the client has asked for (SNI).
    pub authority: Option<&'a str>,
    /// At most 128 bytes.
    pub unique_id: Option<&'a [u8]>,
    /// `None`: the client's connection is plain.
    pub tls: Option<TlsFacts<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsFacts<'a> {
    /// `TLSv1.3`.
    pub version: &'a str,
    pub cipher: &'a str,
    /// The client has shown a certificate, which was verified.
    pub has_certificate: bool,
}

/// Writes the header of a connection for this client.
pub fn write(version: HeaderVersion, client: Client, facts: &Facts<'_>) -> Vec<u8> {
    match version {
        HeaderVersion::V1 => write_v1(client),
        HeaderVersion::V2 => write_v2(client, facts),
    }
}

fn write_v1(client: Client) -> Vec<u8> {
    let (family, Ends { client, server }) = match client {
        Client::Nobody | Client::Unknown => return b"PROXY UNKNOWN\r\n".to_vec(),
        Client::Known(ends) => of_one_family(ends),
    };
    let family = match family {
        Family::Inet => "TCP4",
        Family::Inet6 => "TCP6",
    };
    let (from, to) = (client.ip(), server.ip());
    let (from_port, to_port) = (client.port(), server.port());
    format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n").into_bytes()
}

fn write_v2(client: Client, facts: &Facts<'_>) -> Vec<u8> {
    let mut block = Vec::with_capacity(36);
    let (command, family) = match client {
        Client::Nobody => (LOCAL, 0x00),
        Client::Unknown => (PROXY, 0x00),
        Client::Known(ends) => {
            let (family, Ends { client, server }) = of_one_family(ends);
            for ip in [client.ip(), server.ip()] {
                match ip {
                    IpAddr::V4(ip) => block.extend(ip.octets()),
                    IpAddr::V6(ip) => block.extend(ip.octets()),
                }
            }
            for port in [client.port(), server.port()] {
                block.extend(port.to_be_bytes());
            }
            write_facts(&mut block, facts);
            let family = match family {
                Family::Inet => INET_STREAM,
                Family::Inet6 => INET6_STREAM,
            };
            (PROXY, family)
        }
    };
    let mut header = Vec::with_capacity(V2_FIXED_BYTES + block.len());
    header.extend_from_slice(V2_SIGNATURE);
    header.extend([command, family]);
    header.extend((block.len() as u16).to_be_bytes());
    header.extend(block);
    header
}

/// Names are at most 255 bytes long (RFC 7301 §3.1, RFC 1035 §2.3.4), so that all fit.
fn write_facts(block: &mut Vec<u8>, facts: &Facts<'_>) {
    if let Some(alpn) = facts.alpn {
        write_field(block, FIELD_ALPN, alpn.as_bytes());
    }
    if let Some(authority) = facts.authority {
        write_field(block, FIELD_AUTHORITY, authority.as_bytes());
    }
    if let Some(id) = facts.unique_id {
        write_field(block, FIELD_UNIQUE_ID, id);
    }
    if let Some(tls) = &facts.tls {
        let client = CLIENT_TLS
            | if tls.has_certificate {
                CLIENT_CERTIFICATE
            } else {
                0
            };
        // 0: the client's certificate was verified.
        let verified = u32::from(!tls.has_certificate);
        let mut value = vec![client];
        value.extend(verified.to_be_bytes());
        write_field(&mut value, FIELD_TLS_VERSION, tls.version.as_bytes());
        write_field(&mut value, FIELD_TLS_CIPHER, tls.cipher.as_bytes());
        write_field(block, FIELD_TLS, &value);
    }
}

fn write_field(block: &mut Vec<u8>, kind: u8, value: &[u8]) {
    block.push(kind);
    block.extend((value.len() as u16).to_be_bytes());
    block.extend(value);
}

enum Family {
    Inet,
    Inet6,
}

/// The ends as addresses of one family: where they are of two, an IPv4 address is written as one of IPv6.
fn of_one_family(ends: Ends) -> (Family, Ends) {
    if ends.client.is_ipv4() && ends.server.is_ipv4() {
        return (Family::Inet, ends);
    }
    let mapped = |end: SocketAddr| match end.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), end.port()),
        // Without the scope, which is of this host.
        IpAddr::V6(ip) => SocketAddr::new(ip.into(), end.port()),
    };
    let ends = Ends {
        client: mapped(ends.client),
        server: mapped(ends.server),
    };
    (Family::Inet6, ends)
}

// Types of fields.
const FIELD_ALPN: u8 = 0x01;
const FIELD_AUTHORITY: u8 = 0x02;
const FIELD_UNIQUE_ID: u8 = 0x05;
const FIELD_TLS: u8 = 0x20;

// Types of fields in that of TLS.
const FIELD_TLS_VERSION: u8 = 0x21;
const FIELD_TLS_CIPHER: u8 = 0x23;

// Bits of the client in the field of TLS.
const CLIENT_TLS: u8 = 0x01;
const CLIENT_CERTIFICATE: u8 = 0x04;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{ends, ipv4, read, v2};
    use super::*;

    #[test]
    fn a_connection_without_a_client_is_the_gateways_own() {
        for (client, command) in [(Client::Nobody, 0x20), (Client::Unknown, 0x21)] {
            assert_eq!(
                write(HeaderVersion::V1, client, &Facts::default()),
                b"PROXY UNKNOWN\r\n"
            );
            assert_eq!(
                write(HeaderVersion::V2, client, &Facts::default()),
                v2(command, 0x00, &[])
            );
        }
    }

    #[test]
    fn facts_are_fields() {
        let client = Client::Known(ends("192.0.2.7:50000", "198.51.100.1:443").unwrap());
        let facts = Facts {
            alpn: Some("h2"),
            authority: Some("a.b"),
            unique_id: Some(b"id"),
            tls: Some(TlsFacts {
                version: "TLSv1.3",
                cipher: "C",
                has_certificate: false,
            }),
        };
        let fields = b"\x01\0\x02h2\x02\0\x03a.b\x05\0\x02id\x20\0\x13\x01\0\0\0\x01\x21\0\x07TLSv1.3\x23\0\x01C";
        let header = write(HeaderVersion::V2, client, &facts);
        assert_eq!(header, v2(0x21, 0x11, &ipv4(fields)));
    }

    #[test]
    fn ends_of_two_families_are_told_as_ipv6() {
        let two = Client::Known(ends("192.0.2.7:50000", "[2001:db8::1]:443").unwrap());
        let expected = b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 50000 443\r\n";
        assert_eq!(write(HeaderVersion::V1, two, &Facts::default()), expected);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(client: SocketAddr, server: SocketAddr) {
            let plain = |end: SocketAddr| SocketAddr::new(end.ip(), end.port());
            let ends = Ends { client: plain(client), server: plain(server) };
            for version in [HeaderVersion::V1, HeaderVersion::V2] {
                let facts = Facts {
                    alpn: Some("http/1.1"),
                    authority: Some("one.test"),
                    unique_id: Some(b"id"),
                    tls: Some(TlsFacts { version: "TLSv1.3", cipher: "A", has_certificate: true }),
                };
                let read = read(&write(version, Client::Known(ends), &facts)).unwrap().unwrap();
                prop_assert_eq!(read.client.ip().to_canonical(), ends.client.ip().to_canonical());
                prop_assert_eq!(read.server.ip().to_canonical(), ends.server.ip().to_canonical());
                prop_assert_eq!(read.client.port(), ends.client.port());
                prop_assert_eq!(read.server.port(), ends.server.port());
            }
        }
    }
}
