//! Sets of statuses.

use std::ops::RangeInclusive;

use super::StatusSet;
use super::table::Value;
use super::tree::NodeKind;

/// A list of `503`, `"503"`, `"5xx"` and `"200-299"`.
pub(super) fn statuses(value: Value<'_>) -> Option<StatusSet> {
    let item = |item: Value<'_>| match status_range(item) {
        Some(range) => Some(range),
        None => item.expected(RULE),
    };
    Some(value.list(item)?.into_iter().collect())
}

/// An item of such a list. `None`: it is none.
pub(super) fn status_range(item: Value<'_>) -> Option<RangeInclusive<u16>> {
    match item.kind() {
        NodeKind::Integer(integer) => read_statuses(&(*integer)?.to_string()),
        NodeKind::Text(text) => read_statuses(text),
        NodeKind::Float(_)
        | NodeKind::Boolean(_)
        | NodeKind::Datetime(_)
        | NodeKind::List(_)
        | NodeKind::Table(_)
        | NodeKind::Refused => None,
    }
}

/// Statuses of an item's text. `None`: it is none.
pub(super) fn read_statuses(text: &str) -> Option<RangeInclusive<u16>> {
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().ok().filter(|class| (1..=5).contains(class))?;
        return Some(class * 100..=class * 100 + 99);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| {
        let status = text.parse().ok().filter(|_| text.len() == 3);
        status.filter(|it| (100..=599).contains(it))
    };
    let (first, last) = (status(first)?, status(last)?);
    (first <= last).then_some(first..=last)
}

const RULE: &str = "a status such as 503, \"5xx\" or \"200-299\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_ranges_and_single_statuses_are_read() {
        assert_eq!(read_statuses("5xx"), Some(500..=599));
        assert_eq!(read_statuses("200-299"), Some(200..=299));
        assert_eq!(read_statuses("404"), Some(404..=404));
        for text in [
            "", "xx", "6xx", "0xx", "299-200", "99", "600", "200-", "a", "+503", "0503",
        ] {
            assert_eq!(read_statuses(text), None, "{text}");
        }
    }
}
