//! Values by networks, the narrowest of those that an address is in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use castling_sdk::prelude::*;
use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

/// Networks laid flat: pieces of the whole space of addresses, each with the narrowest network that it is in. A search halves them, so that it takes
/// 18 comparisons of numbers for 100,000 networks.
pub(crate) struct Networks {
    v4: Pieces<u32>,
    v6: Pieces<u128>,
}

/// Two lists, for the sake of their alignment.
struct Pieces<A> {
    /// First addresses, sorted.
    starts: Vec<A>,
    /// Numbers of entries; [`NONE`]: of no network.
    entries: Vec<u32>,
}

const NONE: u32 = u32::MAX;

trait Address: Copy + Ord {
    /// The address after this one; `None`: it is the last.
    fn next(self) -> Option<Self>;
}

impl Address for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Address for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Networks {
    /// Networks with the numbers of their entries. The error is of the entry with that number.
    pub(crate) fn new(networks: Vec<(IpNet, u32)>) -> Result<Self, (u32, Error)> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (network, entry) in networks {
            match network {
                IpNet::V4(network) => {
                    v4.push((
                        network.network().to_bits(),
                        network.broadcast().to_bits(),
                        entry,
                    ));
                }
                IpNet::V6(network) => {
                    v6.push((
                        network.network().to_bits(),
                        network.broadcast().to_bits(),
                        entry,
                    ));
                }
            }
        }
        let twice = |entry| (entry, Error::msg("it is there already"));
        Ok(Self {
            v4: Pieces::new(v4).map_err(twice)?,
            v6: Pieces::new(v6).map_err(twice)?,
        })
    }

    /// Reads an address, a network or a range of addresses, which is as many networks as it takes.
    pub(crate) fn parse(text: &str) -> Result<Vec<IpNet>> {
        if let Some((first, last)) = text.split_once('-') {
            let ends = (first.trim().parse(), last.trim().parse());
            match ends {
                (Ok(IpAddr::V4(first)), Ok(IpAddr::V4(last))) if first <= last => {
                    return Ok(of_range_v4(first, last));
                }
                (Ok(IpAddr::V6(first)), Ok(IpAddr::V6(last))) if first <= last => {
                    return Ok(of_range_v6(first, last));
                }
                _ => {}
            }
        }
        let network = text.parse();
        let network = network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match network {
            Ok(network) => Ok(vec![network]),
            Err(_) => bail!(
                "expected an address, a network such as `10.0.0.0/8`, or a range such as `10.0.0.1-10.0.0.9`"
            ),
        }
    }

    pub(crate) fn find(&self, source: &str) -> Option<u32> {
        // An IPv4 address that is written as one of IPv6 is the same.
        match source.trim().parse::<IpAddr>().ok()?.to_canonical() {
            IpAddr::V4(address) => self.v4.find(address.to_bits()),
            IpAddr::V6(address) => self.v6.find(address.to_bits()),
        }
    }
}

fn of_range_v4(first: Ipv4Addr, last: Ipv4Addr) -> Vec<IpNet> {
    Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect()
}

fn of_range_v6(first: Ipv6Addr, last: Ipv6Addr) -> Vec<IpNet> {
    Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect()
}

impl<A: Address> Pieces<A> {
    /// Networks by their first and last addresses: two have no address in common, or one lies in the other. The error is an entry that is there
    /// twice.
    fn new(mut networks: Vec<(A, A, u32)>) -> Result<Self, u32> {
        networks
            .sort_unstable_by_key(|&(first, last, entry)| (first, std::cmp::Reverse(last), entry));
        let mut pieces = Self {
            starts: Vec::with_capacity(networks.len()),
            entries: Vec::with_capacity(networks.len()),
        };
        // Networks that the place is in, the narrowest last.
        let mut around: Vec<(A, A, u32)> = Vec::new();
        for network in networks {
            let (first, last, entry) = network;
            while let Some(&(.., end, _)) = around.last()
                && end < first
            {
                pieces.end(&mut around);
            }
            if let Some(&(start, end, _)) = around.last()
                && (start, end) == (first, last)
            {
                return Err(entry);
            }
            pieces.begin(first, entry);
            around.push(network);
        }
        while !around.is_empty() {
            pieces.end(&mut around);
        }
        pieces.starts.shrink_to_fit();
        pieces.entries.shrink_to_fit();
        Ok(pieces)
    }

