//! Answers with what it was asked: an origin for demos and tests.
//!
//! README.md has the config and what a client can ask for.

use castling_sdk::prelude::*;
use serde::Serialize;

/// The plugin and its config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hello {
    /// Name of the one that says hello. Default `hello`.
    name: String,
    /// Path prefixes, by whole segments, that it answers; others are left to the upstream. Default: every path.
    paths: Vec<String>,
}

impl Default for Hello {
    fn default() -> Self {
        Self {
            name: String::from("hello"),
            paths: Vec::new(),
        }
    }
}

/// Wishes of the client, in the query.
#[derive(Debug, PartialEq, Eq)]
struct Wishes {
    status: u16,
    /// A body of so many bytes in the place of the usual one.
    bytes: Option<usize>,
}

/// Largest `?bytes=`.
const MOST_BYTES: usize = 1024 * 1024;

#[plugin]
impl Hello {
    fn configure(config: Self) -> Result<Self> {
        if HeaderValue::new(&config.name).is_err() {
            bail!("config.name: a control character is in it");
        }
        for (i, path) in config.paths.iter().enumerate() {
            if !path.starts_with('/') {
                bail!("config.paths[{i}]: `{path}` does not begin with `/`");
            }
        }
        Ok(config)
    }

    fn content(&self, request: &mut Request) -> Verdict {
        let path = request.path();
        if !self.answers(&path) {
            return Verdict::Continue;
        }
        let query = request.query().unwrap_or_default();
        let wishes = match Wishes::parse(&query) {
            Ok(wishes) => wishes,
            Err(error) => {
                return Response::status(400)
                    .header("content-type", "text/plain; charset=utf-8")
                    .body(format!("{error}\n"))
                    .into();
            }
        };
        let wants_json = request
            .header("accept")
            .is_some_and(|accept| accept.to_string_lossy().contains("application/json"));
        let (content_type, body) = match wishes.bytes {
            Some(len) => ("application/octet-stream", filler(len)),
            None if wants_json => ("application/json", self.json(request, &path, &query)),
            None => (
                "text/plain; charset=utf-8",
                self.text(request, &path, &query),
            ),
        };
        Response::status(wishes.status)
            .header("content-type", content_type)
            .header("x-origin", &self.name)
            .body(body)
            .into()
    }
}

impl Hello {
    fn answers(&self, path: &str) -> bool {
        self.paths.is_empty() || self.paths.iter().any(|prefix| under(path, prefix))
    }

    fn text(&self, request: &Request, path: &str, query: &str) -> Vec<u8> {
        let mark = if query.is_empty() { "" } else { "?" };
        let mut text = format!(
            "hello from {}\n\n{} {path}{mark}{query}\n",
            self.name,
            request.method()
        )
        .into_bytes();
        for (name, value) in request.headers().iter() {
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value);
            text.push(b'\n');
        }
        text
    }

    fn json(&self, request: &Request, path: &str, query: &str) -> Vec<u8> {
        #[derive(Serialize)]
        struct Seen<'a> {
            origin: &'a str,
            method: &'a str,
            path: &'a str,
            query: &'a str,
            client_address: &'a str,
            /// Pairs: a name may come twice.
            headers: Vec<(&'a str, String)>,
        }
        let headers = request.headers();
        let seen = Seen {
            origin: &self.name,
            method: &request.method(),
            path,
            query,
            client_address: &request.client_address(),
            headers: headers
                .iter()
                .map(|(name, value)| (name, String::from_utf8_lossy(value).into_owned()))
                .collect(),
        };
        let mut json = serde_json::to_vec_pretty(&seen).unwrap_or_default();
        json.push(b'\n');
        json
    }
}

