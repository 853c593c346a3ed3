//! Texts of a plugin's config with variables in them: `"client $client_address"`.
//!
//! ```
//! use castling_sdk::prelude::*;
//! use castling_sdk::template::Template;
//! use castling_sdk::testing::Exchange;
//!
//! let key: Template = "$client_address/${http_user_agent}".parse()?;
//! let mut exchange = Exchange::get("/").header("user-agent", "curl");
//! assert_eq!(key.expand(exchange.request(), None), b"192.0.2.1/curl");
//! # Ok::<(), Error>(())
//! ```
//!
//! A variable is written `$name` or `${name}`; `$$` is a dollar. What is not there is empty. The gateway's own are those
//! of its access log, with type, hooks and cost in `docs/VARIABLES.md`; any other is what a plugin has set for this request, or computes.

mod encoded;
mod escape;

use std::str::FromStr;

use castling_abi::variable::{KnownFrom, OwnVariable, TemplatePart, TemplateParts};
use castling_abi::{Property, TlsFact};
use serde::{Deserialize, Deserializer};

use crate::buffer::ShortBytes;
use crate::error::{Error, Result};
use crate::header::{self, HeaderName, HeaderValue};
use crate::request::Request;
use crate::response::Reply;
use crate::{bail, host, tls};

pub use escape::{Escape, escape_html, escape_json, escape_script};

/// A text with variables in it, parsed when the plugin is configured. In a config it is a string, and one with
/// a control character or a variable that is none is a config error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Property(Property),
    Tls(TlsFact),
    Status,
    RequestHeader(HeaderName),
    /// In lower case.
    Cookie(String),
    ResponseHeader(HeaderName),
    /// Variable that some plugin computes or sets, or another of the gateway's own.
    Variable(String),
}

impl Template {
    /// Text for this exchange. What is not there is empty; a control character becomes a space, so that no
    /// value can end its line.
    pub fn expand(&self, request: &Request, reply: Option<&Reply>) -> Vec<u8> {
        let mut value = Vec::with_capacity(EXPECTED_BYTES);
        self.expand_into(&mut value, request, reply);
        value
    }

    /// Appends the text for this exchange to `value`. So a plugin that keeps it need not allocate for each request.
    ///
    /// False when every variable in it was empty: what is left of `"$upstream/$peer"` then is a slash, which means nothing. A
    /// text without variables is true.
    pub fn expand_into(
        &self,
        value: &mut Vec<u8>,
        request: &Request,
        reply: Option<&Reply>,
    ) -> bool {
        // A template of text alone has nothing that could be empty.
        let mut says_something = matches!(self.0.as_slice(), [] | [Part::Text(_)]);
        for part in &self.0 {
            let before = value.len();
            match part {
                // Checked when it was parsed.
                Part::Text(text) => {
                    value.extend_from_slice(text.as_bytes());
                    continue;
                }
                Part::Property(property) => extend_with_property(value, *property),
                part => extend_with(value, part, request, reply),
            }
            says_something |= value.len() > before;
        }
        says_something
    }

