//! The system's own word on names: resolv.conf(5) and hosts(5).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Part of resolv.conf(5) that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// At most three; this host's where none is named.
    pub servers: Vec<SocketAddr>,
    /// At most six.
    pub search: Vec<String>,
    pub ndots: usize,
}

/// The hosts(5) file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    addresses: BTreeMap<String, Vec<IpAddr>>,
}

/// resolv.conf(5), `MAXNS`.
const SERVERS_AT_MOST: usize = 3;
const SEARCH_AT_MOST: usize = 6;
const NDOTS_AT_MOST: usize = 15;
const DNS_PORT: u16 = 53;

impl Default for ResolvConf {
    fn default() -> Self {
        Self {
            servers: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, DNS_PORT))],
            search: Vec::new(),
            ndots: 1,
        }
    }
}

impl ResolvConf {
    /// Reads the file as the C library does: a line that makes no sense is passed over.
    pub fn read(text: &str) -> Self {
        let (mut servers, mut search, mut ndots) = (Vec::new(), Vec::new(), 1);
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => servers.extend(words.next().and_then(server)),
                // The last line of these counts.
                Some("search" | "domain") => {
                    let domains = words.map(|it| it.trim_end_matches('.').to_ascii_lowercase());
                    search = domains.filter(|it| !it.is_empty()).collect();
                }
                Some("options") => {
                    let number = words.find_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    ndots = number.unwrap_or(ndots).min(NDOTS_AT_MOST);
                }
                _ => {}
            }
        }
        servers.truncate(SERVERS_AT_MOST);
        search.truncate(SEARCH_AT_MOST);
        let default = Self::default();
        Self {
            servers: match servers.is_empty() {
                true => default.servers,
                false => servers,
            },
            search,
            ndots,
        }
    }
}

/// `10.0.0.2`, `fd00::2`, `fe80::1%2`.
fn server(text: &str) -> Option<SocketAddr> {
    match text.split_once('%') {
        Some((address, zone)) => {
            let address: Ipv6Addr = address.parse().ok()?;
            let server = SocketAddrV6::new(address, DNS_PORT, 0, zone.parse().ok()?);
            Some(SocketAddr::V6(server))
        }
        None => {
            let address: IpAddr = text.parse().ok()?;
            Some(SocketAddr::new(address, DNS_PORT))
        }
    }
}

impl Hosts {
    pub fn read(text: &str) -> Self {
        let mut addresses: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else {
                continue;
            };
            for name in words {
                let of_name = addresses.entry(name.to_ascii_lowercase()).or_default();
                if !of_name.contains(&address) {
                    of_name.push(address);
                }
            }
        }
        Self { addresses }
    }

    /// Addresses of a name; none where the DNS is to be asked. `localhost` is this host also where the file does not say
    /// (RFC 6761 §6.3).
    pub fn of(&self, name: &str) -> Vec<IpAddr> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if let Some(addresses) = self.addresses.get(&name) {
            return addresses.clone();
        }
        match name == "localhost" || name.ends_with(".localhost") {
            true => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            false => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_the_c_library_reads_it() {
        let read = ResolvConf::read(
            "# a comment\nnameserver 10.0.0.2\nnameserver  fe80::1%3 \nnameserver bad\n\
             search old.test\nsearch A.test. b.test\noptions rotate ndots:5 timeout:1\n\
             nameserver fd00::2\nnameserver 10.0.0.9\n",
        );
        let servers: Vec<String> = read.servers.iter().map(SocketAddr::to_string).collect();
        assert_eq!(servers, ["10.0.0.2:53", "[fe80::1%3]:53", "[fd00::2]:53"]);
        assert_eq!(read.search, ["a.test", "b.test"]);
        assert_eq!(read.ndots, 5);
        assert_eq!(ResolvConf::read(""), ResolvConf::default());
        assert_eq!(ResolvConf::read("options ndots:99").ndots, 15);
    }

    #[test]
    fn hosts_have_the_addresses_that_their_lines_say() {
        let hosts = Hosts::read(
            "127.0.0.1 localhost\n::1 localhost ip6\n10.0.0.7 App.test app # and no more\nbad line\n",
        );
        let of = |name| {
            hosts
                .of(name)
                .iter()
                .map(IpAddr::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(of("APP.test."), ["10.0.0.7"]);
        assert_eq!(of("localhost"), ["127.0.0.1", "::1"]);
        assert_eq!(of("x.localhost"), ["127.0.0.1", "::1"]);
        assert!(of("and").is_empty());
    }
}