impl Wishes {
    fn parse(query: &str) -> Result<Self> {
        let mut wishes = Self {
            status: 200,
            bytes: None,
        };
        for pair in query.split('&') {
            match pair.split_once('=') {
                Some(("status", text)) => match text.parse() {
                    Ok(status) if (200..600).contains(&status) => wishes.status = status,
                    _ => bail!("status: expected 200 to 599"),
                },
                Some(("bytes", text)) => match text.parse() {
                    Ok(bytes) if bytes <= MOST_BYTES => wishes.bytes = Some(bytes),
                    _ => bail!("bytes: expected 0 to {MOST_BYTES}"),
                },
                _ => {}
            }
        }
        Ok(wishes)
    }
}

/// Whether the path is the prefix or lies below it.
fn under(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Lines of 64 bytes, so that a cut or a repeated piece is easy to see.
fn filler(len: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(len + 64);
    while body.len() < len {
        let offset = body.len();
        body.extend_from_slice(format!("{offset:08} {:.<54}\n", "").as_bytes());
    }
    body.truncate(len);
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use castling_sdk::testing::{self, Exchange};

    fn answer(plugin: &Hello, exchange: Exchange) -> Response {
        let mut exchange = exchange;
        match plugin.content(exchange.request()) {
            Verdict::Answer(response) => response,
            other => panic!("{other:?}"),
        }
    }

    fn text(response: &Response) -> &str {
        std::str::from_utf8(response.body_bytes()).unwrap()
    }

    #[test]
    fn it_shows_what_it_was_asked() {
        let plugin = Hello {
            name: String::from("a"),
            ..Hello::default()
        };
        let response = answer(&plugin, Exchange::get("/x?y=z").header("X-Token", "t"));
        assert_eq!(response.status_code(), 200);
        assert_eq!(response.header_value("x-origin").unwrap(), "a");
        assert_eq!(
            text(&response),
            "hello from a\n\nGET /x?y=z\nhost: example.com\nx-token: t\n"
        );
    }

    #[test]
    fn it_speaks_json_where_asked_to() {
        let exchange = Exchange::new("POST", "/x")
            .header("accept", "application/json")
            .header("b", b"\xff");
        let response = answer(&Hello::default(), exchange);
        let seen: serde_json::Value = serde_json::from_slice(response.body_bytes()).unwrap();
        assert_eq!(seen["origin"], "hello");
        assert_eq!(seen["method"], "POST");
        assert_eq!(seen["headers"][2], serde_json::json!(["b", "\u{fffd}"]));
    }

    #[test]
    fn a_status_and_a_length_can_be_asked_for() {
        let response = answer(&Hello::default(), Exchange::get("/?status=503&bytes=1000"));
        assert_eq!(response.status_code(), 503);
        assert_eq!(response.body_bytes().len(), 1000);
        assert!(
            text(&response)
                .lines()
                .nth(1)
                .unwrap()
                .starts_with("00000064 ")
        );
        let most = answer(&Hello::default(), Exchange::get("/?bytes=1048576"));
        assert_eq!(most.body_bytes().len(), MOST_BYTES);
    }

    #[test]
    fn what_cannot_be_is_a_400() {
        for query in [
            "status=99",
            "status=600",
            "status=x",
            "bytes=1048577",
            "bytes=-1",
        ] {
            let response = answer(&Hello::default(), Exchange::get(&format!("/?{query}")));
            assert_eq!(response.status_code(), 400, "{query}");
        }
    }

    #[test]
    fn paths_that_are_not_its_own_are_left_to_the_upstream() {
        let plugin =
            Hello::configure(testing::config(r#"{"paths": ["/a", "/b/"]}"#).unwrap()).unwrap();
        for (path, answers) in [
            ("/a", true),
            ("/a/x", true),
            ("/ax", false),
            ("/b", true),
            ("/", false),
        ] {
            assert_eq!(plugin.answers(path), answers, "{path}");
        }
        assert_eq!(
            plugin.content(Exchange::get("/").request()),
            Verdict::Continue
        );
    }

    #[test]
    fn a_bad_config_says_where() {
        let error = testing::config(r#"{"paths": ["a"]}"#)
            .and_then(Hello::configure)
            .err()
            .unwrap();
        assert_eq!(
            error.to_string(),
            "config.paths[0]: `a` does not begin with `/`"
        );
    }
}
