//! Types of a plugin's config that name things of the gateway's config.

use castling_abi::{Grant, Status};
use serde::de::{self, Deserialize, Deserializer};

use crate::buffer::status;
use crate::{host, http, zones};

/// Reads a name of the config that the host grants. Fails at its place in the config.
fn granted<'de, D: Deserializer<'de>>(deserializer: D, grant: Grant) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    match host::config_grant(grant, name.as_bytes()) {
        0 => Ok(name),
        refused => Err(de::Error::custom(refusal(grant, status(refused)))),
    }
}

#[cold]
fn refusal(grant: Grant, status: Status) -> String {
    let what = match grant {
        Grant::Upstream => "an upstream",
        Grant::CounterZone => "a counter zone",
        Grant::KvZone => "a kv zone",
        Grant::GaugeZone => "a gauge zone",
        Grant::Topic => "a topic",
    };
    let why = match status {
        Status::NotNow => "read outside of `configure`",
        status => status.name(),
    };
    format!("{why}; expected {what} of the gateway's config, and of `grants` where that lists any")
}

impl<'de> Deserialize<'de> for http::Upstream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        granted(deserializer, Grant::Upstream).map(Self::named)
    }
}

impl<'de> Deserialize<'de> for zones::Counter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        granted(deserializer, Grant::CounterZone).map(zones::counter)
    }
}

impl<'de> Deserialize<'de> for zones::Kv {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        granted(deserializer, Grant::KvZone).map(zones::kv)
    }
}

impl<'de> Deserialize<'de> for zones::Gauge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        granted(deserializer, Grant::GaugeZone).map(zones::gauge)
    }
}

impl<'de> Deserialize<'de> for zones::Topic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        granted(deserializer, Grant::Topic).map(zones::topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, ZoneFault};

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code, reason = "parsed only")]
    struct Config {
        users: http::Upstream,
        limits: Option<zones::Counter>,
        more: Vec<zones::Kv>,
    }

    #[test]
    fn names_are_resolved_at_their_place() {
        let good = r#"{"users": "a", "limits": "l", "more": ["k", "m"]}"#;
        let config: Config = testing::config(good).unwrap();
        assert_eq!(config.users.name(), "a");
        testing::set_zone_fault("m", Some(ZoneFault::NotGranted));
        let error = testing::config::<Config>(good).unwrap_err().to_string();
        assert_eq!(
            error,
            "config.more[1]: not granted; expected a kv zone of the gateway's config, and of `grants` where that lists any"
        );
    }
}