    /// Ends the narrowest network: the one around it goes on behind it.
    fn end(&mut self, around: &mut Vec<(A, A, u32)>) {
        let Some((_, end, _)) = around.pop() else {
            return;
        };
        let outer = around.last().map_or(NONE, |(.., entry)| *entry);
        if let Some(next) = end.next() {
            self.begin(next, outer);
        }
    }

    fn begin(&mut self, start: A, entry: u32) {
        // A piece that would end where it begins is none.
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.entries.pop();
        }
        if self.entries.last() != Some(&entry) {
            self.starts.push(start);
            self.entries.push(entry);
        }
    }

    fn find(&self, address: A) -> Option<u32> {
        let after = self.starts.partition_point(|start| *start <= address);
        let entry = *self.entries[..after].last()?;
        (entry != NONE).then_some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Result<Networks, (u32, Error)> {
        let parsed = (0..).zip(texts).flat_map(|(idx, text)| {
            let networks = Networks::parse(text).unwrap();
            networks.into_iter().map(move |network| (network, idx))
        });
        Networks::new(parsed.collect())
    }

    #[test]
    fn the_narrowest_network_counts() {
        let networks = networks(&[
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.255.255",
            "10.2.0.0/16",
            "192.0.2.5-192.0.2.10",
            "2001:db8::/32",
            "2001:db8::1-2001:db8::3",
            "255.255.255.255",
        ])
        .ok()
        .unwrap();
        for (address, expected) in [
            ("10.0.0.1", Some(0)),
            ("10.1.0.0", Some(1)),
            ("10.1.255.254", Some(1)),
            ("10.1.255.255", Some(2)),
            ("10.2.0.0", Some(3)),
            ("10.3.0.0", Some(0)),
            ("10.255.255.255", Some(0)),
            ("11.0.0.0", None),
            ("9.255.255.255", None),
            ("192.0.2.4", None),
            ("192.0.2.5", Some(4)),
            ("192.0.2.10", Some(4)),
            ("192.0.2.11", None),
            ("::ffff:10.1.2.3", Some(1)),
            ("2001:db8::", Some(5)),
            ("2001:db8::2", Some(6)),
            ("2001:db8::4", Some(5)),
            ("2001:db9::", None),
            ("255.255.255.255", Some(7)),
            ("unix:", None),
        ] {
            assert_eq!(networks.find(address), expected, "{address}");
        }
        assert_eq!(networks.v4.starts.len(), networks.v4.entries.len());
    }

    #[test]
    fn any_address_has_what_a_search_through_all_has() {
        // Of few bits, so that networks lie in one another in every way.
        let mut seed = 7_u32;
        let mut random = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) % below
        };
        for _ in 0..200 {
            let mut texts: Vec<String> = (0..20)
                .map(|_| {
                    let bits = 26 + random(7);
                    let network = Ipv4Addr::from_bits(0x0a00_0000 | random(64));
                    let network: IpNet = format!("{network}/{bits}").parse().unwrap();
                    network.trunc().to_string()
                })
                .collect();
            texts.sort();
            texts.dedup();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let flat = networks(&texts).ok().unwrap();
            for low in 0..70 {
                let address = IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 | low));
                let all = (0..)
                    .zip(&texts)
                    .map(|(idx, text)| (idx, text.parse::<IpNet>().unwrap()));
                let narrowest = all
                    .filter(|(_, network)| network.contains(&address))
                    .max_by_key(|(_, network)| network.prefix_len());
                let expected = narrowest.map(|(idx, _)| idx);
                assert_eq!(
                    flat.find(&address.to_string()),
                    expected,
                    "{address} of {texts:?}"
                );
            }
        }
    }

    #[test]
    fn a_network_is_there_once() {
        let (entry, _) = networks(&["10.0.0.0/8", "10.0.0.0/8"]).err().unwrap();
        assert_eq!(entry, 1);
        for bad in ["10.0.0.0/33", "10", "10.0.0.9-10.0.0.1", "10.0.0.1-::1", ""] {
            assert!(Networks::parse(bad).is_err(), "{bad}");
        }
    }
}
