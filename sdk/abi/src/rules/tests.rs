use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;
use std::{format, fs};

use super::*;

extern crate std;

#[test]
fn a_call_is_allowed_where_its_rule_says_so() {
    let allows = |rule: Rule, hook| rule.allows(Some(hook), Stage::of(Some(hook)));
    assert!(allows(HEADER_SET, Hook::Access) && allows(HEADER_SET, Hook::ResponseHeaders));
    assert!(!allows(HEADER_SET, Hook::Log) && !allows(HEADER_SET, Hook::RequestBody));
    assert!(!CALLS_SEND.allows(Some(Hook::PostRead), Stage::Request));
    assert!(CALLS_SEND.allows(Some(Hook::Content), Stage::Body));
    assert!(CALLS_SEND.allows(Some(Hook::Timer), Stage::Idle));
    assert!(!KV_FLIGHT.allows(Some(Hook::Timer), Stage::Idle));
    assert!(METRIC_DEFINE.allows(None, Stage::Idle));
    assert!(!METRIC_DEFINE.allows(Some(Hook::Timer), Stage::Idle));
    // The response is on its way, and its head is none of a body's hook's.
    assert!(!STATUS_SET.allows(Some(Hook::RequestBody), Stage::Reply));
    assert!(!ANSWER.allows(Some(Hook::RequestBody), Stage::Reply));
}

#[test]
fn each_call_has_one_rule() {
    let names: Vec<_> = ALL.iter().map(|rule| rule.name).collect();
    for (at, name) in names.iter().enumerate() {
        assert!(!names[..at].contains(name), "{name} is there twice");
        assert!(find(name).is_some_and(|rule| rule.name == *name));
    }
    let imports = include_str!("../imports.rs");
    let listed = imports.lines().filter_map(|line| {
        let (_, text) = line.strip_prefix("pub const ")?.split_once("&str = \"")?;
        text.strip_suffix("\";")
    });
    for name in listed {
        assert!(names.contains(&name), "{name} has no rule");
    }
}

/// The table of the book. `CASTLING_GOLDEN=write` writes it anew.
#[test]
fn the_books_table_is_the_rules() {
    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/plugins/hooks.md");
    const BEGIN: &str = "<!-- calls -->\n";
    const END: &str = "<!-- end of calls -->\n";
    let page = fs::read_to_string(PAGE).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (listed, after) = rest.split_once(END).unwrap();
    let table = table();
    if std::env::var("CASTLING_GOLDEN").as_deref() == Ok("write") {
        fs::write(PAGE, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(listed, table, "CASTLING_GOLDEN=write writes the table anew");
}

/// Calls that are allowed in the same hooks share a row.
fn table() -> String {
    let hooks: Vec<Option<Hook>> = [None]
        .into_iter()
        .chain(Hook::ALL.iter().copied().map(Some))
        .collect();
    let mut rows: BTreeMap<Vec<bool>, Vec<String>> = BTreeMap::new();
    let mut add = |name: String, place: Place| {
        let allowed = hooks.iter().map(|hook| place.is_of(*hook)).collect();
        rows.entry(allowed).or_default().push(name);
    };
    for rule in ALL {
        let name = format!("`{}`", rule.name);
        match rule.name {
            "header_set" | "header_add" | "header_remove" => {
                add(
                    format!("{name} of the request"),
                    changes(crate::HeaderMap::Request),
                );
                add(
                    format!("{name} of the response"),
                    changes(crate::HeaderMap::Response),
                );
            }
            "header_get" | "headers_get" => {
                add(
                    format!("{name} of the request"),
                    reads(crate::HeaderMap::Request),
                );
                add(
                    format!("{name} of the response"),
                    reads(crate::HeaderMap::Response),
                );
            }
            "body_read" => {
                add(
                    format!("{name} of the request"),
                    reads_body(crate::HeaderMap::Request),
                );
                add(
                    format!("{name} of the response"),
                    reads_body(crate::HeaderMap::Response),
                );
            }
            _ => add(name, rule.place),
        }
    }
    let mut table = String::from("| calls | in |\n|---|---|\n");
    for (allowed, names) in rows.iter().rev() {
        let hook = |hook: &Option<Hook>| match hook {
            Some(hook) => format!("`{}`", hook.name()),
            None => String::from("`configure`"),
        };
        let (within, without): (Vec<_>, Vec<_>) = hooks
            .iter()
            .zip(allowed)
            .partition(|(_, allowed)| **allowed);
        let list = |hooks: &[(&Option<Hook>, &bool)]| {
            let names: Vec<_> = hooks.iter().map(|(one, _)| hook(one)).collect();
            names.join(", ")
        };
        let places = match without.len() {
            0 => String::from("all"),
            1..=6 => format!("all but {}", list(&without)),
            _ => list(&within),
        };
        table += &format!("| {} | {places} |\n", names.join(", "));
    }
    table
}
