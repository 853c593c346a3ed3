//! Names of plugins, listeners, upstreams and routes, and references to them.

use std::collections::BTreeMap;

use super::suggest::nearest;
use super::table::{Value, any_of};
use super::tree::NodeKind;

/// Tables that have a name, of all files.
pub(super) struct Named<'a> {
    /// Word for such a table, for messages.
    what: &'static str,
    values: BTreeMap<&'a str, Value<'a>>,
}

impl<'a> Named<'a> {
    pub(super) fn new(what: &'static str) -> Self {
        Self {
            what,
            values: BTreeMap::new(),
        }
    }

    /// Takes up the tables of one file's section; a bad name and one that is taken are refused.
    pub(super) fn add_section(&mut self, section: Value<'a>) {
        let Some(table) = section.table() else { return };
        for value in table.values() {
            let map = value.map();
            if !is_name(value.key()) {
                map.refuse(
                    value.key_place(),
                    format_args!(
                        "{} {:?}: expected a name, {NAME_RULE}",
                        self.what,
                        value.key()
                    ),
                );
            }
            match self.values.get(value.key()) {
                Some(first) => {
                    let first = map.place(first.key_place());
                    map.refuse(
                        value.key_place(),
                        format_args!(
                            "{} {:?} is already defined at {first}",
                            self.what,
                            value.key()
                        ),
                    );
                }
                None => {
                    self.values.insert(value.key(), value);
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        self.values.iter().map(|(name, value)| (*name, *value))
    }

    /// The table of that name.
    pub(super) fn get(&self, name: &str) -> Option<Value<'a>> {
        self.values.get(name).copied()
    }

    /// A reference to one of them.
    pub(super) fn reference(&self, value: Value<'_>) -> Option<String> {
        let name = value.text()?;
        match self.unknown(name) {
            None => Some(name.to_owned()),
            Some(why) => value.refuse(why),
        }
    }

    /// Name of a zone that the value is, which must be of this kind.
    pub(super) fn reference_of_kind(&self, value: Value<'_>, kind: &str) -> Option<String> {
        let name = self.reference(value)?;
        let zone = self.get(&name)?;
        // A kind that is missing or is none is refused where the zone is read.
        let is_other = zone.node().entries().iter().any(|entry| {
            entry.key == "kind"
                && matches!(&entry.value.kind, NodeKind::Text(own) if own.as_str() != kind)
        });
        match is_other {
            false => Some(name),
            true => value.expected(format_args!("the name of a zone of kind \"{kind}\"")),
        }
    }

    /// A reference by the key in front of the value.
    pub(super) fn reference_key(&self, value: Value<'_>) -> Option<String> {
        match self.unknown(value.key()) {
            None => Some(value.key().to_owned()),
            Some(why) => {
                value.map().refuse(value.key_place(), why);
                None
            }
        }
    }

    /// Why there is none of that name.
    fn unknown(&self, name: &str) -> Option<String> {
        if self.values.contains_key(name) {
            return None;
        }
        let what = self.what;
        let names = || self.values.keys().copied();
        // Comparing with many, for each of many, would take minutes.
        let similar = (self.values.len() <= MAX_COMPARED)
            .then(|| nearest(name, names()))
            .flatten();
        let hint = match similar {
            Some(near) => format!("did you mean {near:?}?"),
            None if self.is_empty() => format!("no {what} is defined"),
            None if self.values.len() <= MAX_LISTED => format!(
                "expected {}",
                any_of(names().map(|name| format!("{name:?}")))
            ),
            None => format!("expected one of {} that are defined", self.values.len()),
        };
        Some(format!("unknown {what} {name:?}: {hint}"))
    }
}

/// `[A-Za-z0-9_.-]{1,64}`.
pub(super) fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

/// Rule of [`is_name`], for messages.
pub(super) const NAME_RULE: &str = "1 to 64 of A-Z a-z 0-9 _ . -";

/// Most names that a message lists.
const MAX_LISTED: usize = 8;

/// Most names among which a similar one is looked for.
const MAX_COMPARED: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        assert!(is_name("token-auth_2.x"));
        for bad in ["", "a b", "ä", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
