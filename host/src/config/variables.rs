//! Texts with `$variables`, as the access log's format has them, and names of variables.

use std::collections::HashSet;

use castling_abi::TlsFact;
use http::HeaderName;

/// A part of such a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplatePart<'a> {
    Literal(&'a str),
    /// A name as [`is_variable`] allows it.
    Variable(&'a str),
}

/// The text's parts: `$name` and `${name}` are variables, `$$` is a dollar sign. The error says, for a person, what is
/// no variable's name.
pub fn template_parts(text: &str) -> Result<Vec<TemplatePart<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        let (before, after) = (&rest[..dollar], &rest[dollar + 1..]);
        if let Some(after) = after.strip_prefix('$') {
            // The literal ends with the first of the two.
            pieces.push(TemplatePart::Literal(&rest[..=dollar]));
            rest = after;
            continue;
        }
        if !before.is_empty() {
            pieces.push(TemplatePart::Literal(before));
        }
        let name;
        (name, rest) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').ok_or("`${` without `}`")?,
            None => {
                let end = after
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(after.len());
                after.split_at(end)
            }
        };
        if !is_variable(name) {
            return Err(format!("`${name}` is no variable's name"));
        }
        pieces.push(TemplatePart::Variable(name));
    }
    if !rest.is_empty() {
        pieces.push(TemplatePart::Literal(rest));
    }
    Ok(pieces)
}

/// The gateway's own variables that have their value when a request is routed.
pub const OF_REQUEST: [&str; 12] = [
    "client_address",
    "client_port",
    "method",
    "host",
    "path",
    "query",
    "request",
    "protocol",
    "scheme",
    "request_id",
    "listener",
    "route",
];

/// Variables that get their value later, or that say nothing of the request.
pub const OF_RESPONSE: [&str; 12] = [
    "upstream",
    "peer",
    "status",
    "body_bytes_sent",
    "body_bytes_received",
    "duration",
    "upstream_duration",
    "tries",
    "cut_by",
    "time_local",
    "time_iso8601",
    "pid",
];

/// Whether a variable has no value yet when a request is routed.
pub(super) fn is_of_response(name: &str) -> bool {
    OF_RESPONSE.contains(&name) || name.starts_with("sent_http_") || set_cookie(name).is_some()
}

/// Name of the cookie, where the variable is one that a peer's response sets. It has its value when that has come, and not later:
/// what the client is sent may be another response.
pub(super) fn set_cookie(name: &str) -> Option<&str> {
    name.strip_prefix("upstream_cookie_")
}

/// Variables that something in the config gives a value, beside the gateway's own.
pub(super) struct SetVariables {
    /// Names of the groups of regular expressions.
    groups: HashSet<String>,
    /// Whether there are plugins, which may set any.
    are_plugins: bool,
}

impl SetVariables {
    pub(super) fn new(groups: impl IntoIterator<Item = String>, are_plugins: bool) -> Self {
        Self {
            groups: groups.into_iter().collect(),
            are_plugins,
        }
    }

    /// The first variable of a text that nothing gives a value.
    pub(super) fn missing<'t>(&self, text: &'t str) -> Option<&'t str> {
        if self.are_plugins {
            return None;
        }
        // A text that cannot be read was refused before.
        let parts = template_parts(text).unwrap_or_default();
        parts.into_iter().find_map(|part| match part {
            TemplatePart::Variable(name) if is_capture(name) && !self.groups.contains(name) => {
                Some(name)
            }
            TemplatePart::Variable(_) | TemplatePart::Literal(_) => None,
        })
    }
}

/// Rule of a text's variables, for messages about one that nothing sets.
pub(super) const SET_RULE: &str = "no plugin is there to set it: expected a variable of the request, or a group of a route's regular expression";

/// Whether `name` may be that of a group of a regular expression, which becomes a variable.
pub(super) fn is_capture(name: &str) -> bool {
    let is_built_in = OF_REQUEST.contains(&name)
        || OF_RESPONSE.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || TlsFact::from_name(name).is_some();
    is_variable(name) && !is_built_in
}

/// Rule of [`is_capture`], for messages.
pub(super) const CAPTURE_RULE: &str =
    "a variable's name, 1 to 64 of a-z 0-9 _, that is none of the gateway's own";

/// Families of the gateway's own variables, and of those that plugins know by these names.
const PREFIXES: [&str; 7] = [
    "http_",
    "sent_http_",
    "arg_",
    "cookie_",
    "upstream_cookie_",
    "request_header_",
    "response_header_",
];

/// `http_NAME` and `sent_http_NAME` with a header's name in which `_` stands for `-`, `arg_NAME`, `cookie_NAME` and
/// `upstream_cookie_NAME`, or 1 to 64 of `a-z 0-9 _`.
fn is_variable(name: &str) -> bool {
    let other = name
        .strip_prefix("arg_")
        .or_else(|| name.strip_prefix("cookie_"))
        .or_else(|| set_cookie(name));
    if let Some(other) = other {
        let valid = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.');
        return (1..=64).contains(&other.len()) && other.bytes().all(valid);
    }
    let header = name
        .strip_prefix("http_")
        .or_else(|| name.strip_prefix("sent_http_"));
    match header {
        Some(header) => header.replace('_', "-").parse::<HeaderName>().is_ok(),
        None => {
            let valid = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
            (1..=64).contains(&name.len()) && name.bytes().all(valid)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_parted_at_its_variables() {
        use TemplatePart::{Literal, Variable};
        let parted = |text| template_parts(text).unwrap();
        assert_eq!(
            parted("a $b-${c}d"),
            [
                Literal("a "),
                Variable("b"),
                Literal("-"),
                Variable("c"),
                Literal("d")
            ]
        );
        assert_eq!(parted("$$x$$"), [Literal("$"), Literal("x$")]);
        assert_eq!(parted("$http_X_a"), [Variable("http_X_a")]);
        assert_eq!(
            parted("${upstream_cookie_a.B-c}"),
            [Variable("upstream_cookie_a.B-c")]
        );
        assert_eq!(parted(""), []);
        for bad in [
            "$",
            "$X",
            "${a",
            "$http_",
            "${http_a b}",
            "${}",
            "$upstream_cookie_",
        ] {
            assert!(template_parts(bad).is_err(), "{bad}");
        }
    }
}
