//! Keys and values of one place, of the config or of a file: the text that they lie in, and what finds them.

use std::ops::Range;

use castling_sdk::expression::{Expression, Groups};
use castling_sdk::prelude::*;
use castling_sdk::template::Template;

use crate::index::Index;
use crate::lines;
use crate::networks::{Clash, Networks, Span, Spans};
use crate::pairs::Pairs;
use crate::ranges::Ranges;
use crate::{Case, Keys, RegexConfig};

/// A table. An entry takes 16 bytes beside its text, and what its index takes: 8 to 16 bytes for a text or a host, 8 to 16 for a network of IPv4, 20 to 40
/// for one of IPv6, 24 for numbers. A value with variables takes some 100 bytes more.
pub(crate) struct Table {
    /// Keys and values, and what was between them.
    text: String,
    entries: Vec<Entry>,
    by_key: ByKey,
    /// In their order, with their values.
    regexes: Vec<RegexConfig>,
    /// Values with variables.
    templates: Vec<Template>,
    default: Option<Place>,
    ignores_case: bool,
}

/// Kind of keys, and how they are compared.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    keys: Keys,
    ignores_case: bool,
}

/// A value that was found.
pub(crate) enum Found<'t> {
    Text(&'t str),
    /// With the groups of the expression that was found.
    Template(&'t Template, Option<Groups<'t>>),
}

enum ByKey {
    Text(Index),
    Hosts(Index),
    Networks(Networks),
    Numbers(Ranges),
}

struct Entry {
    key: Place,
    value: Place,
}

/// Place in the text; or, with the length [`TEMPLATE`], among the templates.
#[derive(Clone, Copy)]
struct Place {
    start: u32,
    len: u32,
}

const TEMPLATE: u32 = u32::MAX;

/// Longest name of a host (RFC 1035 §2.3.4).
const MOST_HOST_BYTES: usize = 253;

impl Form {
    pub(crate) fn new(keys: Keys, case: Case) -> Self {
        Self {
            keys,
            // Names of hosts have no case, RFC 4343.
            ignores_case: keys == Keys::Hosts || case == Case::Insensitive,
        }
    }
}

impl Table {
    pub(crate) fn of_pairs(pairs: Pairs, regexes: Vec<RegexConfig>, form: Form) -> Result<Self> {
        let mut table = Self::new(pairs.text, form, pairs.places.len());
        table.regexes = regexes;
        for (key, value) in pairs.places {
            let (key, value) = (Place::of(key), Place::of(value));
            let value = table.value(value).map_err(|error| {
                let key = table.in_text(key);
                error.context(format!("values: `{key}`"))
            })?;
            table.entries.push(Entry { key, value });
        }
        table.index(form).map_err(|(entry, error)| {
            let key = table.key(entry);
            error.context(format!("values: `{key}`"))
        })?;
        Ok(table)
    }

    pub(crate) fn of_file(text: String, form: Form) -> Result<Self> {
        let lines = files::lines(&text).count();
        let mut table = Self::new(String::new(), form, lines);
        let mut numbers = Vec::with_capacity(lines);
        for (number, line) in files::lines(&text) {
            let added = table.add_line(&text, line, form);
            if added.map_err(|error| error.context(format!("line {number}")))? {
                numbers.push(number);
            }
        }
        table.text = text;
        table.index(form).map_err(|(entry, error)| {
            let number = numbers[entry as usize];
            error.context(format!("line {number}"))
        })?;
        Ok(table)
    }

    fn new(text: String, form: Form, entries: usize) -> Self {
        Self {
            text,
            entries: Vec::with_capacity(entries),
            by_key: ByKey::Text(Index::with_room(0)),
            regexes: Vec::new(),
            templates: Vec::new(),
            default: None,
            ignores_case: form.ignores_case,
        }
    }

