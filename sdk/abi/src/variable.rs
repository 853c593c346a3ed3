//! The gateway's own variables, and texts with `$variables` in them: one table and one grammar for templates of plugins, for the
//! access log, for conditions of routes and for `var_get`.

use core::fmt;

use crate::TlsFact;

/// A variable of the gateway's own, or a family of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnVariable {
    /// Whole name, or what the names of a family begin with: `http_`.
    pub name: &'static str,
    /// Whether a name of something follows.
    pub is_family: bool,
    pub value: VariableType,
    pub known: KnownFrom,
    pub cost: ReadCost,
    /// Description, as the docs have it.
    pub about: &'static str,
}

/// Type of a variable's value. All are written as text; JSON of the access log has numbers without quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VariableType {
    Text,
    /// Decimal digits.
    Number,
    /// Seconds with milliseconds: `0.042`.
    Seconds,
}

/// From when on a variable has its value. Before, it has none: empty in a template, `-` in the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KnownFrom {
    /// `post_read`, the first hook.
    Request,
    /// `rewrite`: the route was found.
    Routing,
    /// `peer_done`: a peer was chosen.
    Peer,
    /// `response_headers`.
    Response,
    /// All hooks, with what it is by then; the whole stands in `log` and in the access log.
    Always,
}

/// Cost of reading a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadCost {
    /// The bytes are there.
    Copied,
    /// A number or a time is written out.
    Written,
    /// Fields of a head, cookies or parameters are gone through.
    Searched,
    /// The client's certificate is read, or the path decoded.
    Parsed,
}

/// All of them, in the order of the docs.
pub static OWN_VARIABLES: [OwnVariable; 36] = {
    use KnownFrom::{Always, Peer, Request, Response, Routing};
    use ReadCost::{Copied, Parsed, Searched, Written};
    [
        text(
            "client_address",
            Request,
            Copied,
            "IP address of the client, or `unix:`; plugins may set it in `post_read`",
        ),
        number(
            "client_port",
            Request,
            Written,
            "its port; none for a Unix socket",
        ),
        text(
            "server_address",
            Request,
            Copied,
            "the gateway's IP address that the client connected to, or `unix:PATH`",
        ),
        number(
            "server_port",
            Request,
            Written,
            "the gateway's port that it connected to; none for a Unix socket",
        ),
        text("listener", Request, Copied, "name of the listener"),
        text("method", Request, Copied, "the request's method"),
        text("scheme", Request, Copied, "`http` or `https`"),
        text(
            "host",
            Request,
            Searched,
            "host and port as the client named them",
        ),
        text(
            "path",
            Request,
            Copied,
            "the path as it is sent on, with what plugins have changed",
        ),
        text(
            "routed_path",
            Request,
            Parsed,
            "the path as routes compare it: decoded, without dot and empty segments",
        ),
        text("query", Request, Copied, "the query without its `?`"),
        text(
            "request",
            Request,
            Copied,
            "the request line as the client sent it",
        ),
        text(
            "protocol",
            Request,
            Copied,
            "`HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0`",
        ),
        text(
            "request_id",
            Request,
            Searched,
            "`X-Request-Id` as peers get it",
        ),
        family(
            "http_",
            Request,
            Searched,
            "header of the request; `_` stands for `-`",
        ),
        family("request_header_", Request, Searched, "the same"),
        family(
            "arg_",
            Request,
            Searched,
            "parameter of the query: the first of that name, in any case, decoded",
        ),
        family(
            "cookie_",
            Request,
            Searched,
            "the first cookie of that name, in any case",
        ),
        family(
            "tls_",
            Request,
            Parsed,
            "[facts of TLS](TLS.md#facts) between client and gateway",
        ),
        text("route", Routing, Copied, "name of the route"),
        text("upstream", Peer, Copied, "name of the upstream"),
        text(
            "peer",
            Peer,
            Copied,
            "address of the peer that was tried last",
        ),
        number("tries", Always, Written, "number of peers that were tried"),
        seconds(
            "upstream_duration",
            Response,
            "from the choice of the first peer to the response's head",
        ),
        number("status", Response, Written, "the response's status"),
        family(
            "sent_http_",
            Response,
            Searched,
            "header of the response; `_` stands for `-`",
        ),
        family("response_header_", Response, Searched, "the same"),
        family(
            "upstream_cookie_",
            Response,
            Searched,
            "cookie that a peer's response sets; for `sticky.learn` alone",
        ),
        number(
            "body_bytes_sent",
            Always,
            Written,
            "bytes of the response's body that the client was sent, before transfer coding",
        ),
        number(
            "body_bytes_received",
            Always,
            Written,
            "bytes of the request's body that came, after transfer coding",
        ),
        seconds("duration", Always, "since the request's head was complete"),
        text(
            "cut_by",
            Always,
            Copied,
            "party to blame for a response that ended before its end: `client`, `upstream` or `plugin`",
        ),
        text(
            "cache_status",
            Response,
            Copied,
            "what the route's [cache](CACHE.md) has done: `hit`, `stale`, `revalidated`, `miss`, `bypass` or `past`",
        ),
        text(
            "subrequest_of",
            Request,
            Copied,
            "plugin whose sub-request it is; none for a client's request",
        ),
        number("pid", Always, Written, "process id of the worker"),
        family(
            "time_",
            Always,
            Written,
            "`time_local` and `time_iso8601`, as nginx writes them; for the access log alone",
        ),
    ]
};

