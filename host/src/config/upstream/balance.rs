//! The policy by which an upstream's peers are chosen.

use super::super::names::Named;
use super::super::table::Value;
use super::super::tree::NodeKind;
use super::super::{Balance, Peer};

/// `peers`: those that are to be chosen among.
pub(super) fn balance(value: Value<'_>, plugins: &Named<'_>, peers: &[Peer]) -> Option<Balance> {
    if let NodeKind::Table(_) = value.kind() {
        let mut table = value.table()?;
        let plugin = table.required("plugin", "the name of a plugin", |name| {
            plugins.reference(name)
        });
        table.finish();
        return plugin.map(Balance::Plugin);
    }
    match value.text_or(BALANCE_RULE)? {
        "round_robin" => Some(Balance::RoundRobin),
        "least_conn" => Some(Balance::LeastConn),
        "target" if peers.iter().any(Peer::is_unix) => value.expected(
            "another policy beside \"unix:PATH\" in peers, which no request's host names",
        ),
        "target" => Some(Balance::Target),
        _ => value.expected(BALANCE_RULE),
    }
}

const BALANCE_RULE: &str = "\"round_robin\", \"least_conn\", \"target\" or { plugin = \"NAME\" }";