    /// True: it is an entry, and no expression and no default.
    fn add_line(&mut self, text: &str, line: &str, form: Form) -> Result<bool> {
        let (key, value) = lines::split(line)?;
        let place = |part: &str| {
            let start = part.as_ptr().addr() - text.as_ptr().addr();
            Place::of(start as u32..(start + part.len()) as u32)
        };
        if let Some(regex) = key.strip_prefix('~')
            && matches!(form.keys, Keys::Text | Keys::Hosts)
        {
            let (regex, ignores_case) = match regex.strip_prefix('*') {
                Some(regex) => (regex, true),
                None => (regex, false),
            };
            self.regexes.push(RegexConfig {
                regex: Expression::new(regex, ignores_case)?,
                value: value.parse()?,
            });
            return Ok(false);
        }
        let value = self.value_of(value, place(value))?;
        if key == "default" {
            self.default = Some(value);
            return Ok(false);
        }
        // Keys that would be read as something else begin with a backslash, as in nginx.
        let key = place(key.strip_prefix('\\').unwrap_or(key));
        self.entries.push(Entry { key, value });
        Ok(true)
    }

    fn value(&mut self, place: Place) -> Result<Place> {
        let text = std::mem::take(&mut self.text);
        let value = self.value_of(&text[place.range()], place);
        self.text = text;
        value
    }

    /// Place of a value: where it is written, if there are no variables in it.
    fn value_of(&mut self, text: &str, place: Place) -> Result<Place> {
        // Most have neither a variable nor a control character, which a template refuses.
        let is_plain = |byte: u8| byte != b'$' && (byte >= b' ' || byte == b'\t') && byte != 0x7f;
        if text.bytes().all(is_plain) {
            return Ok(place);
        }
        let template: Template = text.parse()?;
        self.templates.push(template);
        Ok(Place {
            start: self.templates.len() as u32 - 1,
            len: TEMPLATE,
        })
    }

    /// Builds what finds the entries. The error is of the entry with that number.
    fn index(&mut self, form: Form) -> Result<(), (u32, Error)> {
        self.by_key = ByKey::new(self, form)?;
        Ok(())
    }

    /// Entries, but for expressions and the default.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn templates(&self) -> impl Iterator<Item = &Template> {
        let of_regexes = self.regexes.iter().map(|it| &it.value);
        self.templates.iter().chain(of_regexes)
    }

    /// `source` is a [`host_name`] where keys are hosts.
    pub(crate) fn by_key(&self, source: &str) -> Option<Found<'_>> {
        let entry = match &self.by_key {
            ByKey::Networks(networks) => networks.find(source),
            ByKey::Numbers(ranges) => ranges.find(source),
            ByKey::Text(index) if self.ignores_case => {
                self.find(index, source.to_ascii_lowercase().as_bytes())
            }
            ByKey::Text(index) => self.find(index, source.as_bytes()),
            ByKey::Hosts(index) => self.host(index, source),
        };
        Some(self.found(self.entries[entry? as usize].value))
    }

    pub(crate) fn by_regex<'t>(&'t self, source: &'t str) -> Option<Found<'t>> {
        self.regexes
            .iter()
            .find_map(|RegexConfig { regex, value }| {
                let groups = regex.groups(source)?;
                Some(Found::Template(value, Some(groups)))
            })
    }

    pub(crate) fn default(&self) -> Option<Found<'_>> {
        self.default.map(|value| self.found(value))
    }

    /// The host itself, else what is written for the hosts below the longest of its ends, else for the longest of its beginnings.
    fn host(&self, index: &Index, host: &str) -> Option<u32> {
        let mut key = String::with_capacity(host.len() + 2);
        let mut find = |parts: [&str; 2]| {
            key.clear();
            key.extend(parts);
            self.find(index, key.as_bytes())
        };
        if let Some(entry) = find([host, ""]).or_else(|| find([".", host])) {
            return Some(entry);
        }
        let dots = || host.match_indices('.').map(|(at, _)| at);
        for at in dots() {
            let below = &host[at..];
            if let Some(entry) = find(["*", below]).or_else(|| find([below, ""])) {
                return Some(entry);
            }
        }
        dots().rev().find_map(|at| find([&host[..=at], "*"]))
    }

    /// The entry that clashes, and how.
    fn told(&self, clash: &Clash) -> (u32, Error) {
        match *clash {
            Clash::Twice(entry) => (entry, Error::msg("it is there already")),
            Clash::Partly(entry, other) => {
                let [key, other] = [entry, other].map(|entry| self.key(entry));
                let rule = "expected one to lie in the other, or none in common";
                let error = format!("`{key}` and `{other}` have some addresses in common: {rule}");
                (entry, Error::msg(error))
            }
        }
    }

    fn find(&self, index: &Index, key: &[u8]) -> Option<u32> {
        index.find(key, |entry| self.key(entry).as_bytes() == key)
    }

    fn key(&self, entry: u32) -> &str {
        self.in_text(self.entries[entry as usize].key)
    }

    fn in_text(&self, place: Place) -> &str {
        &self.text[place.range()]
    }

    fn found(&self, value: Place) -> Found<'_> {
        match value.len {
            TEMPLATE => Found::Template(&self.templates[value.start as usize], None),
            _ => Found::Text(self.in_text(value)),
        }
    }
}

