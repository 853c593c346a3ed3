//! Sets of statuses.

use super::Statuses;
use super::table::Value;
use super::tree::NodeKind;

/// A list of `503`, `"5xx"` and `"200-299"`.
pub(super) fn statuses(value: Value<'_>) -> Option<Statuses> {
    value.list(range).map(Statuses)
}

fn range(value: Value<'_>) -> Option<(u16, u16)> {
    if let NodeKind::Integer(_) = value.kind() {
        return value.integer(100..=599).map(|status| (status, status));
    }
    let text = value.text_or(RULE)?;
    match read(text) {
        Some(range) => Some(range),
        None => value.expected(RULE),
    }
}

fn read(text: &str) -> Option<(u16, u16)> {
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().ok().filter(|class| (1..=5).contains(class))?;
        return Some((class * 100, class * 100 + 99));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| text.parse().ok().filter(|it| (100..=599).contains(it));
    let (first, last) = (status(first)?, status(last)?);
    (first <= last).then_some((first, last))
}

const RULE: &str = "a status such as 503, \"5xx\" or \"200-299\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_ranges_and_single_statuses_are_read() {
        assert_eq!(read("5xx"), Some((500, 599)));
        assert_eq!(read("200-299"), Some((200, 299)));
        assert_eq!(read("404"), Some((404, 404)));
        for text in ["", "xx", "6xx", "0xx", "299-200", "99", "600", "200-", "a"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
