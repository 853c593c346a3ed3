//! Values by networks, the narrowest of those that an address is in.

use std::cmp::Reverse;
use std::net::IpAddr;

use castling_sdk::prelude::*;
use ipnet::IpNet;

/// Networks and ranges laid flat: pieces of the whole space of addresses, each with the narrowest that it is in, at most two and one more than there are
/// networks. A search halves them, so that it takes 18 comparisons of numbers for 100,000 networks.
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

/// A network's or a range's first and last address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    V4(u32, u32),
    V6(u128, u128),
}

/// Spans with the numbers of their entries: 12 bytes for one of IPv4, 48 for one of IPv6.
#[derive(Default)]
pub(crate) struct Spans {
    v4: Vec<(u32, u32, u32)>,
    v6: Vec<(u128, u128, u32)>,
}

/// Why an entry has no place among the others.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Clash {
    /// The entry has the addresses of another one.
    Twice(u32),
    /// The first has some addresses of the second and others beside, so that neither is the narrower.
    Partly(u32, u32),
}

impl Networks {
    pub(crate) fn new(spans: Spans) -> Result<Self, Clash> {
        Ok(Self {
            v4: Pieces::new(spans.v4)?,
            v6: Pieces::new(spans.v6)?,
        })
    }

    pub(crate) fn find(&self, source: &str) -> Option<u32> {
        // An IPv4 address that is written as one of IPv6 is the same.
        match source.trim().parse::<IpAddr>().ok()?.to_canonical() {
            IpAddr::V4(address) => self.v4.find(address.to_bits()),
            IpAddr::V6(address) => self.v6.find(address.to_bits()),
        }
    }
}

impl Spans {
    pub(crate) fn add(&mut self, span: Span, entry: u32) {
        match span {
            Span::V4(first, last) => self.v4.push((first, last, entry)),
            Span::V6(first, last) => self.v6.push((first, last, entry)),
        }
    }
}

impl Span {
    /// Reads an address, a network or a range of addresses. One that is of IPv4, but written in IPv6, is of IPv4.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let span = match text.split_once('-') {
            Some((first, last)) => {
                let ends = (first.trim().parse(), last.trim().parse());
                ends.0.ok().zip(ends.1.ok())
            }
            None => {
                let network = text.parse::<IpNet>().ok();
                let network = network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
                network.map(|network| (network.network(), network.broadcast()))
            }
        };
        match span.map(|(first, last)| (first.to_canonical(), last.to_canonical())) {
            Some((IpAddr::V4(first), IpAddr::V4(last))) if first <= last => {
                Ok(Self::V4(first.to_bits(), last.to_bits()))
            }
            Some((IpAddr::V6(first), IpAddr::V6(last))) if first <= last => {
                Ok(Self::V6(first.to_bits(), last.to_bits()))
            }
            _ => bail!(
                "expected an address, a network such as `10.0.0.0/8`, or a range such as `10.0.0.1-10.0.0.9`"
            ),
        }
    }
}

