//! Reads tables and values of the config: a wrong one is recorded with its place, and reading goes on, so that one run
//! reports everything.

use std::collections::HashSet;
use std::fmt::{Display, Write as _};
use std::hash::Hash;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::PlacedPath;
use super::place::{Place, SourceMap};
use super::suggest::nearest;
use super::tree::{Entry, Node, NodeKind};
use super::units;

/// A value under a key.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    map: &'a SourceMap,
    file_idx: usize,
    /// The key in front of it; of a list's item, the list's.
    key: &'a str,
    /// Offset of `key`.
    key_offset: usize,
    node: &'a Node,
}

/// A table whose keys are asked for one by one; [`Self::finish`] refuses those that nobody asked for.
#[derive(Clone)]
pub(super) struct Table<'a> {
    map: &'a SourceMap,
    file_idx: usize,
    node: &'a Node,
    known_keys: Vec<&'static str>,
}

/// Each reader returns `None` where the value is wrong, and has recorded it then.
impl<'a> Value<'a> {
    pub(super) fn key(self) -> &'a str {
        self.key
    }

    /// Place of the value; of a `[table]`, its header's.
    pub(super) fn place(self) -> Place {
        Place {
            file_idx: self.file_idx,
            offset: self.node.span.start,
        }
    }

    /// Place of the key.
    pub(super) fn key_place(self) -> Place {
        Place {
            file_idx: self.file_idx,
            offset: self.key_offset,
        }
    }

    /// `FILE:LINE:COLUMN`.
    pub(super) fn place_text(self) -> String {
        self.map.place(self.place())
    }

    pub(super) fn node(self) -> &'a Node {
        self.node
    }

    /// `node` lies somewhere inside this value.
    pub(super) fn within(self, node: &'a Node) -> Self {
        Self { node, ..self }
    }

    pub(super) fn map(self) -> &'a SourceMap {
        self.map
    }

    pub(super) fn kind(self) -> &'a NodeKind {
        &self.node.kind
    }

    /// Records `message` at the value's place, unless the value was refused before.
    pub(super) fn refuse<T>(self, message: impl Display) -> Option<T> {
        let refused_before = matches!(self.node.kind, NodeKind::Refused);
        if !refused_before {
            self.map.refuse(self.place(), message);
        }
        None
    }

    /// Records `KEY VALUE: expected WHAT`.
    pub(super) fn expected<T>(self, what: impl Display) -> Option<T> {
        self.refuse(format_args!(
            "{} {}: expected {what}",
            self.key.escape_debug(),
            self.shown()
        ))
    }

    /// Reads the value where the key means something at all, and refuses it elsewhere; `what` names where it does.
    pub(super) fn only_where<T>(
        self,
        is_so: bool,
        what: &str,
        read: impl FnOnce(Self) -> Option<T>,
    ) -> Option<T> {
        match is_so {
            true => read(self),
            false => self.refuse(format_args!(
                "{} is for bind = {what}: expected none here",
                self.key
            )),
        }
    }

    pub(super) fn text(self) -> Option<&'a str> {
        self.text_or("a string")
    }

    /// A text; `what` is expected where it is something else.
    pub(super) fn text_or(self, what: &str) -> Option<&'a str> {
        let NodeKind::Text(text) = &self.node.kind else {
            return self.expected(what);
        };
        Some(text)
    }

    /// A text that is not empty and has no control characters, `what` for the message.
    pub(super) fn plain_text(self, what: &str) -> Option<&'a str> {
        let text = self.text_or(what)?;
        let plain = !text.is_empty() && !text.contains(char::is_control);
        if plain {
            Some(text)
        } else {
            self.expected(what)
        }
    }

    pub(super) fn integer<T: TryFrom<i128>>(self, range: RangeInclusive<u64>) -> Option<T> {
        let (low, high) = range.into_inner();
        let NodeKind::Integer(integer) = self.node.kind else {
            return self.expected(format_args!("an integer, {low} to {high}"));
        };
        let inside =
            integer.filter(|integer| (i128::from(low)..=i128::from(high)).contains(integer));
        match inside.and_then(|integer| T::try_from(integer).ok()) {
            Some(integer) => Some(integer),
            None => self.expected(format_args!("{low} to {high}")),
        }
    }

    pub(super) fn number(self, range: RangeInclusive<f64>) -> Option<f64> {
        let number = match self.node.kind {
            NodeKind::Float(number) => number,
            NodeKind::Integer(integer) => integer.map(|integer| integer as f64),
            _ => None,
        };
        match number.filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => self.expected(format_args!("{} to {}", range.start(), range.end())),
        }
    }

    pub(super) fn boolean(self) -> Option<bool> {
        match self.node.kind {
            NodeKind::Boolean(value) => Some(value),
            _ => self.expected("true or false"),
        }
    }

    pub(super) fn duration(self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let duration = if let NodeKind::Text(text) = &self.node.kind {
            units::duration(text)
        } else {
            None
        };
        let span = units::duration_range(&range);
        match duration {
            Some(duration) if range.contains(&duration) => Some(duration),
            Some(_) => self.expected(span),
            None => self.expected(format_args!(
                "a duration such as \"5s\" or \"250ms\", {span}"
            )),
        }
    }

    /// Bytes.
    pub(super) fn size<T: TryFrom<u64>>(self, range: RangeInclusive<u64>) -> Option<T> {
        let bytes = if let NodeKind::Text(text) = &self.node.kind {
            units::size_bytes(text)
        } else if let NodeKind::Integer(Some(integer)) = self.node.kind {
            u64::try_from(integer).ok()
        } else {
            None
        };
        let span = units::size_range(&range);
        let Some(bytes) = bytes else {
            return self.expected(format_args!(
                "a size such as \"16MiB\" or \"64KiB\", {span}"
            ));
        };
        let size = Some(bytes)
            .filter(|bytes| range.contains(bytes))
            .and_then(|bytes| T::try_from(bytes).ok());
        if size.is_none() {
            self.expected(span)
        } else {
            size
        }
    }

    /// Path from the folder of the file that it stands in. Absolute.
    pub(super) fn path(self) -> Option<PathBuf> {
        let path = self.plain_text("a path")?;
        Some(self.map.resolve_path(self.place(), path))
    }

    /// Path with its place, for errors that are found only when it is used.
    pub(super) fn placed_path(self) -> Option<PlacedPath> {
        Some(PlacedPath {
            path: self.path()?,
            place: self.place_text(),
        })
    }

    /// Reads one of a few words.
    pub(super) fn choice<T: Copy>(self, words: &[(&str, T)]) -> Option<T> {
        let text = if let NodeKind::Text(text) = &self.node.kind {
            Some(text.as_str())
        } else {
            None
        };
        let chosen = words.iter().find(|(word, _)| Some(*word) == text);
        match chosen {
            Some(&(_, choice)) => Some(choice),
            None => self.expected(any_of(words.iter().map(|(word, _)| format!("\"{word}\"")))),
        }
    }

    /// The items that `read` accepts.
    pub(super) fn list<T>(self, read: impl Fn(Self) -> Option<T>) -> Option<Vec<T>> {
        let NodeKind::List(items) = &self.node.kind else {
            return self.expected("a list");
        };
        Some(
            items
                .iter()
                .filter_map(|node| read(Value { node, ..self }))
                .collect(),
        )
    }

    /// Reads a list as [`Self::list`] does; an item that equals an earlier one is refused.
    pub(super) fn set<T: Clone + Eq + Hash>(
        self,
        read: impl Fn(Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let items = self.list(|item| Some((item, read(item)?)))?;
        let mut known = HashSet::with_capacity(items.len());
        let mut set: Vec<T> = Vec::with_capacity(items.len());
        for (value, item) in items {
            if !known.insert(item.clone()) {
                value.refuse::<()>(format_args!(
                    "{} {} is already in the list",
                    self.key,
                    value.shown()
                ));
            } else {
                set.push(item);
            }
        }
        Some(set)
    }

    pub(super) fn table(self) -> Option<Table<'a>> {
        let NodeKind::Table(_) = self.node.kind else {
            return self.expected("a table");
        };
        Some(Table::new(self.map, self.file_idx, self.node))
    }

    /// Value as it was written, where that is short. Values from the environment stay out of messages: they may be
    /// secret.
    pub(super) fn shown(self) -> String {
        let written = self.map.text(self.place(), self.node.span.end);
        let short = !written.is_empty()
            && written.chars().count() <= MAX_SHOWN_CHARS
            && !written.contains(char::is_control);
        match &self.node.kind {
            NodeKind::Table(_) => "a table".to_owned(),
            NodeKind::List(_) => "a list".to_owned(),
            NodeKind::Text(_) if !short => "a long string".to_owned(),
            NodeKind::Integer(_) | NodeKind::Float(_) | NodeKind::Datetime(_) if !short => {
                "a long number".to_owned()
            }
            NodeKind::Text(_)
            | NodeKind::Integer(_)
            | NodeKind::Float(_)
            | NodeKind::Boolean(_) => written.to_owned(),
            NodeKind::Datetime(_) | NodeKind::Refused => written.to_owned(),
        }
    }
}