    /// Text for this exchange, with what `escape` makes of each variable's value. The rest is as it was written: for HTML, JSON and
    /// other texts in which a client's words have no business to end anything.
    ///
    /// ```
    /// # use castling_sdk::prelude::*;
    /// # use castling_sdk::template::Template;
    /// # use castling_sdk::testing::Exchange;
    /// let page: Template = "<p>$http_user_agent</p>".parse()?;
    /// let mut exchange = Exchange::get("/").header("user-agent", "<b>");
    /// let escape = |value: &[u8]| String::from_utf8_lossy(value).replace('<', "&lt;").into_bytes();
    /// assert_eq!(page.expand_with(exchange.request(), None, escape), b"<p>&lt;b></p>");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn expand_with(
        &self,
        request: &Request,
        reply: Option<&Reply>,
        escape: impl Fn(&[u8]) -> Vec<u8>,
    ) -> Vec<u8> {
        let (mut text, mut value) = (Vec::with_capacity(EXPECTED_BYTES), Vec::new());
        for part in &self.0 {
            value.clear();
            match part {
                Part::Text(written) => {
                    text.extend_from_slice(written.as_bytes());
                    continue;
                }
                Part::Property(property) => extend_with_property(&mut value, *property),
                part => extend_with(&mut value, part, request, reply),
            }
            text.extend(escape(&value));
        }
        text
    }

    /// Text for this exchange, in which variables have what `own` has for their names, as far as it has something: groups of an expression
    /// that are nobody else's, or variables that the plugin computes itself and so need not ask for. All others are as in [`Self::expand`].
    /// Those that are the gateway's own are not asked for.
    ///
    /// ```
    /// # use castling_sdk::prelude::*;
    /// # use castling_sdk::template::Template;
    /// # use castling_sdk::testing::Exchange;
    /// let text: Template = "$1 of $host".parse()?;
    /// let mut exchange = Exchange::get("/").host("example.com");
    /// let group = |name: &str| (name == "1").then(|| b"first".to_vec());
    /// assert_eq!(text.expand_own(exchange.request(), None, group), b"first of example.com");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn expand_own(
        &self,
        request: &Request,
        reply: Option<&Reply>,
        own: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Vec<u8> {
        let mut value = Vec::with_capacity(EXPECTED_BYTES);
        for part in &self.0 {
            match part {
                Part::Text(text) => value.extend_from_slice(text.as_bytes()),
                Part::Property(property) => extend_with_property(&mut value, *property),
                Part::Variable(name) => match own(name) {
                    Some(text) => extend(&mut value, &text),
                    None => extend_with(&mut value, part, request, reply),
                },
                part => extend_with(&mut value, part, request, reply),
            }
        }
        value
    }

    /// Names of its variables that plugins set or compute, or that are groups of an expression: all but the gateway's own.
    ///
    /// ```
    /// # use castling_sdk::prelude::*;
    /// # use castling_sdk::template::Template;
    /// let text: Template = "$user of $host, $1".parse()?;
    /// assert_eq!(text.variables().collect::<Vec<_>>(), ["user", "1"]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Variable(name) if OwnVariable::of(name).is_none() => Some(name.as_str()),
            _ => None,
        })
    }

    /// Text for every exchange; `None` where there is a variable in it.
    pub fn as_text(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether all that it speaks of is known before a peer is chosen, as far as the gateway's own variables are concerned: what it is in hooks before the
    /// response does not change with time.
    pub fn is_of_request(&self) -> bool {
        let is_of_request = |name| OwnVariable::of(name).is_none_or(OwnVariable::is_of_request);
        self.0.iter().all(|part| match part {
            Part::Status | Part::ResponseHeader(_) => false,
            Part::Property(property) => is_of_request(property.name()),
            Part::Variable(name) => is_of_request(name),
            Part::Text(_) | Part::Tls(_) | Part::RequestHeader(_) | Part::Cookie(_) => true,
        })
    }

    /// Whether it speaks of the response, which is not there before `response_headers`.
    pub fn needs_response(&self) -> bool {
        self.0.iter().any(|part| match part {
            Part::ResponseHeader(_) | Part::Status => true,
            Part::Variable(name) => {
                OwnVariable::of(name).is_some_and(|own| own.known == KnownFrom::Response)
            }
            _ => false,
        })
    }
}

impl TryFrom<String> for Template {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Template {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if HeaderValue::new(text).is_err() {
            bail!("a control character cannot stand in a header");
        }
        Self::read(text)
    }
}

/// Whether a plugin may set a variable of that name, and templates have it: `[a-z0-9_]`, 1 to 64 bytes, none of the gateway's own.
pub fn is_settable(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    matches!(name.len(), 1..=64) && name.bytes().all(is_part) && OwnVariable::of(name).is_none()
}

/// Reads a template of a body, which may have line ends: `#[serde(deserialize_with = "template::body")]`.
pub fn body<'de, D: Deserializer<'de>>(text: D) -> std::result::Result<Template, D::Error> {
    let text = String::deserialize(text)?;
    Template::of_body(&text).map_err(serde::de::Error::custom)
}

impl Template {
    /// Reads a template of a body, which may have line ends, from a granted file say. In a config: [`body`].
    pub fn of_body(text: &str) -> Result<Self> {
        Self::read(text)
    }