impl<A: Address> Pieces<A> {
    /// Networks by their first and last addresses: two have no address in common, or one lies in the other.
    fn new(mut networks: Vec<(A, A, u32)>) -> Result<Self, Clash> {
        networks.sort_unstable_by_key(|&(first, last, entry)| (first, Reverse(last), entry));
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
            match around.last() {
                Some(&(start, end, _)) if (start, end) == (first, last) => {
                    return Err(Clash::Twice(entry));
                }
                // The span begins within the other one, and ends outside.
                Some(&(_, end, other)) if last > end => return Err(Clash::Partly(entry, other)),
                Some(_) | None => {}
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

    fn networks(texts: &[&str]) -> Result<Networks, Clash> {
        let mut spans = Spans::default();
        for (entry, text) in (0..).zip(texts) {
            spans.add(Span::parse(text).unwrap(), entry);
        }
        Networks::new(spans)
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
    fn a_range_competes_as_a_whole() {
        let narrow = networks(&["10.0.0.0/29", "10.0.0.0-10.0.0.9", "10.0.0.4-10.0.0.6"]);
        let narrow = narrow.ok().unwrap();
        let of = |address| narrow.find(address).unwrap();
        assert_eq!(
            (
                of("10.0.0.3"),
                of("10.0.0.5"),
                of("10.0.0.7"),
                of("10.0.0.8")
            ),
            (0, 2, 0, 1)
        );
        let nearly = networks(&["10.0.0.0-10.0.0.254", "10.0.0.0/25", "10.0.0.128"]);
        let nearly = nearly.ok().unwrap();
        let of = |address| nearly.find(address);
        assert_eq!(
            (
                of("10.0.0.127"),
                of("10.0.0.128"),
                of("10.0.0.254"),
                of("10.0.0.255")
            ),
            (Some(1), Some(2), Some(0), None)
        );
    }

    #[test]
    fn ipv4_in_ipv6_is_ipv4() {
        for (text, expected) in [
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1-::ffff:192.0.2.9", "192.0.2.1-192.0.2.9"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
        ] {
            assert_eq!(
                Span::parse(text).unwrap(),
                Span::parse(expected).unwrap(),
                "{text}"
            );
        }
        let all = networks(&["::/0"]).ok().unwrap();
        assert_eq!(
            (all.find("192.0.2.1"), all.find("2001:db8::1")),
            (None, Some(0))
        );
    }

    #[test]
    fn a_hundred_thousand_ranges_take_two_pieces_each_at_most() {
        let mut seed = 7_u32;
        let mut random = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 16
        };
        let (mut next, mut spans) = (0, Spans::default());
        for entry in 0..100_000 {
            let first = next + random() % 20_000;
            let last = first + random() % 20_000;
            next = last + 2;
            spans.add(Span::V4(first, last), entry);
        }
        let networks = Networks::new(spans).ok().unwrap();
        assert!(networks.v4.starts.len() <= 200_001);
        assert_eq!(networks.v4.starts.capacity(), networks.v4.starts.len());
    }

    #[test]
    fn any_address_has_what_a_search_through_all_has() {
        // Few numbers make ranges lie in one another in every way.
        let mut seed = 7_u32;
        let mut random = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) % below
        };
        let (mut flat, mut refused) = (0, 0);
        for _ in 0..2_000 {
            let spans: Vec<(u32, u32)> = (0..1 + random(6))
                .map(|_| {
                    let first = random(24);
                    let most = 1 + random(24);
                    (first, first + random(most))
                })
                .collect();
            let mut numbered = Spans::default();
            for (entry, (first, last)) in (0..).zip(&spans) {
                numbered.add(Span::V4(*first, *last), entry);
            }
            let is_partly = |one: &(u32, u32), other: &(u32, u32)| {
                one.0 < other.0 && other.0 <= one.1 && one.1 < other.1
            };
            let networks = match Networks::new(numbered) {
                Ok(networks) => networks,
                Err(Clash::Twice(entry)) => {
                    let it = spans[entry as usize];
                    assert!(
                        spans.iter().filter(|other| **other == it).count() > 1,
                        "{spans:?}"
                    );
                    refused += 1;
                    continue;
                }
                Err(Clash::Partly(entry, other)) => {
                    let (it, other) = (spans[entry as usize], spans[other as usize]);
                    assert!(is_partly(&other, &it), "{spans:?}");
                    refused += 1;
                    continue;
                }
            };
            flat += 1;
            for address in 0..50_u32 {
                let all = (0..).zip(&spans);
                let around = all.filter(|(_, (first, last))| (*first..=*last).contains(&address));
                let narrowest = around.min_by_key(|(_, (first, last))| last - first);
                let expected = narrowest.map(|(entry, _)| entry);
                assert_eq!(
                    networks.v4.find(address),
                    expected,
                    "{address} of {spans:?}"
                );
            }
        }
        assert!(flat > 200 && refused > 200, "{flat}, {refused}");
    }

    #[test]
    fn a_network_is_there_once_and_lies_within_another_or_beside_it() {
        for (texts, expected) in [
            (["10.0.0.0/8", "10.0.0.0/8"], Clash::Twice(1)),
            (["10.0.0.0/25", "10.0.0.0-10.0.0.127"], Clash::Twice(1)),
            (
                ["10.0.0.5-10.0.0.9", "10.0.0.0-10.0.0.5"],
                Clash::Partly(0, 1),
            ),
            (
                ["2001:db8::/32", "2001:db8::9-2001:db9::"],
                Clash::Partly(1, 0),
            ),
        ] {
            assert_eq!(networks(&texts).err(), Some(expected), "{texts:?}");
        }
        for bad in [
            "10.0.0.0/33",
            "10",
            "10.0.0.9-10.0.0.1",
            "10.0.0.1-::1",
            "10.0.0.1-",
            "",
        ] {
            assert!(Span::parse(bad).is_err(), "{bad}");
        }
    }
}