impl<'a> Table<'a> {
    /// `node` is a table.
    pub(super) fn new(map: &'a SourceMap, file_idx: usize, node: &'a Node) -> Self {
        Self {
            map,
            file_idx,
            node,
            known_keys: Vec::new(),
        }
    }

    pub(super) fn place(&self) -> Place {
        Place {
            file_idx: self.file_idx,
            offset: self.node.span.start,
        }
    }

    /// `FILE:LINE:COLUMN`.
    pub(super) fn place_text(&self) -> String {
        self.map.place(self.place())
    }

    /// All values, in the order of the file.
    pub(super) fn values(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (map, file_idx) = (self.map, self.file_idx);
        self.node
            .entries()
            .iter()
            .map(move |entry| value(map, file_idx, entry))
    }

    /// The key's value, if it is there.
    pub(super) fn get(&mut self, key: &'static str) -> Option<Value<'a>> {
        if !self.known_keys.contains(&key) {
            self.known_keys.push(key);
        }
        self.values().find(|value| value.key == key)
    }

    /// Reads the key's value; `default` without the key, and after an error, when nothing is built from the result.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> T {
        self.optional(key, read).unwrap_or(default)
    }

    /// `None` without the key (and after an error).
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Option<T> {
        self.get(key).and_then(read)
    }

