//! Durations and sizes in a plugin's config, as people write them.
//!
//! ```
//! use castling_sdk::prelude::*;
//! use castling_sdk::units;
//!
//! #[derive(Deserialize)]
//! struct Config {
//!     #[serde(deserialize_with = "units::duration")]
//!     timeout: Duration,
//!     #[serde(deserialize_with = "units::size")]
//!     limit: usize,
//! }
//!
//! let config: Config = castling_sdk::testing::config(r#"{"timeout": "1m 30s", "limit": "64KiB"}"#)?;
//! assert_eq!(config.timeout, Duration::from_secs(90));
//! assert_eq!(config.limit, 65536);
//! # Ok::<(), Error>(())
//! ```

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use serde::de::{self, Deserializer, Unexpected, Visitor};

/// `"10s"`, `"500ms"`, `"1m 30s"`, or a number of seconds.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_any(DurationVisitor { may_be_zero: true })
}

/// Reads a duration as [`duration`] does; it is more than zero.
pub fn duration_above_zero<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    deserializer.deserialize_any(DurationVisitor { may_be_zero: false })
}

/// Bytes: `"64KiB"` (1024), `"10MB"` (1000), or a number.
pub fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    deserializer.deserialize_any(SizeVisitor)
}

struct DurationVisitor {
    may_be_zero: bool,
}

impl DurationVisitor {
    fn check<E: de::Error>(
        self,
        duration: Option<Duration>,
        given: Unexpected<'_>,
    ) -> Result<Duration, E> {
        duration
            .filter(|duration| self.may_be_zero || !duration.is_zero())
            .ok_or_else(|| E::invalid_value(given, &self))
    }
}

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = if self.may_be_zero { "" } else { " above zero" };
        write!(
            f,
            "a duration{least}: \"10s\", \"500ms\" or a number of seconds"
        )
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        let duration = humantime::parse_duration(text).ok();
        self.check(duration, Unexpected::Str(text))
    }

    fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Duration, E> {
        let duration = Duration::try_from_secs_f64(seconds).ok();
        self.check(duration, Unexpected::Float(seconds))
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Duration, E> {
        let duration = Some(Duration::from_secs(seconds));
        self.check(duration, Unexpected::Unsigned(seconds))
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size: \"64KiB\", \"10MB\" or a number of bytes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<usize, E> {
        text.parse::<ByteSize>()
            .ok()
            .and_then(|size| usize::try_from(size.as_u64()).ok())
            .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<usize, E> {
        usize::try_from(bytes).map_err(|_| E::invalid_value(Unexpected::Unsigned(bytes), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Wait(#[serde(deserialize_with = "duration")] Duration);

    #[derive(Debug, PartialEq, Deserialize)]
    struct Timeout(#[serde(deserialize_with = "duration_above_zero")] Duration);

    #[derive(Debug, PartialEq, Deserialize)]
    struct Room(#[serde(deserialize_with = "size")] usize);

    #[test]
    fn durations_are_texts_or_seconds() {
        for (json, millis) in [
            (r#""10s""#, 10_000),
            (r#""500ms""#, 500),
            ("2", 2_000),
            ("0.25", 250),
        ] {
            let wait = serde_json::from_str::<Wait>(json).unwrap();
            assert_eq!(wait, Wait(Duration::from_millis(millis)), "{json}");
        }
        for bad in [r#""10""#, r#""soon""#, "-1", "-0.5", "1e99", "[]", r#""""#] {
            let error = serde_json::from_str::<Wait>(bad).unwrap_err().to_string();
            assert!(
                error.contains("expected a duration: \"10s\""),
                "{bad}: {error}"
            );
        }
    }

    #[test]
    fn some_durations_are_above_zero() {
        assert_eq!(
            serde_json::from_str::<Wait>("0").unwrap(),
            Wait(Duration::ZERO)
        );
        let timeout = serde_json::from_str::<Timeout>("1").unwrap();
        assert_eq!(timeout, Timeout(Duration::from_secs(1)));
        for bad in ["0", "0.0", r#""0s""#] {
            let error = serde_json::from_str::<Timeout>(bad)
                .unwrap_err()
                .to_string();
            assert!(error.contains("a duration above zero: \"10s\""), "{error}");
        }
    }

    #[test]
    fn sizes_are_texts_or_bytes() {
        for (json, bytes) in [
            (r#""64KiB""#, 65_536),
            (r#""10MB""#, 10_000_000),
            ("512", 512),
        ] {
            assert_eq!(
                serde_json::from_str::<Room>(json).unwrap(),
                Room(bytes),
                "{json}"
            );
        }
        for bad in [r#""64 apples""#, "-1", "0.5", "{}"] {
            let error = serde_json::from_str::<Room>(bad).unwrap_err().to_string();
            assert!(
                error.contains("expected a size: \"64KiB\""),
                "{bad}: {error}"
            );
        }
    }
}
