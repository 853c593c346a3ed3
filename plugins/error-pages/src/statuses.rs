//! Statuses that a page is for.

use std::ops::RangeInclusive;

use castling_sdk::prelude::*;

/// Statuses and ranges of them.
pub(crate) struct Statuses(Vec<RangeInclusive<u16>>);

/// A status of the config: `404`, `"5xx"` or `"500-504"`.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum StatusConfig {
    Number(u16),
    Text(String),
}

impl Statuses {
    pub(crate) fn new(config: &[StatusConfig]) -> Result<Self> {
        if config.is_empty() {
            bail!("status: expected at least one");
        }
        config.iter().map(range).collect::<Result<_>>().map(Self)
    }

    pub(crate) fn has(&self, status: u16) -> bool {
        // RFC 9110 §15.4.5: a 304 is about what the client has, and has no body.
        status != 304 && self.0.iter().any(|range| range.contains(&status))
    }
}

fn range(config: &StatusConfig) -> Result<RangeInclusive<u16>> {
    let text = match config {
        StatusConfig::Number(status) => status.to_string(),
        StatusConfig::Text(text) => text.clone(),
    };
    let range = match text.strip_suffix("xx") {
        Some(class) => {
            let class = class.parse::<u16>().ok();
            class.map(|class| {
                class.saturating_mul(100)..=class.saturating_mul(100).saturating_add(99)
            })
        }
        None => {
            let (first, last) = text.split_once('-').unwrap_or((&text, &text));
            let ends = (first.parse(), last.parse());
            match ends {
                (Ok(first), Ok(last)) => Some(first..=last),
                _ => None,
            }
        }
    };
    let is_error = |range: &RangeInclusive<u16>| {
        range.start() <= range.end()
            && *range.start() >= 300
            && *range.end() <= 599
            && *range != (304..=304)
    };
    match range.filter(is_error) {
        Some(range) => Ok(range),
        None => bail!(
            "status `{text}`: expected one of 300 to 599 but 304, a class such as \"5xx\", or a range such as \"500-504\""
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_numbers_classes_and_ranges() {
        let text = |text: &str| StatusConfig::Text(text.to_owned());
        let statuses = [
            StatusConfig::Number(404),
            text("5xx"),
            text("409-411"),
            text("3xx"),
        ];
        let statuses = Statuses::new(&statuses).unwrap();
        for (status, expected) in [
            (404, true),
            (403, false),
            (500, true),
            (599, true),
            (409, true),
            (412, false),
            (301, true),
            (304, false),
            (200, false),
        ] {
            assert_eq!(statuses.has(status), expected, "{status}");
        }
        for bad in [
            "", "4x", "xx", "2xx", "6xx", "304", "504-500", "99-500", "70000", "655xx",
        ] {
            assert!(Statuses::new(&[text(bad)]).is_err(), "{bad}");
        }
    }
}
