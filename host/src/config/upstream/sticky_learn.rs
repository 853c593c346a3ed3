//! `learn` of `[upstreams.NAME.sticky]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use castling_abi::variable::{KnownFrom, OwnVariable};

use super::super::StickyLearn;
use super::super::names::Named;
use super::super::table::{Table, Value};
use super::super::tree::NodeKind;
use super::super::variables::{TemplatePart, is_of_response, set_cookie, template_parts};
use super::balance::{request_text, text_with};
use super::sticky::texts;

/// `value`: of `learn` itself. `zones`: those of the config.
pub(super) fn learn(
    value: Value<'_>,
    table: &mut Table<'_>,
    zones: &Named<'_>,
) -> Option<StickyLearn> {
    let learn = texts(value, learnt_text);
    let lookup = match table.get("lookup") {
        Some(value) => texts(value, lookup_text),
        None => learn.as_ref().and_then(|learn| default(value, learn)),
    };
    let zone = table.required("zone", ZONE_RULE, |value| {
        zones.reference_of_kind(value, "kv")
    });
    let timeout = table.or("timeout", TIMEOUT, |value| value.duration(TIMEOUTS));
    Some(StickyLearn {
        learn: learn?,
        lookup: lookup?,
        zone: zone?,
        timeout,
    })
}

/// A text by which a session is looked up.
fn lookup_text(value: Value<'_>) -> Option<String> {
    refuse_cut_name(value)?;
    request_text(value)
}

/// A cookie whose name goes on with a dot or a hyphen, as variables' names do not, is written with braces.
fn refuse_cut_name(value: Value<'_>) -> Option<()> {
    let NodeKind::Text(text) = value.kind() else {
        return Some(());
    };
    match ["$upstream_cookie_", "$cookie_"]
        .iter()
        .find_map(|begin| cut_name(text, begin))
    {
        None => Some(()),
        Some((begin, name)) => value.expected(format_args!(
            "\"${{{}{name}}}\" for a cookie of that name, or \"${{{}{}}}{}\"",
            &begin[1..],
            &begin[1..],
            stem(name),
            &name[stem(name).len()..],
        )),
    }
}

/// The name of a cookie that goes on behind what a variable's name may have. `begin`: of the variable.
fn cut_name<'t, 'b>(text: &'t str, begin: &'b str) -> Option<(&'b str, &'t str)> {
    let from = text.find(begin)? + begin.len();
    let rest = &text[from..];
    let is_part = |at: char| at.is_ascii_alphanumeric() || "_-.".contains(at);
    let name = &rest[..rest.find(|at| !is_part(at)).unwrap_or(rest.len())];
    let beyond = name.strip_prefix(stem(name))?;
    let goes_on = beyond.len() > 1 && beyond.as_bytes()[1].is_ascii_alphanumeric();
    goes_on.then_some((begin, name))
}

/// Part of a name that a variable's name may have.
fn stem(name: &str) -> &str {
    let end = name.find(['-', '.']);
    &name[..end.unwrap_or(name.len())]
}

/// A text with variables that have their value when a peer has answered.
fn learnt_text(value: Value<'_>) -> Option<String> {
    refuse_cut_name(value)?;
    text_with(
        value,
        is_learnable,
        "it names no session: expected variables of the request, \"$upstream_cookie_NAME\" or \"$sent_http_NAME\"",
    )
}

/// Whether a variable can name a session: one of the request, or a field of the response. What plugins set may be either.
fn is_learnable(name: &str) -> bool {
    OwnVariable::of(name).is_none_or(|own| {
        own.is_of_request() || (own.is_family && own.known == KnownFrom::Response)
    })
}

/// Texts by which requests are looked up where the config does not say: those of `learn`, with the cookies that a request sends
/// in the place of those that a response sets.
fn default(value: Value<'_>, learn: &[String]) -> Option<Vec<String>> {
    let looked_up = |text: &String| {
        let mut by = String::new();
        // The text was read before.
        for part in template_parts(text).ok()? {
            match part {
                TemplatePart::Literal(text) => by += &text.replace('$', "$$"),
                TemplatePart::Variable(name) => match set_cookie(name) {
                    Some(cookie) => by += &format!("${{cookie_{cookie}}}"),
                    None if is_of_response(name) => {
                        return value.refuse(format_args!(
                            "learn ${name} without `lookup`: expected what requests are looked up by, such as lookup = \
                             [\"$http_x_session\"]"
                        ));
                    }
                    None => by += &format!("${{{name}}}"),
                },
            }
        }
        Some(by)
    };
    learn.iter().map(looked_up).collect()
}

const ZONE_RULE: &str = "the name of a zone of kind \"kv\"";

/// Default of nginx.
const TIMEOUT: Duration = Duration::from_secs(600);
const TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 3600);
