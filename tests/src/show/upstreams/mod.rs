//! Upstreams: peers that die, that share requests out, that are overloaded, whose names change, that are probed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Progress, Report};

mod asks;
mod fleet;
mod gateway;
mod killed;
mod names;
mod open_load;
mod overload;
mod peer;
mod plot;
mod prober;
mod shares;
mod tally;
mod thousand;

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Only this part, if any.
    pub part: Option<u64>,
    /// Load runs for so long where a part says nothing else.
    pub lasts: Duration,
    /// Requests a second of the clients, where a part says nothing else.
    pub rate: u32,
    /// Claims of times are made, too: those that a machine with other work would not keep.
    pub claims_times: bool,
    /// Requests, or keys, that shares are counted over.
    pub requests: usize,
    /// Peers of the upstream that has many.
    pub peers: usize,
    /// Most memory of a worker for each of them.
    pub peer_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            part: None,
            lasts: Duration::from_secs(60),
            rate: 1000,
            claims_times: true,
            requests: 20_000,
            peers: 1000,
            peer_bytes: 4096,
        }
    }
}

/// A part of the show, by its number.
type Part = fn(&Options, &mut Report, &mut Progress);

const PARTS: [(u64, Part); 5] = [
    (1, killed::run),
    (2, shares::run),
    (3, overload::run),
    (4, names::run),
    (5, prober::run),
];

/// Runs the parts that are asked for. Plots are left in the folder that `CASTLING_PLOTS` names, if it does.
pub fn run(options: &Options, progress: &mut Progress) -> Report {
    let mut report =
        Report::new("Upstreams: what a gateway does for peers that fail, and for their clients");
    for (number, part) in PARTS {
        if options.part.is_none_or(|only| only == number) {
            part(options, &mut report, progress);
        }
    }
    report
}

/// A number from 0 to below 1: splitmix64, of a count.
fn random() -> f64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut z = COUNT.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// The config of a gateway with these peers and keys of its upstream, and more tables.
fn config(peers: &[peer::Peer], keys: &str, tables: &str) -> String {
    let peers: Vec<String> = peers
        .iter()
        .map(|peer| format!("\"{}\"", peer.address))
        .collect();
    format!(
        r#"
        [workers]
        count = 2

        [access_log]
        file = "off"

        [listeners.web]
        bind = "{{listen}}"

        [[routes]]
        upstream = "app"

        {tables}

        [upstreams.app]
        peers = [{}]
        {keys}
        "#,
        peers.join(", ")
    )
}
