//! Texts with `$variables`, as the access log's format has them, and names of variables.

use std::collections::HashSet;

pub use castling_abi::variable::TemplatePart;
use castling_abi::variable::{OwnVariable, TemplateParts, is_variable};

/// The text's parts. The error says, for a person, what is no variable's name.
pub fn template_parts(text: &str) -> Result<Vec<TemplatePart<'_>>, String> {
    let parts: Result<_, _> = TemplateParts::new(text).collect();
    parts.map_err(|error| error.to_string())
}

/// Whether a variable has no value yet when a request is routed.
pub(super) fn is_of_response(name: &str) -> bool {
    OwnVariable::of(name).is_some_and(|own| !own.is_of_request())
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
    is_variable(name) && OwnVariable::of(name).is_none()
}

/// Rule of [`is_capture`], for messages.
pub(super) const CAPTURE_RULE: &str =
    "a variable's name, 1 to 64 of a-z 0-9 _, that is none of the gateway's own";