const fn text(
    name: &'static str,
    known: KnownFrom,
    cost: ReadCost,
    about: &'static str,
) -> OwnVariable {
    variable(name, false, VariableType::Text, known, cost, about)
}

const fn number(
    name: &'static str,
    known: KnownFrom,
    cost: ReadCost,
    about: &'static str,
) -> OwnVariable {
    variable(name, false, VariableType::Number, known, cost, about)
}

const fn seconds(name: &'static str, known: KnownFrom, about: &'static str) -> OwnVariable {
    variable(
        name,
        false,
        VariableType::Seconds,
        known,
        ReadCost::Written,
        about,
    )
}

const fn family(
    name: &'static str,
    known: KnownFrom,
    cost: ReadCost,
    about: &'static str,
) -> OwnVariable {
    variable(name, true, VariableType::Text, known, cost, about)
}

const fn variable(
    name: &'static str,
    is_family: bool,
    value: VariableType,
    known: KnownFrom,
    cost: ReadCost,
    about: &'static str,
) -> OwnVariable {
    OwnVariable {
        name,
        is_family,
        value,
        known,
        cost,
        about,
    }
}

/// Names that belong to families without being open to any name.
const TIMES: [&str; 2] = ["time_local", "time_iso8601"];

impl OwnVariable {
    /// The one that a name means; `None`: the name is for plugins, and for groups of expressions.
    pub fn of(name: &str) -> Option<&'static Self> {
        OWN_VARIABLES
            .iter()
            .find(|variable| match variable.is_family {
                false => variable.name == name,
                true => name
                    .strip_prefix(variable.name)
                    .is_some_and(|rest| match variable.name {
                        "tls_" => TlsFact::from_name(name).is_some(),
                        "time_" => TIMES.contains(&name),
                        _ => !rest.is_empty(),
                    }),
            })
    }

    /// Whether it has its value, which stays, when a request is routed.
    pub fn is_of_request(&self) -> bool {
        matches!(self.known, KnownFrom::Request | KnownFrom::Routing)
    }
}

/// A part of a text with variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplatePart<'a> {
    Literal(&'a str),
    /// A name as [`is_variable`] allows it.
    Variable(&'a str),
}

/// Fault of such a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateError<'a> {
    /// `${` without `}`.
    Unclosed,
    /// No variable has this name.
    Name(&'a str),
}

impl fmt::Display for TemplateError<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unclosed => out.write_str("`${` without `}`"),
            Self::Name(name) => write!(out, "`${name}` is no variable's name"),
        }
    }
}

/// Parts of a text: `$name` and `${name}` are variables, `$$` is a dollar sign. Ends after an error.
#[derive(Clone, Debug)]
pub struct TemplateParts<'a>(&'a str);

impl<'a> TemplateParts<'a> {
    pub const fn new(text: &'a str) -> Self {
        Self(text)
    }