    /// `None` after an error only. `what` is expected there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        what: &str,
        read: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(key);
        if value.is_none() {
            self.map.refuse(
                self.place(),
                format_args!("missing key \"{key}\": expected {what}"),
            );
        }
        value.and_then(read)
    }

    /// Refuses the keys that nobody asked for.
    pub(super) fn finish(self) {
        for value in self
            .values()
            .filter(|value| !self.known_keys.contains(&value.key))
        {
            let hint = match nearest(value.key, self.known_keys.iter().copied()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!(
                    "expected {}",
                    any_of(self.known_keys.iter().map(|key| format!("\"{key}\"")))
                ),
            };
            self.map.refuse(
                value.key_place(),
                format_args!("unknown key {:?}: {hint}", value.key),
            );
        }
    }
}

fn value<'a>(map: &'a SourceMap, file_idx: usize, entry: &'a Entry) -> Value<'a> {
    Value {
        map,
        file_idx,
        key: &entry.key,
        key_offset: entry.offset,
        node: &entry.value,
    }
}

/// `a, b or c`.
pub(super) fn any_of(words: impl Iterator<Item = String>) -> String {
    let words: Vec<_> = words.collect();
    let mut text = String::new();
    for (idx, word) in words.iter().enumerate() {
        let before = match idx {
            0 => "",
            _ if idx + 1 == words.len() => " or ",
            _ => ", ",
        };
        let _ = write!(text, "{before}{word}"); // to a String: never fails
    }
    text
}

/// Longest value in messages: longer ones are not repeated in messages.
const MAX_SHOWN_CHARS: usize = 60;