impl ByKey {
    fn new(table: &mut Table, form: Form) -> Result<Self, (u32, Error)> {
        let count = table.entries.len() as u32;
        match form.keys {
            Keys::Text | Keys::Hosts => {
                lower(table, form)?;
                let mut index = Index::with_room(table.entries.len());
                for entry in 0..count {
                    let key = table.key(entry);
                    let is_it = |other: u32| table.key(other) == key;
                    if index.add(key.as_bytes(), entry, is_it).is_some() {
                        return Err((entry, Error::msg("it is there already")));
                    }
                }
                Ok(match form.keys {
                    Keys::Hosts => Self::Hosts(index),
                    Keys::Text | Keys::Networks | Keys::Numbers => Self::Text(index),
                })
            }
            Keys::Networks => {
                let mut spans = Spans::default();
                for entry in 0..count {
                    let span = Span::parse(table.key(entry)).map_err(|error| (entry, error))?;
                    spans.add(span, entry);
                }
                let networks = Networks::new(spans).map_err(|clash| table.told(&clash))?;
                Ok(Self::Networks(networks))
            }
            Keys::Numbers => {
                let mut ranges = Vec::with_capacity(table.entries.len());
                for entry in 0..count {
                    let range = Ranges::parse(table.key(entry)).map_err(|error| (entry, error))?;
                    ranges.push((range.0, range.1, entry));
                }
                Ranges::new(ranges).map(Self::Numbers)
            }
        }
    }
}

/// Keys in lower case, where their case does not matter, and checked, where they are hosts.
fn lower(table: &mut Table, form: Form) -> Result<(), (u32, Error)> {
    for (number, entry) in (0..).zip(&table.entries) {
        let key = &mut table.text[entry.key.range()];
        if form.ignores_case {
            key.make_ascii_lowercase();
        }
        if form.keys == Keys::Hosts && !is_host_key(key) {
            let rule = "expected a host such as `example.com`, `*.example.com`, `.example.com` or `www.example.*`";
            return Err((number, Error::msg(rule)));
        }
    }
    Ok(())
}

fn is_host_key(key: &str) -> bool {
    let name = key.strip_prefix("*.").or_else(|| key.strip_prefix('.'));
    let name = match name {
        Some(name) => name,
        None => key.strip_suffix(".*").unwrap_or(key),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte);
    !name.is_empty() && name.bytes().all(is_name) && name.len() <= MOST_HOST_BYTES
}

/// The host of `host:port` in lower case, without the dot at its end. `None`: it is longer than a host may be.
pub(crate) fn host_name(source: &str) -> Option<String> {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let host = match source.rsplit_once(':') {
        Some((host, port)) if is_port(port) && (!host.contains(':') || host.ends_with(']')) => host,
        _ => source,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    (host.len() <= MOST_HOST_BYTES).then(|| host.to_ascii_lowercase())
}

impl Place {
    fn of(range: Range<u32>) -> Self {
        Self {
            start: range.start,
            len: range.end - range.start,
        }
    }

    fn range(self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.len as usize
    }
}
