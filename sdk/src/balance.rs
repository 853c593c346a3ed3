//! Choosing peers.

use std::cell::OnceCell;

use castling_abi::{
    DRAWN_PEER_BYTES, DrawnPeer, PEER_COOLING, PEER_RECORD_BYTES, PEER_TRIED, PeerRecord, metric,
};

use crate::buffer::{Buffer, read_text};
use crate::host;

pub use castling_abi::PeerOutcome;

/// The peers of the request's upstream, by index. An index means the same peer as long as the instance lives.
#[derive(Debug)]
pub struct Peers {
    /// [`PeerRecord`]s, once somebody has asked; none when the host has none to hand out.
    records: OnceCell<Option<Buffer>>,
    count: u32,
    tries: u32,
}

impl Peers {
    /// Peers that the host is asked for when the plugin looks at them.
    pub(crate) const fn new(count: u32, tries: u32) -> Self {
        Self {
            records: OnceCell::new(),
            count,
            tries,
        }
    }

    /// How many there are: at least one.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none, which a host never says.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many peers this request has tried before.
    pub const fn tries(&self) -> u32 {
        self.tries
    }

    /// Two peers that the host draws at random, by weight, of those that may be chosen: not tried for this request, not full and, while
    /// others are there, not cooling. The second is `None` where only one may be, all is `None` where none may. Takes the same time for
    /// one peer as for thousands, where [`get`](Self::get) and [`iter`](Self::iter) read the list of all.
    ///
    /// ```
    /// # use castling_sdk::prelude::*;
    /// # use castling_sdk::testing::{Exchange, FakePeer};
    /// fn balance(peers: &Peers) -> Option<usize> {
    ///     let (first, second) = peers.draw_two()?;
    ///     let chosen = second.filter(|second| second.active < first.active).unwrap_or(first);
    ///     Some(chosen.index)
    /// }
    ///
    /// let peers = [FakePeer::at("a:1").active(7), FakePeer::at("b:1").active(2)];
    /// let mut exchange = peers.into_iter().fold(Exchange::get("/"), Exchange::peer);
    /// assert_eq!(balance(&exchange.peers()), Some(1));
    /// ```
    pub fn draw_two(&self) -> Option<(Peer, Option<Peer>)> {
        let mut room = [0; 2 * DRAWN_PEER_BYTES];
        let len = usize::try_from(host::peers_draw(&mut room)).ok()?;
        let (drawn, _) = room.get(..len)?.as_chunks();
        let mut drawn = drawn.iter().map(|bytes| Peer::drawn(*bytes));
        Some((drawn.next()?, drawn.next()))
    }

    /// The peer with this index.
    pub fn get(&self, index: usize) -> Option<Peer> {
        self.records()
            .get(index)
            .map(|record| Peer::new(index, *record))
    }

    /// All, by index.
    pub fn iter(&self) -> impl Iterator<Item = Peer> {
        self.records()
            .iter()
            .enumerate()
            .map(|(index, record)| Peer::new(index, *record))
    }

    fn records(&self) -> &[[u8; PEER_RECORD_BYTES]] {
        let read = || {
            let expected_bytes = self.len().saturating_mul(PEER_RECORD_BYTES);
            Buffer::read(expected_bytes, host::peers_get).ok()
        };
        let records = self.records.get_or_init(read);
        records.as_deref().unwrap_or_default().as_chunks().0
    }
}

/// A peer, as it was when the hook was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Index that `balance` returns to choose this peer. The host chooses another in the place of a peer that is not eligible: one that
    /// was tried, that has left its upstream, or that is cooling while others are not.
    pub index: usize,
    /// From the config, 1 to 65535.
    pub weight: u32,
    /// Requests that this worker has under way there.
    pub active: u32,
    /// Whether it was tried for this request, and failed.
    pub tried: bool,
    /// Whether it failed lately. The host passes it over while a peer is there that has not, whatever `balance` returns.
    pub cooling: bool,
}

impl Peer {
    fn new(index: usize, record: [u8; PEER_RECORD_BYTES]) -> Self {
        Self::of(index, PeerRecord::from_bytes(record))
    }

    fn drawn(bytes: [u8; DRAWN_PEER_BYTES]) -> Self {
        let DrawnPeer { index, record } = DrawnPeer::from_bytes(bytes);
        Self::of(index as usize, record)
    }

    fn of(index: usize, record: PeerRecord) -> Self {
        Self {
            index,
            weight: record.weight,
            active: record.active,
            tried: record.flags & PEER_TRIED != 0,
            cooling: record.flags & PEER_COOLING != 0,
        }
    }

    /// Address and port.
    pub fn address(&self) -> String {
        peer_address(self.index).unwrap_or_default()
    }

