//! Durations and sizes, as people write them.

use std::ops::RangeInclusive;
use std::time::Duration;

/// `"5s"`, `"1m 30s"`, `"250ms"`; `None` where it is no duration.
pub(super) fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

/// `"16MiB"` (1024), `"10MB"` (1000), `"512"`: bytes; `None` where it is no size.
pub(super) fn size_bytes(text: &str) -> Option<u64> {
    text.parse::<bytesize::ByteSize>()
        .ok()
        .map(|size| size.as_u64())
}

/// `1ms to 30days`.
pub(super) fn duration_range(range: &RangeInclusive<Duration>) -> String {
    let text = |duration: &Duration| humantime::format_duration(*duration).to_string();
    format!("{} to {}", text(range.start()), text(range.end()))
}

/// `64KiB to 64MiB`.
pub(super) fn size_range(range: &RangeInclusive<u64>) -> String {
    format!(
        "{} to {}",
        size_text(*range.start()),
        size_text(*range.end())
    )
}

fn size_text(bytes: u64) -> String {
    let unit = UNITS
        .iter()
        .find(|(size, _)| bytes >= *size && bytes.is_multiple_of(*size));
    match unit {
        Some((size, name)) => format!("{}{name}", bytes / size),
        None => bytes.to_string(),
    }
}

const UNITS: [(u64, &str); 4] = [
    (1 << 40, "TiB"),
    (1 << 30, "GiB"),
    (1 << 20, "MiB"),
    (1 << 10, "KiB"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("5s"), Some(Duration::from_secs(5)));
        assert_eq!(duration("1m 30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("0"), Some(Duration::ZERO));
        assert_eq!(duration("5"), None);
        assert_eq!(duration("-5s"), None);
        assert_eq!(duration("99999999999999999999s"), None);
    }

    #[test]
    fn sizes_know_both_kinds_of_units() {
        assert_eq!(size_bytes("16MiB"), Some(16 << 20));
        assert_eq!(size_bytes("64 KiB"), Some(64 << 10));
        assert_eq!(size_bytes("10MB"), Some(10_000_000));
        assert_eq!(size_bytes("512"), Some(512));
        assert_eq!(size_bytes("1.5KiB"), Some(1536));
        assert_eq!(size_bytes("16 apples"), None);
        assert_eq!(size_bytes(""), None);
    }

    #[test]
    fn ranges_are_written_in_whole_units() {
        assert_eq!(size_range(&(64 << 10..=64 << 20)), "64KiB to 64MiB");
        assert_eq!(size_range(&(0..=1500)), "0 to 1500");
        assert_eq!(
            duration_range(&(Duration::from_millis(1)..=Duration::from_secs(60))),
            "1ms to 1m"
        );
    }
}
