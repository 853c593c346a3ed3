//! The PROXY protocol (HAProxy, versions 1 and 2): a header in front of a connection's bytes, in which a proxy says whose
//! connection it passes on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

mod write;

pub use write::{Client, Facts, TlsFacts, write};

/// A header that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the header. What follows is the client's.
    pub bytes: usize,
    /// `None`: the connection is the proxy's own (a health check), or of a client without an IP address.
    pub ends: Option<Ends>,
}

/// The two ends of the connection that the proxy has with its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub client: SocketAddr,
    pub server: SocketAddr,
}

/// Result of a look at bytes that a header may be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    Header(Header),
    /// Header is not whole: so many bytes are needed at least, more than there are.
    Needs(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("no PROXY header")]
    Missing,
    #[error("PROXY header of version 1: it does not end within {MAX_V1_BYTES} bytes")]
    V1TooLong,
    #[error(
        "PROXY header of version 1: expected \"PROXY TCP4 CLIENT SERVER PORT PORT\", TCP6 or UNKNOWN"
    )]
    V1,
    #[error("PROXY header: version or command {0:#04x} is unknown")]
    Command(u8),
    #[error("PROXY header: address family or transport {0:#04x} is unknown")]
    Family(u8),
    #[error("PROXY header: its length leaves no room for its addresses")]
    TooShort,
    #[error("PROXY header: a field (TLV) goes beyond its end")]
    BadField,
    #[error("PROXY header: the checksum does not fit")]
    Checksum,
}

/// Longest header of version 1, its CRLF included.
const MAX_V1_BYTES: usize = 107;

/// Begin of a header of version 2.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, command, family and length of version 2.
const V2_FIXED_BYTES: usize = 16;

/// Reads the header that the bytes begin with.
pub fn parse(bytes: &[u8]) -> Result<Parsed, HeaderError> {
    let begins = |whole: &[u8]| {
        let common = whole.len().min(bytes.len());
        bytes[..common] == whole[..common]
    };
    if bytes.is_empty() {
        Ok(Parsed::Needs(1))
    } else if begins(V2_SIGNATURE) {
        match bytes.split_first_chunk::<V2_FIXED_BYTES>() {
            Some((fixed, rest)) => v2(bytes, fixed, rest),
            None => Ok(Parsed::Needs(V2_FIXED_BYTES)),
        }
    } else if begins(b"PROXY ") {
        v1(bytes)
    } else {
        Err(HeaderError::Missing)
    }
}

fn v1(bytes: &[u8]) -> Result<Parsed, HeaderError> {
    let within = &bytes[..bytes.len().min(MAX_V1_BYTES)];
    let Some(end) = within.windows(2).position(|two| two == b"\r\n") else {
        return match within.len() {
            MAX_V1_BYTES => Err(HeaderError::V1TooLong),
            len => Ok(Parsed::Needs(len + 1)),
        };
    };
    let line = str::from_utf8(&within[..end]).map_err(|_| HeaderError::V1)?;
    Ok(Parsed::Header(Header {
        bytes: end + 2,
        ends: v1_ends(line).ok_or(HeaderError::V1)?,
    }))
}

/// The outer `None`: the line is wrong.
fn v1_ends(line: &str) -> Option<Option<Ends>> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        // Anything may follow, and is to be ignored.
        return Some(None);
    }
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let port = |text: &str| -> Option<u16> {
        let is_plain = text == "0" || !text.starts_with(['0', '+']);
        text.parse().ok().filter(|_| is_plain)
    };
    let (client, server) = (address(words.next()?)?, address(words.next()?)?);
    let (client_port, server_port) = (port(words.next()?)?, port(words.next()?)?);
    let ends = Ends {
        client: SocketAddr::new(client, client_port),
        server: SocketAddr::new(server, server_port),
    };
    words.next().is_none().then_some(Some(ends))
}