    /// The name by which the config lists it, host and port: that of all addresses that the name has. The address itself where it
    /// is listed by that.
    pub fn name(&self) -> String {
        let index = u32::try_from(self.index).unwrap_or(u32::MAX);
        read_text(|out| host::peer_name(index, out)).unwrap_or_default()
    }

    /// Its `tags` in the config, or in the list that it is from. A call of the host; a plugin that asks for none has no cost.
    ///
    /// ```
    /// use castling_sdk::prelude::*;
    /// use castling_sdk::testing::{Exchange, FakePeer};
    ///
    /// #[derive(Default)]
    /// struct Canary;
    ///
    /// #[plugin]
    /// impl Canary {
    ///     fn balance(&self, request: &Request, peers: &Peers) -> Option<usize> {
    ///         let version = request.header("x-version")?;
    ///         peers.iter().find(|peer| peer.has_tag(version.as_str().unwrap_or_default())).map(|peer| peer.index)
    ///     }
    /// }
    ///
    /// let mut exchange = Exchange::get("/").header("x-version", "v2")
    ///     .peer(FakePeer::at("10.0.0.1:80").tags(["v1", "gpu"]))
    ///     .peer(FakePeer::at("10.0.0.2:80").tags(["v2"]).name("app-b.internal:80"));
    /// let peers = exchange.peers();
    /// assert_eq!(Canary.balance(exchange.request(), &peers), Some(1));
    /// assert_eq!(peers.get(0).unwrap().tags(), ["v1", "gpu"]);
    /// assert_eq!(peers.get(1).unwrap().name(), "app-b.internal:80");
    /// ```
    pub fn tags(&self) -> Vec<String> {
        let mut tags = Vec::new();
        self.each_tag(|tag| tags.push(String::from_utf8_lossy(tag).into_owned()));
        tags
    }

    /// Whether it has this tag.
    pub fn has_tag(&self, tag: impl AsRef<str>) -> bool {
        let mut has_it = false;
        self.each_tag(|other| has_it |= other == tag.as_ref().as_bytes());
        has_it
    }

    fn each_tag(&self, visit: impl FnMut(&[u8])) {
        let index = u32::try_from(self.index).unwrap_or(u32::MAX);
        if let Ok(list) = Buffer::read(0, |out| host::peer_tags(index, out)) {
            metric::texts(&list).map_while(Result::ok).for_each(visit);
        }
    }
}

/// Status of the peer's response, in `peer_done` of a try that has [`Responded`](PeerOutcome::Responded), and after it;
/// `None` before, where no response came, and from gateways that do not tell it (0.1.0).
///
/// A peer that answers 503 at once is quick, and no good choice.
pub fn peer_status() -> Option<u16> {
    u16::try_from(host::number_get(castling_abi::Number::UpstreamStatus)).ok()
}

/// Address and port of the peer with this index, in `balance` and `peer_done`; `None` elsewhere.
pub fn peer_address(index: usize) -> Option<String> {
    let index = u32::try_from(index).ok()?;
    read_text(|out| host::peer_address(index, out)).ok()
}

#[cfg(test)]
mod tests {
    use crate::testing::{self, Exchange, FakePeer};

    fn drawn(peers: &[FakePeer], random: [u64; 2]) -> (Option<usize>, Option<usize>) {
        let all = peers.iter().cloned();
        let mut exchange = all.fold(Exchange::get("/"), Exchange::peer);
        testing::script_random(random);
        match exchange.peers().draw_two() {
            Some((first, second)) => (Some(first.index), second.map(|it| it.index)),
            None => (None, None),
        }
    }

    #[test]
    fn a_peer_takes_as_many_places_as_its_weight() {
        let fake = |name: &str, weight| FakePeer::at(name).weight(weight);
        let all = [fake("a:1", 2), fake("b:2", 1), fake("c:3", 3)];
        let firsts: Vec<_> = (0..6)
            .filter_map(|place| drawn(&all, [place, 0]).0)
            .collect();
        assert_eq!(firsts, [0, 0, 1, 2, 2, 2]);
        // The second is one of the others.
        let seconds: Vec<_> = (0..3)
            .filter_map(|place| drawn(&all, [4, place]).1)
            .collect();
        assert_eq!(seconds, [0, 0, 1]);
    }

    #[test]
    fn those_that_may_not_be_chosen_are_not_drawn() {
        let [a, b, c] = ["a:1", "b:2", "c:3"].map(FakePeer::at);
        let (tried, cooling) = (a.tried(), b.cooling());
        assert_eq!(
            drawn(&[tried.clone(), cooling.clone(), c], [0, 0]),
            (Some(2), None)
        );
        assert_eq!(drawn(&[tried.clone(), cooling], [0, 0]), (Some(1), None));
        assert_eq!(drawn(&[tried], [0, 0]), (None, None));
    }
}
