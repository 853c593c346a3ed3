//! Bounds the requests that are under way at a time, by a key: of all workers, in a gauge zone.
//!
//! README.md has the config.

use castling_sdk::metrics::Counter;
use castling_sdk::prelude::*;
use castling_sdk::template::Template;
use castling_sdk::units;
use castling_sdk::zones::Gauge;

/// The plugin's config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the permits are counted.
    zone: Gauge,
    /// Key that is counted for itself. A request without a key, where all variables are empty, is not bounded. Default `$client_address`.
    #[serde(default = "client")]
    key: Template,
    /// Requests of one key at a time. At least 1.
    max: u32,
    /// Status of the others. Default 503.
    #[serde(default = "unavailable")]
    status: u16,
    /// `Retry-After` of the others. Default 1 s.
    #[serde(default = "second", deserialize_with = "units::duration_above_zero")]
    retry_after: Duration,
    /// Report alone: nobody is refused, and the log tells who would be. Default false.
    #[serde(default)]
    report_only: bool,
}

/// The plugin.
pub struct Concurrency {
    config: Config,
    refused: Counter,
}

#[plugin]
impl Concurrency {
    fn configure(config: Config) -> Result<Self> {
        if config.max == 0 {
            bail!("config.max: expected 1 or more");
        }
        if !(400..=599).contains(&config.status) {
            bail!("config.status: {}: expected 400 to 599", config.status);
        }
        if !config.key.is_of_request() {
            bail!(
                "config.key: it is not known before a peer is chosen: expected variables of the request"
            );
        }
        let refused = Counter::new("refused_total", "Requests beyond `max` of their key.", [])?;
        Ok(Self { config, refused })
    }

    fn preaccess(&self, request: &mut Request) -> Result<Verdict> {
        let config = &self.config;
        let mut key = Vec::new();
        if !config.key.expand_into(&mut key, request, None) || key.is_empty() {
            return Ok(Verdict::Continue);
        }
        // The permit ends with the request.
        match config.zone.enter(&key, config.max) {
            Ok(Some(_)) => return Ok(Verdict::Continue),
            Ok(None) => self.refused.inc(),
            // The zone is full of keys that have requests under way: those of others are let pass.
            Err(error) if error.is_full() => {
                log::warn!("not counted: {error}");
                return Ok(Verdict::Continue);
            }
            Err(error) => return Err(error),
        }
        if config.report_only {
            log::warn!(key = String::from_utf8_lossy(&key); "would be refused: {} are under way", config.max);
            return Ok(Verdict::Continue);
        }
        let seconds = config.retry_after.as_secs().max(1);
        Ok(Response::status(config.status)
            .header("retry-after", seconds.to_string())
            .into())
    }
}

fn client() -> Template {
    "$client_address".parse().unwrap_or_default()
}

fn unavailable() -> u16 {
    503
}

fn second() -> Duration {
    Duration::from_secs(1)
}

#[cfg(test)]
mod tests {
    use castling_sdk::testing::{self, Exchange};

    use super::*;

    fn plugin(config: &str) -> Concurrency {
        Concurrency::configure(testing::config(config).unwrap()).unwrap()
    }

    fn status(plugin: &Concurrency, exchange: &mut Exchange) -> Option<u16> {
        match plugin.preaccess(exchange.request()).unwrap() {
            Verdict::Answer(response) => Some(response.status_code()),
            _ => None,
        }
    }

    #[test]
    fn so_many_are_under_way_and_the_next_is_let_in_when_one_has_ended() {
        let plugin = plugin(r#"{"zone": "z", "key": "$http_x_user", "max": 2}"#);
        let exchange = |user: &str| Exchange::get("/").header("x-user", user);
        let [mut one, mut two, mut three] = ["ada"; 3].map(exchange);
        let mut other = exchange("bob");
        assert_eq!(status(&plugin, &mut one), None);
        assert_eq!(status(&plugin, &mut two), None);
        assert_eq!(status(&plugin, &mut three), Some(503));
        assert_eq!(status(&plugin, &mut other), None);
        drop(one);
        assert_eq!(status(&plugin, &mut three), None);
        assert_eq!(
            status(&plugin, &mut Exchange::get("/")),
            None,
            "it has no key"
        );
    }

    #[test]
    fn who_would_be_refused_is_told() {
        let plugin = plugin(r#"{"zone": "told", "max": 1, "report_only": true}"#);
        let [mut one, mut two] = [(); 2].map(|()| Exchange::get("/"));
        assert_eq!(status(&plugin, &mut one), None);
        assert_eq!(status(&plugin, &mut two), None);
        let lines = testing::take_log();
        assert!(
            lines[0].1.starts_with("would be refused: 1 are under way"),
            "{lines:?}"
        );
    }

    #[test]
    fn a_config_without_sense_is_refused() {
        for (config, error) in [
            (
                r#"{"zone": "z", "max": 0}"#,
                "config.max: expected 1 or more",
            ),
            (
                r#"{"zone": "z", "max": 1, "status": 200}"#,
                "config.status: 200: expected 400 to 599",
            ),
            (
                r#"{"zone": "z", "max": 1, "key": "$upstream"}"#,
                "config.key: it is not known before a peer is chosen",
            ),
        ] {
            let refused = testing::config(config)
                .and_then(Concurrency::configure)
                .err();
            let refused = refused.map(|error| error.to_string()).unwrap_or_default();
            assert!(refused.contains(error), "{config}: {refused}");
        }
    }
}