fn v2(bytes: &[u8], fixed: &[u8; 16], rest: &[u8]) -> Result<Parsed, HeaderError> {
    let [.., command, family, high, low] = *fixed;
    let is_local = match command {
        LOCAL => true,
        PROXY => false,
        _ => return Err(HeaderError::Command(command)),
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    let whole = V2_FIXED_BYTES + len;
    let Some(block) = rest.get(..len) else {
        return Ok(Parsed::Needs(whole));
    };
    let header = |ends| {
        let bytes = whole;
        Ok(Parsed::Header(Header { bytes, ends }))
    };
    // The proxy's own connection has no client, whatever its header says: what is in it is skipped and not looked at.
    if is_local {
        return header(None);
    }
    let address_bytes = match family {
        INET_STREAM | INET_DGRAM => 12,
        INET6_STREAM | INET6_DGRAM => 36,
        UNIX_STREAM | UNIX_DGRAM => 216,
        // Addresses of an unspecified family cannot be known.
        0x00..=0x02 | 0x10 | 0x20 | 0x30 => return header(None),
        _ => return Err(HeaderError::Family(family)),
    };
    let (addresses, fields) = block
        .split_at_checked(address_bytes)
        .ok_or(HeaderError::TooShort)?;
    check_fields(&bytes[..whole], fields)?;
    header(v2_ends(family, addresses))
}

/// `None`: not the ends of a TCP connection.
fn v2_ends(family: u8, addresses: &[u8]) -> Option<Ends> {
    let (client, server): (IpAddr, IpAddr) = match family {
        INET_STREAM => {
            let (client, rest) = addresses.split_first_chunk::<4>()?;
            (
                Ipv4Addr::from(*client).into(),
                Ipv4Addr::from(*rest.first_chunk::<4>()?).into(),
            )
        }
        INET6_STREAM => {
            let (client, rest) = addresses.split_first_chunk::<16>()?;
            (
                Ipv6Addr::from(*client).into(),
                Ipv6Addr::from(*rest.first_chunk::<16>()?).into(),
            )
        }
        _ => return None,
    };
    let [a, b, c, d] = *addresses.last_chunk::<4>()?;
    Some(Ends {
        client: SocketAddr::new(client, u16::from_be_bytes([a, b])),
        server: SocketAddr::new(server, u16::from_be_bytes([c, d])),
    })
}

/// Skips the fields behind the addresses, and checks the checksum where there is one.
fn check_fields(header: &[u8], mut fields: &[u8]) -> Result<(), HeaderError> {
    while let [kind, high, low, rest @ ..] = fields {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, rest) = rest.split_at_checked(len).ok_or(HeaderError::BadField)?;
        if *kind == FIELD_CRC32C {
            let expected = value.try_into().map_err(|_| HeaderError::BadField)?;
            // The sum is of the header with zeros in its own place.
            let before = header.len() - rest.len() - value.len();
            let parts = [&header[..before], &[0; 4], rest];
            if crc32c(&parts) != u32::from_be_bytes(expected) {
                return Err(HeaderError::Checksum);
            }
        }
        fields = rest;
    }
    match fields.is_empty() {
        true => Ok(()),
        false => Err(HeaderError::BadField),
    }
}

/// CRC-32C (RFC 9260 appendix A).
fn crc32c(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().copied().flatten();
    let crc = bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82F6_3B78 & 0_u32.wrapping_sub(crc & 1))
        })
    });
    !crc
}

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

const INET_STREAM: u8 = 0x11;
const INET_DGRAM: u8 = 0x12;
const INET6_STREAM: u8 = 0x21;
const INET6_DGRAM: u8 = 0x22;
const UNIX_STREAM: u8 = 0x31;
const UNIX_DGRAM: u8 = 0x32;

