//! Replaces text in response bodies while they stream, also where a match spans chunks.
//!
//! README.md has the config.

mod patterns;
mod pieces;
mod stream;

use castling_sdk::prelude::*;
use castling_sdk::template::{Escape, Template};

use crate::patterns::{Pair, Patterns, To};
use crate::pieces::Pieces;
use crate::stream::Stream;

/// The plugin's config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// At least one, at most 64.
    replace: Vec<Replacement>,
    /// Content types: `text/html`, or `text/*`. Default `text/html`, `text/plain`, `application/json`.
    #[serde(default = "default_types")]
    types: Vec<String>,
    /// Replace each text at its first match only (nginx `sub_filter_once`, which is on there). Default false.
    #[serde(default)]
    once: bool,
    /// Whether the case of letters matters, A to Z and a to z. Default `sensitive` (nginx `sub_filter`: insensitive).
    #[serde(default)]
    case: Case,
    /// Whether requests ask for bodies without a coding, so that there are texts to search. Default false: coded bodies stay as they are.
    #[serde(default)]
    ask_uncoded: bool,
    /// Whether requests ask for whole bodies, so that no part is left as it is. Default false: parts stay as they are.
    #[serde(default)]
    ask_whole: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Case {
    #[default]
    Sensitive,
    Insensitive,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Replacement {
    /// 1 to 1024 bytes, as they are in the body: case matters.
    from: String,
    to: String,
    /// Whether `to` has variables in it. Default false.
    #[serde(default)]
    variables: bool,
    /// How variables' values are written. Default: as the body's type has it.
    escape: Option<Escape>,
}

/// The plugin.
pub struct Substitute {
    patterns: Patterns,
    /// In lower case.
    types: Vec<String>,
    ask_uncoded: bool,
    ask_whole: bool,
    /// The last piece that goes on in the place of a chunk; kept for its memory.
    out: Vec<u8>,
}

/// State of a response from chunk to chunk; none for a body that is not this plugin's business.
#[derive(Default, Deserialize, Serialize)]
struct Body {
    stream: Option<Stream>,
    /// The escape for texts of its type.
    escape: Escape,
}

/// Longest `from`. A body's end is held back by one byte less.
const MOST_FROM_BYTES: usize = 1024;

#[plugin(state = Body)]
impl Substitute {
    fn configure(config: Config) -> Result<Self> {
        if config.replace.is_empty() || config.replace.len() > Patterns::MOST_PAIRS {
            bail!(
                "config.replace: expected 1 to {} replacements",
                Patterns::MOST_PAIRS
            );
        }
        let mut pairs = Vec::new();
        for (i, replacement) in config.replace.into_iter().enumerate() {
            let Replacement {
                from,
                to,
                variables,
                escape,
            } = replacement;
            if from.is_empty() || from.len() > MOST_FROM_BYTES {
                bail!("config.replace[{i}].from: expected 1 to {MOST_FROM_BYTES} bytes");
            }
            if escape.is_some() && !variables {
                bail!("config.replace[{i}].escape: it is for a text with `variables = true`");
            }
            let to = match variables {
                true => Template::of_body(&to)
                    .map(|to| To::Template(to, escape))
                    .map_err(|error| error.context(format!("config.replace[{i}].to")))?,
                false => To::Text(to.into_bytes()),
            };
            let from = from.into_bytes();
            pairs.push(Pair { from, to });
        }
        if let Some(i) = config.types.iter().position(|name| !name.contains('/')) {
            bail!("config.types[{i}]: expected a content type such as \"text/html\" or \"text/*\"");
        }
        Ok(Self {
            patterns: Patterns::new(pairs, config.once, config.case == Case::Insensitive),
            ask_uncoded: config.ask_uncoded,
            ask_whole: config.ask_whole,
            types: config
                .types
                .iter()
                .map(|name| name.to_ascii_lowercase())
                .collect(),
            out: Vec::new(),
        })
    }

    fn access(&self, request: &mut Request) {
        if self.ask_uncoded {
            request.set_header("accept-encoding", "identity");
        }
        if self.ask_whole {
            request.remove_header("range");
            request.remove_header("if-range");
        }
    }

    fn response_headers(&self, body: &mut Body, _request: &Request, reply: &mut Reply) {
        let content_type = self.wanted_type(reply);
        *body = Body {
            escape: Escape::of_type(content_type.as_deref().unwrap_or_default()),
            stream: content_type.map(|_| Stream::default()),
        };
        // The body that a 304 is about is not known: it may be a text that was changed.
        if body.stream.is_none() && reply.status() != 304 {
            reply.skip_body();
        }
    }

    fn response_body(
        &mut self,
        body: &mut Body,
        request: &Request,
        chunk: &mut Chunk,
    ) -> Result<()> {
        let Body { stream, escape } = body;
        let Some(stream) = stream.as_mut().filter(|it| !it.is_done(&self.patterns)) else {
            return Ok(());
        };
        let expand = |to: &Template, own: Option<Escape>| {
            let escape = own.unwrap_or(*escape);
            to.expand_with(request, None, |value| escape.apply(value))
        };
        let mut emit = |piece: &[u8]| chunk.emit(piece);
        let mut out = Pieces::new(&mut self.out, &mut emit);
        let is_last = chunk.is_last();
        if stream.push(&self.patterns, chunk.data(), is_last, &mut out, expand)? {
            chunk.replace(&self.out);
        }
        Ok(())
    }
}

impl Substitute {
    /// Media type of the response's body in lower case, if it is of a wanted one, and whole.
    fn wanted_type(&self, reply: &Reply) -> Option<String> {
        // A part (206) cannot be searched: where it begins and ends is about the upstream's bytes.
        if matches!(reply.status(), 204 | 206 | 304) {
            return None;
        }
        let coded = reply.header_all("content-encoding").iter().any(|coding| {
            !coding
                .as_bytes()
                .trim_ascii()
                .eq_ignore_ascii_case(b"identity")
        });
        if coded {
            return None;
        }
        let content_type = reply.header("content-type")?;
        let name = content_type.as_str()?.split(';').next()?.trim();
        let name = name.to_ascii_lowercase();
        // Messages of gRPC have their lengths before them, which would be wrong then.
        let is_wanted = !name.starts_with("application/grpc")
            && self.types.iter().any(|wanted| is_type(&name, wanted));
        is_wanted.then_some(name)
    }
}

fn is_type(name: &str, wanted: &str) -> bool {
    match wanted.strip_suffix("/*") {
        Some("*") => true,
        Some(family) => name
            .split_once('/')
            .is_some_and(|(given, _)| given == family),
        None => name == wanted,
    }
}

fn default_types() -> Vec<String> {
    ["text/html", "text/plain", "application/json"]
        .map(String::from)
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use castling_sdk::testing::{self, Exchange};

    fn plugin(json: &str) -> Substitute {
        Substitute::configure(testing::config(json).unwrap()).unwrap()
    }

    /// Body that the client gets of a response in two chunks.
    fn pass(plugin: &mut Substitute, exchange: &mut Exchange) -> String {
        let mut state = Body::default();
        let (request, reply) = exchange.request_and_reply();
        plugin.response_headers(&mut state, request, reply);
        let mut sent = Vec::new();
        for (data, is_last) in [("hello wor", false), ("ld", true)] {
            sent.extend(exchange.pass_chunk(data, is_last, |request, chunk| {
                plugin.response_body(&mut state, request, chunk).unwrap();
            }));
        }
        String::from_utf8(sent).unwrap()
    }

    const WORLD: &str = r#"{"replace": [{"from": "world", "to": "moon"}]}"#;

    #[test]
    fn text_is_replaced() {
        let mut plugin = plugin(WORLD);
        let mut exchange = Exchange::get("/")
            .response_header("content-type", "Text/HTML; charset=utf-8")
            .response_header("content-encoding", "identity");
        assert_eq!(pass(&mut plugin, &mut exchange), "hello moon");
        assert!(!exchange.body_skipped());
    }

    #[test]
    fn other_bodies_are_left_alone() {
        let mut plugin = plugin(WORLD);
        let html = || Exchange::get("/").response_header("content-type", "text/html");
        for exchange in [
            Exchange::get("/").response_header("content-type", "image/png"),
            Exchange::get("/").response(200),
            html().response_header("content-encoding", "gzip"),
            Exchange::get("/")
                .response(206)
                .response_header("content-type", "text/html"),
        ] {
            let mut exchange = exchange;
            assert_eq!(pass(&mut plugin, &mut exchange), "hello world");
            assert!(exchange.body_skipped());
        }
    }

    #[test]
    fn one_response_does_not_reach_into_the_next() {
        let mut plugin = plugin(WORLD);
        for _ in 0..2 {
            let mut exchange = Exchange::get("/").response_header("content-type", "text/plain");
            assert_eq!(pass(&mut plugin, &mut exchange), "hello moon");
        }
    }

    #[test]
    fn a_text_may_have_variables_and_any_case() {
        let mut plugin = plugin(
            r#"{"replace": [{"from": "WORLD", "to": "$host ($status)", "variables": true}], "case": "insensitive", "once": true}"#,
        );
        let mut exchange = Exchange::get("/")
            .host("h.example")
            .response_header("content-type", "text/plain");
        assert_eq!(pass(&mut plugin, &mut exchange), "hello h.example (200)");
    }

    #[test]
    fn values_are_written_as_the_bodys_type_has_them() {
        for (content_type, escape, expected) in [
            ("text/html; charset=utf-8", "", "hello &lt;&quot;>"),
            ("image/svg+xml", "", "hello &lt;&quot;>"),
            ("application/json", "", r#"hello <\">"#),
            ("text/javascript", "", r#"hello \u003c\">"#),
            ("text/plain", "", r#"hello <">"#),
            ("text/html", r#", "escape": "none""#, r#"hello <">"#),
            ("text/plain", r#", "escape": "html""#, "hello &lt;&quot;>"),
        ] {
            let mut plugin = plugin(&format!(
                r#"{{"replace": [{{"from": "world", "to": "$http_x>", "variables": true{escape}}}], "types": ["*/*"]}}"#
            ));
            let mut exchange = Exchange::get("/")
                .header("x", "<\"")
                .response_header("content-type", content_type);
            assert_eq!(pass(&mut plugin, &mut exchange), expected, "{content_type}");
        }
    }

    #[test]
    fn calls_of_grpc_are_never_searched() {
        let mut plugin =
            plugin(&WORLD.replace("}]", "}], \"types\": [\"*/*\", \"application/grpc\"]"));
        for content_type in [
            "application/grpc",
            "application/gRPC+proto",
            "application/grpc-web",
        ] {
            let mut exchange = Exchange::get("/").response_header("content-type", content_type);
            assert_eq!(pass(&mut plugin, &mut exchange), "hello world");
            assert!(exchange.body_skipped());
        }
    }

    #[test]
    fn a_chunk_may_become_more_than_a_piece() {
        let to = "x".repeat(10_000);
        let mut plugin = plugin(&format!(
            r#"{{"replace": [{{"from": "a", "to": "{to}"}}]}}"#
        ));
        let mut exchange = Exchange::get("/").response_header("content-type", "text/html");
        let mut state = Body::default();
        let (request, reply) = exchange.request_and_reply();
        plugin.response_headers(&mut state, request, reply);
        let sent = exchange.pass_chunk("a-".repeat(500), true, |request, chunk| {
            plugin.response_body(&mut state, request, chunk).unwrap();
        });
        assert!(
            sent == format!("{to}-").repeat(500).as_bytes(),
            "{}",
            sent.len()
        );
        assert!(plugin.out.capacity() < 2 * Pieces::MOST_BYTES);
    }

    #[test]
    fn peers_are_asked_for_what_can_be_searched() {
        let asked = || {
            Exchange::get("/")
                .header("accept-encoding", "gzip")
                .header("range", "bytes=0-3")
                .header("if-range", "\"1\"")
        };
        let mut exchange = asked();
        plugin(WORLD).access(exchange.request());
        assert_eq!(
            exchange.request().header("accept-encoding").unwrap(),
            "gzip"
        );
        assert!(exchange.request().header("range").is_some());
        let asking = WORLD.replace("}]", "}], \"ask_uncoded\": true, \"ask_whole\": true");
        let mut exchange = asked();
        plugin(&asking).access(exchange.request());
        assert_eq!(
            exchange.request().header("accept-encoding").unwrap(),
            "identity"
        );
        assert!(exchange.request().header("range").is_none());
        assert!(exchange.request().header("if-range").is_none());
    }

    #[test]
    fn types_may_be_families() {
        for (name, wanted, expected) in [
            ("text/css", "text/*", true),
            ("textile/x", "text/*", false),
            ("a/b", "*/*", true),
            ("text/html", "text/html", true),
            ("text/htmlx", "text/html", false),
        ] {
            assert_eq!(is_type(name, wanted), expected, "{name} {wanted}");
        }
    }

    #[test]
    fn a_bad_config_says_where() {
        for (json, text) in [
            (
                r#"{"replace": []}"#,
                "config.replace: expected 1 to 64 replacements",
            ),
            (
                r#"{"replace": [{"from": "", "to": "x"}]}"#,
                "config.replace[0].from: expected 1 to 1024 bytes",
            ),
            (
                r#"{"replace": [{"from": "a", "to": "$", "variables": true}]}"#,
                "config.replace[0].to: ",
            ),
            (
                r#"{"replace": [{"from": "a", "to": "b", "escape": "none"}]}"#,
                "config.replace[0].escape: it is for a text with `variables = true`",
            ),
            (
                r#"{"replace": [{"from": "a"}]}"#,
                "config.replace[0]: missing field `to`",
            ),
            (
                r#"{"replace": [{"from": "a", "to": "b"}], "types": ["html"]}"#,
                "config.types[0]: expected a content type",
            ),
        ] {
            let error = testing::config(json)
                .and_then(Substitute::configure)
                .err()
                .unwrap();
            assert!(error.to_string().starts_with(text), "{error}");
        }
    }
}
