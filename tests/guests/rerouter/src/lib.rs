//! Sends the paths of its list on to another path and asks for the route again: to itself, if so configured, without end.

use std::collections::BTreeMap;

use castling_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// From path to path.
    paths: BTreeMap<String, String>,
}

struct Rerouter {
    config: Config,
}

#[plugin]
impl Rerouter {
    fn configure(config: Config) -> Result<Self> {
        Ok(Self { config })
    }

    fn rewrite(&self, request: &mut Request) -> Verdict {
        let Some(to) = self.config.paths.get(&request.path()) else {
            return Verdict::Continue;
        };
        request.set_path(to);
        Verdict::Reroute
    }
}