    fn read(text: &str) -> Result<Self> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        for part in TemplateParts::new(text) {
            match part {
                Ok(TemplatePart::Literal(text)) => plain.push_str(text),
                Ok(TemplatePart::Variable(name)) => {
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(variable(name)?);
                }
                Err(error) => bail!("{error}: expected $name, ${{name}} or $$"),
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }
}

fn variable(name: &str) -> Result<Part> {
    let header = |name: &str| HeaderName::new(name.replace('_', "-"));
    let rest = |families: [&str; 2]| {
        let mut rests = families
            .iter()
            .filter_map(|family| name.strip_prefix(family));
        rests.next()
    };
    Ok(if let Some(name) = rest(["http_", "request_header_"]) {
        Part::RequestHeader(header(name)?)
    } else if let Some(name) = rest(["sent_http_", "response_header_"]) {
        Part::ResponseHeader(header(name)?)
    } else if let Some(name) = name.strip_prefix("cookie_") {
        Part::Cookie(name.to_owned())
    } else if name == "status" {
        Part::Status
    } else if let Some(property) = Property::from_name(name) {
        Part::Property(property)
    } else if let Some(fact) = TlsFact::from_name(name) {
        Part::Tls(fact)
    } else if name.starts_with("upstream_cookie_")
        || name.starts_with("time_") && OwnVariable::of(name).is_some()
    {
        bail!("`${name}` is not for plugins")
    } else {
        Part::Variable(name.to_owned())
    })
}

/// Room that most expansions fit.
const EXPECTED_BYTES: usize = 64;

/// Bytes that are not UTF-8 become U+FFFD, as in the methods of [`Request`].
fn extend_with_property(value: &mut Vec<u8>, property: Property) {
    let Ok(bytes) = ShortBytes::read(|out| host::property_get(property, out)) else {
        return;
    };
    match is_printable(&bytes) {
        true => value.extend_from_slice(&bytes),
        false => extend(value, String::from_utf8_lossy(&bytes).as_bytes()),
    }
}

/// The other parts, which are rarer.
#[inline(never)]
fn extend_with(value: &mut Vec<u8>, part: &Part, request: &Request, reply: Option<&Reply>) {
    let bytes = match part {
        Part::Text(text) => return extend(value, text.as_bytes()),
        Part::Property(property) => return extend_with_property(value, *property),
        Part::Tls(fact) => {
            if let Some(text) = tls::fact(*fact) {
                extend(value, text.as_bytes());
            }
            return;
        }
        Part::Status => {
            match reply {
                Some(reply) => extend(value, reply.status().to_string().as_bytes()),
                // In a hook that is not lent the response: the host knows whether there is one.
                None => extend_with_var(value, request, "status"),
            }
            return;
        }
        Part::RequestHeader(name) => request.header(name),
        Part::Cookie(name) => header::cookie(|other| other.eq_ignore_ascii_case(name.as_bytes())),
        Part::ResponseHeader(name) => match reply {
            Some(reply) => reply.header(name),
            None => {
                let name = name.as_str().replace('-', "_");
                return extend_with_var(value, request, &format!("sent_http_{name}"));
            }
        },
        Part::Variable(name) => request.var(name),
    };
    if let Some(bytes) = bytes {
        extend(value, bytes.as_bytes());
    }
}

fn extend_with_var(value: &mut Vec<u8>, request: &Request, name: &str) {
    if let Some(bytes) = request.var(name) {
        extend(value, bytes.as_bytes());
    }
}

/// A control character becomes a space.
fn extend(value: &mut Vec<u8>, bytes: &[u8]) {
    let start = value.len();
    value.extend_from_slice(bytes);
    if is_printable(bytes) {
        return;
    }
    for byte in &mut value[start..] {
        if byte.is_ascii_control() && *byte != b'\t' {
            *byte = b' ';
        }
    }
}

/// Whether all is ASCII without control characters. Eight bytes at a time, the last eight with what of them was looked at
/// before.
fn is_printable(bytes: &[u8]) -> bool {
    let Some(last) = bytes.last_chunk() else {
        return bytes.iter().all(|byte| (b' '..=b'~').contains(byte));
    };
    let (eights, _) = bytes.as_chunks();
    eights.iter().all(|eight| are_printable(*eight)) && are_printable(*last)
}

const fn are_printable(eight: [u8; 8]) -> bool {
    const EACH: u64 = u64::from_le_bytes([1; 8]);
    const HIGHEST_BITS: u64 = EACH * 0x80;
    let eight = u64::from_le_bytes(eight);
    // Sums of seven bits go into the eighth, never into the next byte.
    let seven_bits = eight & (EACH * 0x7f);
    let from_space = seven_bits + EACH * (0x80 - b' ' as u64);
    let is_delete = seven_bits + EACH;
    from_space & !is_delete & !eight & HIGHEST_BITS == HIGHEST_BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Exchange;

    fn template(text: &str) -> Template {
        text.parse().unwrap()
    }

    fn expand(text: &str, exchange: Exchange) -> String {
        let mut exchange = exchange;
        let (request, reply) = exchange.request_and_reply();
        String::from_utf8(template(text).expand(request, Some(reply))).unwrap()
    }

    #[test]
    fn variables_stand_for_what_the_exchange_has() {
        let exchange = || {
            Exchange::get("/a?b=c")
                .header("user-agent", "curl")
                .header("cookie", "JSESSIONID=1=2; b = c ;;d")
                .header("cookie", "b=e; f=g")
                .var("user", "ada")
                .response(404)
                .response_header("server", "s")
        };
        for (text, expected) in [
            ("plain", "plain"),
            ("$method $path?$query", "GET /a?b=c"),
            ("$client_address:$client_port", "192.0.2.1:50000"),
            ("$scheme://$host", "http://example.com"),
            ("<$tls_version$tls_client_subject>", "<>"),
            ("$http_user_agent/$request_header_user_agent", "curl/curl"),
            ("$response_header_server $status", "s 404"),
            ("<$user>${user}s", "<ada>adas"),
            (
                "$cookie_jsessionid/$cookie_b/$cookie_f/$cookie_d$cookie_x",
                "1=2/c/g/",
            ),
            ("$$5 for $$user", "$5 for $user"),
            ("[$nothing$http_x$upstream$peer]", "[]"),
            (
                "$arg_B$arg_c/$sent_http_server/$request",
                "c/s/GET /a?b=c HTTP/1.1",
            ),
            ("$tries $duration $body_bytes_sent", "0 0.000 0"),
            ("", ""),
        ] {
            assert_eq!(expand(text, exchange()), expected, "{text}");
        }
    }

    #[test]
    fn a_template_tells_when_it_is_known() {
        for (text, expected) in [
            ("$client_address/$http_x/$user/$route", true),
            ("$upstream", false),
            ("$peer", false),
            ("$duration", false),
            ("$status", false),
            ("$sent_http_x", false),
        ] {
            assert_eq!(template(text).is_of_request(), expected, "{text}");
        }
        assert!(is_settable("user") && is_settable("1"));
        for name in ["path", "http_x", "Id", "", "tls_version"] {
            assert!(!is_settable(name), "{name}");
        }
    }

    #[test]
    fn one_without_variables_is_a_text() {
        for (text, expected) in [
            ("plain", Some("plain")),
            ("$$5", Some("$5")),
            ("", Some("")),
            ("$path", None),
            ("a$path", None),
        ] {
            assert_eq!(template(text).as_text(), expected, "{text}");
        }
    }

    #[test]
    fn no_value_ends_its_line() {
        let exchange = Exchange::get("/")
            .response(200)
            .var("user", "a\r\nset-cookie: b\0");
        assert_eq!(expand("$user", exchange), "a  set-cookie: b ");
    }

    #[test]
    fn what_is_printable_is_told_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            let expected = (b' '..=b'~').contains(&byte);
            for len in 1..20 {
                for at in 0..len {
                    let mut bytes = vec![b'a'; len];
                    bytes[at] = byte;
                    assert_eq!(is_printable(&bytes), expected, "{bytes:?}");
                }
            }
        }
        assert!(is_printable(b""));
    }

    #[test]
    fn what_is_not_a_variable_is_an_error() {
        for text in [
            "$",
            "a $ b",
            "$A",
            "${",
            "${user",
            "${}",
            "${a-b}",
            "a\r\nb",
            "$http_",
            "$-",
            "$arg_",
            "$time_local",
            "$upstream_cookie_a",
        ] {
            assert!(text.parse::<Template>().is_err(), "{text:?}");
        }
        let long = format!("${}", "a".repeat(65));
        assert!(long.parse::<Template>().is_err());
    }
}
