//! Sections of all files by what they are, and what several of them share.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::names::Named;
use super::place::Place;
use super::source::Sources;
use super::table::{Table, Value};

/// Tables of all files, by section.
pub(super) struct Sections<'a> {
    pub(super) master: Option<Table<'a>>,
    pub(super) workers: Option<Table<'a>>,
    pub(super) log: Option<Table<'a>>,
    pub(super) access_log: Option<Table<'a>>,
    pub(super) acme: Option<Value<'a>>,
    pub(super) plugins: Named<'a>,
    pub(super) listeners: Named<'a>,
    pub(super) upstreams: Named<'a>,
    pub(super) zones: Named<'a>,
    pub(super) metrics: Option<Table<'a>>,
    pub(super) routes: Vec<Table<'a>>,
    /// Bytes that a worker may have on disk, where `[workers]` has a place for them; known when that is resolved.
    pub(super) spill_limit_bytes: Option<u64>,
}

impl<'a> Sections<'a> {
    pub(super) fn gather(sources: &'a Sources) -> Self {
        let mut sections = Self {
            master: None,
            workers: None,
            log: None,
            access_log: None,
            acme: None,
            plugins: Named::new("plugin"),
            listeners: Named::new("listener"),
            upstreams: Named::new("upstream"),
            zones: Named::new("zone"),
            metrics: None,
            routes: Vec::new(),
            spill_limit_bytes: None,
        };
        for mut root in sources.roots() {
            root.get("include"); // was read with the files
            once(&mut sections.master, root.get("master"));
            once(&mut sections.workers, root.get("workers"));
            once(&mut sections.log, root.get("log"));
            once(&mut sections.access_log, root.get("access_log"));
            once_kept(&mut sections.acme, root.get("acme"));
            root.get("plugins")
                .into_iter()
                .for_each(|section| sections.plugins.add_section(section));
            root.get("listeners")
                .into_iter()
                .for_each(|section| sections.listeners.add_section(section));
            root.get("upstreams")
                .into_iter()
                .for_each(|section| sections.upstreams.add_section(section));
            root.get("zones")
                .into_iter()
                .for_each(|section| sections.zones.add_section(section));
            once(&mut sections.metrics, root.get("metrics"));
            sections
                .routes
                .extend(root.or("routes", Vec::new(), |value| value.list(Value::table)));
            root.finish();
        }
        if sections.listeners.is_empty() {
            sources.map().refuse(
                MAIN_FILE,
                "no listener: expected at least one [listeners.NAME]",
            );
        }
        if sections.routes.is_empty() {
            sources
                .map()
                .refuse(MAIN_FILE, "no route: expected at least one [[routes]]");
        }
        sections
    }
}

/// A section that may stand in one file only.
fn once<'a>(section: &mut Option<Table<'a>>, value: Option<Value<'a>>) {
    let Some(value) = value else { return };
    match section {
        Some(first) => refuse_second(value, first.place()),
        None => *section = value.table(),
    }
}

/// Same as [`once`], for a section whose place errors name.
fn once_kept<'a>(section: &mut Option<Value<'a>>, value: Option<Value<'a>>) {
    match (&section, value) {
        (Some(first), Some(value)) => refuse_second(value, first.place()),
        (None, Some(value)) => *section = Some(value),
        (_, None) => {}
    }
}

fn refuse_second(value: Value<'_>, first: Place) {
    let first = value.map().place(first);
    value.refuse::<()>(format_args!(
        "[{}] is already at {first}: expected once in all files",
        value.key()
    ));
}

pub(super) fn resolved<'a, T>(
    tables: &Named<'a>,
    mut resolve: impl FnMut(Table<'a>) -> T,
) -> BTreeMap<String, T> {
    tables
        .iter()
        .filter_map(|(name, value)| Some((name.to_owned(), resolve(value.table()?))))
        .collect()
}

/// Letters, digits, `-` and `_` between dots (RFC 1123 §2.1; the underscore is common in container networks), at most
/// 253 bytes. An IPv4 address is one, too; a name of digits and dots that is none is refused.
pub(super) fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len())
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let digits_only = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let bad_ipv4 = digits_only && text.parse::<Ipv4Addr>().is_err();
    text.len() <= 253 && text.split('.').all(is_label) && !bad_ipv4
}

/// Range of time-outs.
pub(super) const TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(30 * 24 * 60 * 60);

/// The start of the file that the operator named.
pub(super) const MAIN_FILE: Place = Place {
    file_idx: 0,
    offset: 0,
};
