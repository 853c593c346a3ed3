//! Settings of an upstream that could have no effect: they are refused, since whoever writes them expects one.

use super::super::table::{Table, Value};
use super::super::variables::{SET_RULE, SetVariables};
use super::super::{Balance, Peer, Sticky, Upstream};

/// `variables`: those that the config gives a value, beside the gateway's own.
pub(super) fn refuse_without_effect(
    table: &mut Table<'_>,
    upstream: &Upstream,
    variables: &SetVariables,
) {
    queue(table, upstream);
    check_port(table, upstream);
    texts(table, upstream, variables);
}

/// Whether `peers` has all that the config knows of: a list from elsewhere may have peers of any kind.
fn has_other_lists(upstream: &Upstream) -> bool {
    upstream.peers_file.is_some() || upstream.peers_url.is_some()
}

/// A request waits where all peers have as many as they may, and at no other time: see `upstream/queue.rs`.
fn queue(table: &mut Table<'_>, upstream: &Upstream) {
    let Some(value) = table.get("queue") else {
        return;
    };
    let is_bounded = upstream.max_active.is_some()
        || upstream.peers.iter().any(|peer| peer.max_active.is_some())
        || has_other_lists(upstream);
    if upstream.queue.size > 0 && !is_bounded {
        value.refuse::<()>(
            "queue without effect, as peers may have any number of requests: expected max_active of the upstream or of peers",
        );
    }
    if let Some(mut keys) = value.table()
        && let (None, Some(timeout)) = (keys.get("size"), keys.get("timeout"))
    {
        timeout.refuse::<()>(
            "timeout without effect, as no request waits: expected a size of the queue",
        );
    }
}

fn check_port(table: &mut Table<'_>, upstream: &Upstream) {
    let are_all_unix = !upstream.peers.is_empty()
        && upstream.peers.iter().all(Peer::is_unix)
        && !has_other_lists(upstream);
    if !are_all_unix || upstream.check.as_ref().is_none_or(|it| it.port.is_none()) {
        return;
    }
    let check = table.get("check").and_then(Value::table);
    if let Some(port) = check.and_then(|mut check| check.get("port")) {
        port.refuse::<()>("port without effect, as peers are all Unix sockets: expected none");
    }
}

/// Texts with variables, of which each has to be able to have a value.
fn texts(table: &mut Table<'_>, upstream: &Upstream, variables: &SetVariables) {
    if let Balance::Hash(hash) = &upstream.balance {
        text(table, ("balance", "hash"), &hash.key, variables);
    }
    let of_sticky = match &upstream.sticky {
        Some(Sticky::Route(texts)) => vec![("route", texts)],
        Some(Sticky::Learn(learnt)) => vec![("learn", &learnt.learn), ("lookup", &learnt.lookup)],
        Some(Sticky::Cookie(_)) | None => Vec::new(),
    };
    for (key, texts) in of_sticky {
        for it in texts {
            text(table, ("sticky", key), it, variables);
        }
    }
}

/// The text below this key of a section.
fn text(
    table: &mut Table<'_>,
    (section, key): (&'static str, &'static str),
    text: &str,
    variables: &SetVariables,
) {
    let section = table.get(section).and_then(Value::table);
    if let Some(name) = variables.missing(text)
        && let Some(value) = section.and_then(|mut section| section.get(key))
    {
        value.refuse::<()>(format_args!("{key} ${name}: {SET_RULE}"));
    }
}
