//! The policy by which an upstream's peers are chosen.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::names::Named;
use super::super::table::{Table, Value};
use super::super::tree::NodeKind;
use super::super::variables::{TemplatePart, is_of_response, template_parts};
use super::super::{Balance, HashBalance, HashMethod, Peer, SlowStart};
use super::peers;

/// `peers`: those that are to be chosen among.
pub(super) fn balance(value: Value<'_>, plugins: &Named<'_>, peers: &[Peer]) -> Option<Balance> {
    if let NodeKind::Table(_) = value.kind() {
        let mut table = value.table()?;
        let balance = match table.optional("hash", Some) {
            Some(key) => hash(key, &mut table),
            None => table
                .required(
                    "plugin",
                    "the name of a plugin, or \"hash\" with a key",
                    |name| plugins.reference(name),
                )
                .map(Balance::Plugin),
        };
        table.finish();
        return balance;
    }
    let text = value.text_or(BALANCE_RULE)?;
    match WORDS.iter().find(|(word, _)| *word == text) {
        Some((_, Balance::Target)) if peers.iter().any(Peer::is_unix) => value.expected(
            "another policy beside \"unix:PATH\" in peers, which no request's host names",
        ),
        Some((_, Balance::Target)) if peers.iter().any(|peer| peer.srv) => value.expected(
            "another policy beside `srv` in peers: its records say whom clients would reach",
        ),
        Some((_, balance)) => Some(balance.clone()),
        None => value.expected(BALANCE_RULE),
    }
}

fn hash(key: Value<'_>, table: &mut Table<'_>) -> Option<Balance> {
    let method = table.or("method", HashMethod::Ketama, |value| {
        value.choice(&HASH_METHODS)
    });
    let bounded = table.optional("bounded", |value| number(value, BOUNDS));
    Some(Balance::Hash(HashBalance {
        key: request_text(key)?,
        method,
        bounded,
    }))
}

/// A text with variables that have their value before a peer is chosen.
pub(super) fn request_text(value: Value<'_>) -> Option<String> {
    text_with(
        value,
        |name| !is_of_response(name),
        "it is not known before a peer has answered: expected variables of the request",
    )
}

/// A text with variables that have a value where it is used. `otherwise`: why one has none, and what is expected.
pub(super) fn text_with(
    value: Value<'_>,
    has_value: impl Fn(&str) -> bool,
    otherwise: &str,
) -> Option<String> {
    let text = value.plain_text(KEY_RULE)?;
    let parts = match template_parts(text) {
        Ok(parts) => parts,
        Err(error) => return value.refuse(format_args!("{}: {error}", value.key())),
    };
    let mut variables = parts.iter().filter_map(|part| match part {
        TemplatePart::Variable(name) => Some(*name),
        TemplatePart::Literal(_) => None,
    });
    if let Some(name) = variables.clone().find(|name| !has_value(name)) {
        return value.refuse(format_args!("{} ${name}: {otherwise}", value.key()));
    }
    match variables.next() {
        Some(_) => Some(text.to_owned()),
        None => value.expected(KEY_RULE),
    }
}

/// A number with or without a fraction.
fn number(value: Value<'_>, range: RangeInclusive<f64>) -> Option<f64> {
    let number = match value.kind() {
        NodeKind::Float(float) => *float,
        NodeKind::Integer(integer) => integer.map(|integer| integer as f64),
        _ => None,
    };
    match number {
        Some(number) if range.contains(&number) => Some(number),
        Some(_) | None => value.expected(format_args!(
            "a number, {} to {}",
            range.start(),
            range.end()
        )),
    }
}

/// `slow_start`, where the policy goes by weights that may change.
pub(super) fn slow_start(value: Value<'_>, policy: &Balance) -> Option<SlowStart> {
    if !shares_by_weight(policy) {
        return value.refuse(
            "slow_start is for policies that share requests out: expected none beside \"ip_hash\", \"target\", a hash or a plugin",
        );
    }
    let (window, aggression) = match value.kind() {
        NodeKind::Table(_) => {
            let mut table = value.table()?;
            let window = table.required("window", "a duration such as \"30s\"", |value| {
                value.duration(WINDOWS)
            });
            let aggression = table.or("aggression", 1.0, |value| number(value, AGGRESSIONS));
            table.finish();
            (window, aggression)
        }
        _ => (value.duration(WINDOWS), 1.0),
    };
    Some(SlowStart {
        window: window?,
        aggression,
    })
}

/// `zone` of an upstream: the one that the gateway is in. `has_lists`: peers are also in a file or at a URL, which may say zones.
pub(super) fn preferred_zone(
    table: &mut Table<'_>,
    (listed, has_lists): (&[Peer], bool),
    policy: &Balance,
) -> Option<String> {
    let zone = table.get("zone");
    let are_told = listed.iter().any(|peer| peer.zone.is_some());
    match (zone, policy) {
        (Some(zone), Balance::Target | Balance::Plugin(_)) => zone.refuse(
            "zone is for policies of the gateway's own: expected none beside \"target\" or a plugin",
        ),
        (Some(zone), _) if !are_told && !has_lists => {
            zone.refuse("zone without effect: expected peers with a zone, such as { address = \"10.0.0.1:80\", zone = \"a\" }")
        }
        (Some(zone), _) => peers::zone(zone),
        (None, _) if are_told => table.get("peers")?.refuse(
            "zones of peers without effect: expected \"zone\", the one that the gateway is in",
        ),
        (None, _) => None,
    }
}

/// Whether a peer gets more requests or fewer as its weight says at the time.
fn shares_by_weight(policy: &Balance) -> bool {
    match policy {
        Balance::RoundRobin
        | Balance::LeastConn
        | Balance::LeastTime
        | Balance::Random
        | Balance::Ewma => true,
        Balance::IpHash | Balance::Hash(_) | Balance::Target | Balance::Plugin(_) => false,
    }
}

const WORDS: [(&str, Balance); 7] = [
    ("round_robin", Balance::RoundRobin),
    ("least_conn", Balance::LeastConn),
    ("least_time", Balance::LeastTime),
    ("random", Balance::Random),
    ("ewma", Balance::Ewma),
    ("ip_hash", Balance::IpHash),
    ("target", Balance::Target),
];

const HASH_METHODS: [(&str, HashMethod); 2] = [
    ("ketama", HashMethod::Ketama),
    ("maglev", HashMethod::Maglev),
];

const BALANCE_RULE: &str = "\"round_robin\", \"least_conn\", \"least_time\", \"random\", \"ewma\", \"ip_hash\", \"target\", \
     { hash = \"$http_x_user\" } or { plugin = \"NAME\" }";

const KEY_RULE: &str = "a text with variables, such as \"$http_x_user\"";

const BOUNDS: RangeInclusive<f64> = 1.0..=10.0;
const AGGRESSIONS: RangeInclusive<f64> = 0.1..=10.0;
const WINDOWS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
