//! Networks by address and prefix.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Whom a listener believes, or whom a route is for. In the file a list such as `["10.0.0.0/8", "2001:db8::1", "unix"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Networks {
    pub cidrs: Vec<Cidr>,
    /// Whether clients of Unix sockets are among them.
    pub unix: bool,
}

/// Addresses that begin with the same bits. In the file `10.0.0.0/8`, or an address alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cidr {
    /// The bits behind the prefix are 0.
    address: IpAddr,
    prefix: u8,
}

impl Networks {
    /// Whether an address is in one of them. `None`: that of a Unix socket's client.
    pub fn contain(&self, address: Option<IpAddr>) -> bool {
        match address {
            Some(address) => self.cidrs.iter().any(|cidr| cidr.contains(address)),
            None => self.unix,
        }
    }
}

/// `10.0.0.0/8, unix`.
impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cidrs = self.cidrs.iter().map(Cidr::to_string);
        let unix = self.unix.then(|| "unix".to_owned());
        let all: Vec<_> = cidrs.chain(unix).collect();
        f.write_str(&all.join(", "))
    }
}

impl Cidr {
    fn new(address: IpAddr, prefix: u8) -> Self {
        let address = address.to_canonical();
        Self {
            address: masked(address, prefix),
            prefix,
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }
}

/// The first bits of an address, and zeros behind them.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

/// The error says what is wrong, if the text looks like a network.
impl FromStr for Cidr {
    type Err = Option<String>;

    fn from_str(text: &str) -> Result<Self, Option<String>> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| None)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(prefix) => prefix.parse().map_err(|_| None)?,
        };
        if prefix > longest {
            return Err(None);
        }
        if address.is_ipv6() && address.to_canonical().is_ipv4() {
            return Err(Some("an IPv4 network as one of IPv4".to_owned()));
        }
        let cidr = Self::new(address, prefix);
        match cidr.address == address {
            true => Ok(cidr),
            false => Err(Some(format!("\"{cidr}\", which are the same addresses"))),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(cidr: &str, address: &str) -> bool {
        let cidr: Cidr = cidr.parse().unwrap();
        cidr.contains(address.parse().unwrap())
    }

    #[test]
    fn a_network_has_the_addresses_that_begin_as_it_does() {
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.0.0.0/8", "::ffff:10.0.0.1"));
        assert!(contains("0.0.0.0/0", "192.0.2.1"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1"));
        assert!(!contains("::/0", "192.0.2.1"));
        assert!(contains("2001:db8::/33", "2001:db8:7fff::1"));
        assert!(!contains("2001:db8::/33", "2001:db8:8000::1"));
        assert!(contains("192.0.2.1", "192.0.2.1") && !contains("192.0.2.1", "192.0.2.0"));
    }

    #[test]
    fn a_network_is_written_in_one_way() {
        let error = |text: &str| text.parse::<Cidr>().unwrap_err();
        for wrong in [
            "",
            "a",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0/8",
            "::/129",
            "1.2.3.4/",
        ] {
            assert_eq!(error(wrong), None, "{wrong}");
        }
        assert!(error("10.0.0.1/8").is_some_and(|why| why.contains("\"10.0.0.0/8\"")));
        assert!(error("::ffff:10.0.0.0/104").is_some());
        assert_eq!(
            "2001:db8::/32".parse::<Cidr>().unwrap().to_string(),
            "2001:db8::/32"
        );
    }

    #[test]
    fn clients_of_unix_sockets_are_named_for_themselves() {
        let networks = |unix| Networks {
            cidrs: vec!["0.0.0.0/0".parse().unwrap()],
            unix,
        };
        assert!(networks(true).contain(None) && !networks(false).contain(None));
    }
}