    fn variable(&mut self, after: &'a str) -> Result<TemplatePart<'a>, TemplateError<'a>> {
        let (name, rest) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').ok_or(TemplateError::Unclosed)?,
            None => {
                let end = after
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(after.len());
                after.split_at(end)
            }
        };
        if !is_variable(name) {
            return Err(TemplateError::Name(name));
        }
        self.0 = rest;
        Ok(TemplatePart::Variable(name))
    }
}

impl<'a> Iterator for TemplateParts<'a> {
    type Item = Result<TemplatePart<'a>, TemplateError<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.0;
        let Some(dollar) = text.find('$') else {
            self.0 = "";
            return (!text.is_empty()).then_some(Ok(TemplatePart::Literal(text)));
        };
        let (before, after) = (&text[..dollar], &text[dollar + 1..]);
        if let Some(after) = after.strip_prefix('$') {
            self.0 = after;
            // The literal ends with the first of the two.
            return Some(Ok(TemplatePart::Literal(&text[..=dollar])));
        }
        if !before.is_empty() {
            self.0 = &text[dollar..];
            return Some(Ok(TemplatePart::Literal(before)));
        }
        let variable = self.variable(after);
        if variable.is_err() {
            self.0 = "";
        }
        Some(variable)
    }
}

/// Whether a variable can have that name. `http_NAME` and the other families of headers take a header's name in which `_` stands for `-`; `arg_NAME`,
/// `cookie_NAME` and `upstream_cookie_NAME` 1 to 64 of `A-Z a-z 0-9 _ - .`; all others are 1 to 64 of `a-z 0-9 _`.
pub fn is_variable(name: &str) -> bool {
    let rest = |prefixes: &[&str]| {
        let mut rests = prefixes
            .iter()
            .filter_map(|prefix| name.strip_prefix(prefix));
        rests.next()
    };
    let is_letter = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    if let Some(other) = rest(&["arg_", "cookie_", "upstream_cookie_"]) {
        return matches!(other.len(), 1..=64)
            && other
                .bytes()
                .all(|c| is_letter(c) || matches!(c, b'-' | b'.'));
    }
    if let Some(header) = rest(&["http_", "sent_http_", "request_header_", "response_header_"]) {
        // A token (RFC 9110 section 5.6.2).
        return !header.is_empty()
            && header
                .bytes()
                .all(|c| is_letter(c) || b"!#$%&'*+-.^`|~".contains(&c));
    }
    matches!(name.len(), 1..=64)
        && name
            .bytes()
            .all(|c| is_letter(c) && !c.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    #[test]
    fn each_variable_is_found_by_its_name() {
        for variable in &OWN_VARIABLES {
            let name = match variable.name {
                "tls_" => std::string::String::from("tls_version"),
                "time_" => std::string::String::from("time_local"),
                name if variable.is_family => std::format!("{name}x"),
                name => std::string::String::from(name),
            };
            assert_eq!(OwnVariable::of(&name), Some(variable), "{name}");
            assert!(is_variable(&name), "{name}");
        }
        for name in ["user", "http_", "arg_", "tls_x", "time_x", "tls_", ""] {
            assert_eq!(OwnVariable::of(name), None, "{name}");
        }
    }

    #[test]
    fn a_text_is_parted_at_its_variables() {
        use TemplatePart::{Literal, Variable};
        let parts = |text| TemplateParts::new(text).collect::<Result<Vec<_>, _>>();
        let parted = [
            Literal("a "),
            Variable("b"),
            Literal("-"),
            Variable("c"),
            Literal("d"),
        ];
        assert_eq!(parts("a $b-${c}d"), Ok(parted.to_vec()));
        assert_eq!(parts("$$x$$"), Ok([Literal("$"), Literal("x$")].to_vec()));
        assert_eq!(parts("$http_X_a"), Ok([Variable("http_X_a")].to_vec()));
        assert_eq!(
            parts("${upstream_cookie_a.B-c}"),
            Ok([Variable("upstream_cookie_a.B-c")].to_vec())
        );
        assert_eq!(parts(""), Ok(Vec::new()));
        assert_eq!(parts("a ${b"), Err(TemplateError::Unclosed));
        for (text, name) in [
            ("$", ""),
            ("a $ b", ""),
            ("$A", "A"),
            ("${}", ""),
            ("${a-b}", "a-b"),
            ("$http_", "http_"),
        ] {
            assert_eq!(parts(text), Err(TemplateError::Name(name)), "{text}");
        }
    }
}
