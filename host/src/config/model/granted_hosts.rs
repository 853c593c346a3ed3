//! Hosts that are granted to a plugin.

use std::net::IpAddr;

use castling_abi::rules::host::HostPattern;
use serde::{Deserialize, Serialize};

use super::{Networks, Resolve, UpstreamTls};

/// Hosts that a plugin may call by their names. In the file a list of patterns, or a table with one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GrantedHosts {
    pub names: Vec<GrantedHost>,
    /// Networks that addresses of the names may be in, beside the public ones. Default none.
    pub networks: Networks,
    /// Name servers and the like.
    pub resolve: Resolve,
    /// Default: TLS 1.2 or later, by the authorities that the system trusts.
    pub tls: UpstreamTls,
}

/// Names that are granted on one port. In the file `HOST:PORT`, where `*.` stands for one label or more.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GrantedHost {
    /// In lower case; an IPv6 address without brackets.
    pub host: String,
    /// Names below `host` are granted, and not `host` itself.
    pub is_wildcard: bool,
    pub port: u16,
}

impl GrantedHost {
    /// Whether a host, in lower case, is granted on this port.
    pub fn matches(&self, host: &str, port: u16) -> bool {
        let pattern = HostPattern {
            host: &self.host,
            is_wildcard: self.is_wildcard,
            port: self.port,
        };
        pattern.matches(host, port)
    }
}

impl GrantedHosts {
    /// Whether an address of a granted name may be connected to: it is public, or in a granted network.
    pub fn admit(&self, address: IpAddr) -> bool {
        is_public(address) || self.networks.contain(Some(address))
    }
}

/// Whether an address is reached over the internet (IANA's registries of special-purpose addresses): neither this host's nor a
/// private network's, nor a link's, such as 169.254.169.254, where clouds have a machine's credentials.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            // Public by its number, it is the host of each of Azure's machines, and has its certificates.
            let is_wire_server = [a, b, c, d] == [168, 63, 129, 16];
            let is_shared = a == 100 && (64..128).contains(&b);
            let is_special = matches!(
                [a, b, c],
                [0 | 10 | 127 | 224.., ..]
                    | [192, 0, 0 | 2]
                    | [192, 88, 99]
                    | [198, 18 | 19, _]
                    | [198, 51, 100]
                    | [203, 0, 113]
            );
            !is_shared
                && !is_special
                && !is_wire_server
                && !address.is_private()
                && !address.is_link_local()
        }
        IpAddr::V6(address) => {
            let [first, second, ..] = address.segments();
            // 2000::/3 is what is assigned. In it: protocols (2001::/23, Teredo among them), documentation, 6to4.
            let is_special = first == 0x2001 && (second < 0x200 || second == 0xdb8)
                || first == 0x2002
                || first == 0x3fff && second < 0x1000;
            first & 0xe000 == 0x2000 && !is_special
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_not_public_are_known() {
        let is = |text: &str| is_public(text.parse().unwrap());
        for public in [
            "8.8.8.8",
            "100.63.0.1",
            "172.32.0.1",
            "2606:4700::1111",
            "2001:4860:4860::8888",
        ] {
            assert!(is(public), "{public}");
        }
        for other in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is(other), "{other}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_labels() {
        let pattern = GrantedHost {
            host: "example.com".to_owned(),
            is_wildcard: true,
            port: 443,
        };
        for (host, port, matches) in [
            ("a.example.com", 443, true),
            ("a.b.example.com", 443, true),
            ("a.example.com", 80, false),
            ("example.com", 443, false),
            (".example.com", 443, false),
            ("anexample.com", 443, false),
            ("a.example.com.evil.test", 443, false),
        ] {
            assert_eq!(pattern.matches(host, port), matches, "{host}:{port}");
        }
    }
}
