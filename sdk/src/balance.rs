//! Choosing peers.

use castling_abi::{PEER_COOLING, PEER_RECORD_BYTES, PEER_TRIED, PeerRecord};

use crate::buffer::{Buffer, read_text};
use crate::host;

pub use castling_abi::PeerOutcome;

/// The peers of the request's upstream, by index. An index means the same peer as long as the instance lives.
#[derive(Debug)]
pub struct Peers {
    /// [`PeerRecord`]s; none when the host has none to hand out.
    records: Option<Buffer>,
    tries: u32,
}

impl Peers {
    /// Asks the host.
    pub(crate) fn read(count: u32, tries: u32) -> Self {
        let expected_bytes = usize::try_from(count)
            .unwrap_or(0)
            .saturating_mul(PEER_RECORD_BYTES);
        Self {
            records: Buffer::read(expected_bytes, host::peers_get).ok(),
            tries,
        }
    }

    /// How many there are: at least one.
    pub fn len(&self) -> usize {
        self.records().len()
    }

    /// Whether there are none, which a host never says.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many peers this request has tried before.
    pub const fn tries(&self) -> u32 {
        self.tries
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
        self.records.as_deref().unwrap_or_default().as_chunks().0
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
        let record = PeerRecord::from_bytes(record);
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
