//! Sheds what is least important when there is too much, and keeps requests in the own zone as long as that has room.
//!
//! ```toml
//! [zones.busy]
//! kind = "gauge"
//! size = "1MiB"
//!
//! [plugins.shed]
//! wasm = "load_shedding.wasm"
//!
//! [plugins.shed.config]
//! permits = "busy"                # the gateway grants what the config names
//! priority = "$http_x_priority"   # of a client that is to be trusted, or `$plan`, which another plugin sets
//! most = { high = 100, low = 60 } # so many requests of a route are under way when this priority is shed
//! otherwise = "low"
//! retry_after = "2s"
//! overflow = "static"             # optional: an upstream in the place of 503
//! zone = "eu-1"                   # tag of the peers that are near
//! spill_at = 16                   # requests of this worker, by weight, that a near peer has when others are asked, too
//!
//! [upstreams.app]
//! balance = { plugin = "shed" }
//! peers = [{ address = "10.0.1.1:80", tags = ["eu-1"] }, { address = "10.0.2.1:80", tags = ["eu-2"] }]
//! ```

use std::collections::BTreeMap;

use castling_sdk::prelude::*;
use castling_sdk::template::Template;
use castling_sdk::units;
use castling_sdk::zones::Gauge;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    permits: Gauge,
    priority: Template,
    most: BTreeMap<String, u32>,
    otherwise: String,
    #[serde(deserialize_with = "units::duration_above_zero")]
    retry_after: Duration,
    #[serde(default)]
    overflow: Option<http::Upstream>,
    zone: String,
    spill_at: u32,
}

struct Shedding {
    config: Config,
    /// Whether a peer is near, by index, which means the same one for as long as the instance lives.
    near: BTreeMap<usize, bool>,
    /// Choices so far: of peers that are alike, each has its turn.
    turn: usize,
}

#[plugin]
impl Shedding {
    fn configure(config: Config) -> Result<Self> {
        if !config.most.contains_key(&config.otherwise) || config.most.values().any(|it| *it == 0) {
            bail!("config.most: expected a number above 0 for each priority, `otherwise` included");
        }
        let (near, turn) = (BTreeMap::new(), 0);
        Ok(Self { config, near, turn })
    }

    /// All priorities count together, so that the lowest is the first that finds no room.
    fn preaccess(&self, request: &mut Request) -> Result<Verdict> {
        let Config {
            permits,
            most,
            otherwise,
            overflow,
            retry_after,
            ..
        } = &self.config;
        let asked =
            String::from_utf8(self.config.priority.expand(request, None)).unwrap_or_default();
        let known = most
            .get_key_value(&asked)
            .or_else(|| most.get_key_value(otherwise));
        let Some((priority, most)) = known else {
            bail!("config.most has no {otherwise}");
        };
        request.set_var("priority", priority);
        // The name of the upstream is not known yet: it is when a peer is chosen.
        let route = request.route().unwrap_or_default();
        if permits.enter(route, *most)?.is_some() {
            return Ok(Verdict::Continue);
        }
        request.set_var("shed", "1");
        Ok(match overflow {
            Some(overflow) => {
                request.set_upstream(overflow);
                Verdict::Continue
            }
            None => {
                let seconds = retry_after.as_secs().max(1).to_string();
                Response::status(503).header("retry-after", seconds).into()
            }
        })
    }

    /// The least loaded of the near peers that have room; if there is none, of all.
    fn balance(&mut self, _: &Request, peers: &Peers) -> Option<usize> {
        self.turn = self.turn.wrapping_add(1);
        let (turn, Config { zone, spill_at, .. }) = (self.turn, &self.config);
        let usable = peers.iter().filter(|peer| !peer.tried && !peer.cooling);
        let best = usable.min_by_key(|peer| {
            let load = u64::from(peer.active) * 1000 / u64::from(peer.weight.max(1));
            let near = self.near.entry(peer.index);
            let is_near = *near.or_insert_with(|| peer.has_tag(zone));
            let is_first = is_near && load < u64::from(*spill_at) * 1000;
            (!is_first, load, (peer.index + turn) % peers.len())
        });
        best.map(|peer| peer.index)
    }
}

#[cfg(test)]
mod tests;