/// Type of the field with the checksum.
const FIELD_CRC32C: u8 = 0x03;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn ends(client: &str, server: &str) -> Option<Ends> {
        let [client, server] = [client, server].map(|text| text.parse().unwrap());
        Some(Ends { client, server })
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Option<Ends>, HeaderError> {
        match parse(bytes)? {
            Parsed::Header(header) => {
                assert_eq!(header.bytes, bytes.len());
                Ok(header.ends)
            }
            Parsed::Needs(more) => panic!("{more} bytes of {}", bytes.len()),
        }
    }

    pub(super) fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let mut header = V2_SIGNATURE.to_vec();
        header.extend([command, family]);
        header.extend((block.len() as u16).to_be_bytes());
        header.extend(block);
        header
    }

    /// Block of 192.0.2.7:50000 with 198.51.100.1:443, and these fields.
    pub(super) fn ipv4(fields: &[u8]) -> Vec<u8> {
        let addresses = [192, 0, 2, 7, 198, 51, 100, 1, 195, 80, 1, 187];
        [&addresses[..], fields].concat()
    }

    #[test]
    fn version_1() {
        let tcp4 = b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\r\n";
        assert_eq!(read(tcp4), Ok(ends("192.0.2.7:50000", "198.51.100.1:443")));
        let tcp6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 50000 443\r\n";
        assert_eq!(
            read(tcp6),
            Ok(ends("[2001:db8::7]:50000", "[2001:db8::1]:443"))
        );
        for unknown in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN 192.0.2.7 x y\r\n"] {
            assert_eq!(read(unknown.as_bytes()), Ok(None));
        }
        for wrong in [
            "PROXY TCP4 192.0.2.7 198.51.100.1 50000\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 50000 443 1\r\n",
            "PROXY TCP4 192.0.2.7  198.51.100.1 50000 443\r\n",
            "PROXY TCP4 192.0.2.07 198.51.100.1 50000 443\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 50000 443\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 50000 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +1 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 01 443\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 1 443\r\n",
            "PROXY \r\n",
            "PROXY \u{7f}\r\n",
        ] {
            assert_eq!(read(wrong.as_bytes()), Err(HeaderError::V1), "{wrong}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
        assert_eq!(long.len(), MAX_V1_BYTES);
        assert_eq!(read(long.as_bytes()), Ok(None));
        let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
        assert_eq!(parse(longer.as_bytes()), Err(HeaderError::V1TooLong));
        for other in [
            "GET / HTTP/1.1\r\n",
            "\x16\x03\x01",
            "PROXYTCP4",
            "\r\n\r\n\r\n",
        ] {
            assert_eq!(parse(other.as_bytes()), Err(HeaderError::Missing));
        }
    }

    #[test]
    fn version_2() {
        let expected = Ok(ends("192.0.2.7:50000", "198.51.100.1:443"));
        assert_eq!(read(&v2(0x21, 0x11, &ipv4(&[]))), expected);
        // Fields are skipped: NOOP, and one that nobody knows.
        let fields = [4, 0, 2, 0, 0, 0xee, 0, 0];
        assert_eq!(read(&v2(0x21, 0x11, &ipv4(&fields))), expected);
        let mut block = [0; 36];
        (block[15], block[31], block[35]) = (1, 2, 80);
        assert_eq!(
            read(&v2(0x21, 0x21, &block)),
            Ok(ends("[::1]:0", "[::2]:80"))
        );
        // Datagrams, Unix sockets and what is unspecified have no ends of a TCP connection.
        assert_eq!(read(&v2(0x21, 0x12, &ipv4(&[]))), Ok(None));
        assert_eq!(read(&v2(0x21, 0x31, &[7; 216])), Ok(None));
        assert_eq!(read(&v2(0x21, 0x00, &[1, 2, 3])), Ok(None));
    }

    #[test]
    fn a_local_header_has_no_client_whatever_it_says() {
        for (family, block) in [(0x11, ipv4(&[])), (0x11, vec![1]), (0xff, vec![9; 300])] {
            assert_eq!(read(&v2(0x20, family, &block)), Ok(None));
        }
    }

    #[test]
    fn wrong_headers_of_version_2() {
        for (command, family, block, error) in [
            (0x11, 0x11, ipv4(&[]), HeaderError::Command(0x11)),
            (0x22, 0x11, ipv4(&[]), HeaderError::Command(0x22)),
            (0x21, 0x41, ipv4(&[]), HeaderError::Family(0x41)),
            (0x21, 0x13, ipv4(&[]), HeaderError::Family(0x13)),
            (0x21, 0x21, ipv4(&[]), HeaderError::TooShort),
            (0x21, 0x31, ipv4(&[]), HeaderError::TooShort),
            (0x21, 0x11, ipv4(&[4]), HeaderError::BadField),
            (0x21, 0x11, ipv4(&[4, 0, 1]), HeaderError::BadField),
            (0x21, 0x11, ipv4(&[3, 0, 1, 0]), HeaderError::BadField),
            (
                0x21,
                0x11,
                ipv4(&[3, 0, 4, 1, 2, 3, 4]),
                HeaderError::Checksum,
            ),
        ] {
            assert_eq!(parse(&v2(command, family, &block)), Err(error));
        }
    }

    #[test]
    fn a_checksum_is_of_all_but_itself() {
        assert_eq!(crc32c(&[b"123456789"]), 0xE306_9283);
        let fields = [4, 0, 1, 9, 3, 0, 4, 0, 0, 0, 0, 4, 0, 1, 8];
        let mut header = v2(0x21, 0x11, &ipv4(&fields));
        let (at, crc) = (header.len() - 8, crc32c(&[&header]));
        header[at..at + 4].copy_from_slice(&crc.to_be_bytes());
        assert!(read(&header).is_ok_and(|ends| ends.is_some()));
        *header.last_mut().unwrap() ^= 1;
        assert_eq!(parse(&header), Err(HeaderError::Checksum));
    }

    fn whole() -> impl Strategy<Value = Vec<u8>> {
        let v1 = any::<(Ipv4Addr, Ipv4Addr, u16, u16)>()
            .prop_map(|(a, b, c, d)| format!("PROXY TCP4 {a} {b} {c} {d}\r\n").into_bytes());
        let families = prop_oneof![Just(0x11_u8), Just(0x21), Just(0x00)];
        let block = prop::collection::vec(any::<u8>(), 36);
        let v2 = (families, block).prop_map(|(family, block)| {
            let len = if family == 0x11 { 12 } else { 36 };
            v2(0x21, family, &block[..len])
        });
        prop_oneof![v1, v2]
    }

    proptest! {
        #[test]
        fn a_header_ends_where_it_ends(header in whole(), behind: Vec<u8>) {
            let Ok(Parsed::Header(read)) = parse(&header) else { panic!() };
            prop_assert_eq!(read.bytes, header.len());
            let together = [&header[..], &behind].concat();
            prop_assert_eq!(parse(&together), Ok(Parsed::Header(read)));
            for there in 0..header.len() {
                let Ok(Parsed::Needs(needed)) = parse(&header[..there]) else { panic!() };
                prop_assert!(there < needed && needed <= header.len());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes: Vec<u8>, begin in 0..3_usize) {
            let begins = [&b""[..], V2_SIGNATURE, b"PROXY "];
            bytes.splice(0..0, begins[begin].iter().copied());
            if let Ok(Parsed::Header(header)) = parse(&bytes) {
                prop_assert!(header.bytes <= bytes.len());
            }
        }
    }
}
