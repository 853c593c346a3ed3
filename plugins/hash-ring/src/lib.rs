//! Balances by consistent hashing: requests with the same key go to the same peer, and when a peer comes or goes, only its
//! own keys move. Loads can be bounded (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads",
//! 2016).
//!
//! README.md has the config.

mod load;
mod ring;

use castling_sdk::prelude::*;
use castling_sdk::template::Template;

use load::Load;
use ring::Ring;

/// The plugin's config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Requests with the same key go to the same peer.
    key: Template,
    /// Percent of the average load that one peer may carry, at least 100; 0: no bound. Default 0.
    #[serde(default)]
    balance_factor: u32,
    /// Points on the ring for each unit of weight, 1 to 10000. Default 160.
    #[serde(default = "ketama_points")]
    points: u32,
}

/// The plugin.
pub struct HashRing {
    config: Config,
    /// `None` until the peers are known.
    ring: Option<Ring>,
    /// Key of the last request; its memory is used again.
    key: Vec<u8>,
}

#[plugin]
impl HashRing {
    fn configure(config: Config) -> Result<Self> {
        if config.key.needs_response() {
            bail!("config.key: it speaks of the response, which is not there yet");
        }
        if !matches!(config.balance_factor, 0 | 100..) {
            bail!(
                "config.balance_factor: {}: expected a percentage of 100 or more, or 0 for no bound",
                config.balance_factor
            );
        }
        if !(1..=10_000).contains(&config.points) {
            bail!("config.points: {}: expected 1 to 10000", config.points);
        }
        Ok(Self {
            config,
            ring: None,
            key: Vec::new(),
        })
    }

    fn balance(&mut self, request: &Request, peers: &Peers) -> Option<usize> {
        let Config {
            key,
            balance_factor,
            points,
        } = &self.config;
        self.key.clear();
        key.expand_into(&mut self.key, request, None);
        // Nothing to keep together: round robin.
        if self.key.is_empty() {
            return None;
        }
        let bound = (*balance_factor > 0).then(|| u64::from(*balance_factor));
        let load = Load::of(peers, bound);
        let ring = self.ring.get_or_insert_with(|| Ring::new(peers, *points));
        ring.walk(&self.key)
            .find(|&idx| peers.get(idx).is_some_and(|peer| load.admits(&peer)))
    }
}

/// Points of a peer that ketama has, which make shares differ by less than a tenth mostly.
const fn ketama_points() -> u32 {
    160
}

#[cfg(test)]
mod tests;
