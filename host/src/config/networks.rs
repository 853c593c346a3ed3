//! Lists of networks.

use super::table::Value;
use super::tree::NodeKind;
use super::{Cidr, Networks};

/// `["10.0.0.0/8", "2001:db8::1", "unix"]`, at least one.
pub(super) fn networks(value: Value<'_>) -> Option<Networks> {
    if matches!(value.kind(), NodeKind::List(items) if items.is_empty()) {
        return value.expected("at least one network");
    }
    let items = value.set(|item| {
        let text = item.text_or(RULE)?;
        if text == "unix" {
            return Some(None);
        }
        match text.parse::<Cidr>() {
            Ok(cidr) => Some(Some(cidr)),
            Err(Some(why)) => item.expected(why),
            Err(None) => item.expected(RULE),
        }
    })?;
    Some(Networks {
        unix: items.contains(&None),
        cidrs: items.into_iter().flatten().collect(),
    })
}

const RULE: &str = "a network such as \"10.0.0.0/8\", an address, or \"unix\"";
