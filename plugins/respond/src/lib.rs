//! Answers requests by itself: a status, headers and a body, with variables of the request.
//!
//! README.md has the config.

use std::collections::BTreeMap;

use castling_sdk::prelude::*;
use castling_sdk::template::{self, Template};

/// The plugin's config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// 200 to 599. Default 200.
    #[serde(default = "ok")]
    status: u16,
    /// Values may have variables in them. Default none.
    #[serde(default)]
    headers: BTreeMap<HeaderName, Template>,
    /// May have variables in it. Default empty.
    #[serde(default, deserialize_with = "template::body")]
    body: Template,
    /// How variables' values are written into the body. Default `html`.
    #[serde(default)]
    escape: Escape,
    /// Methods that are answered; others get 405. Default all.
    #[serde(default)]
    methods: Vec<String>,
}

/// Characters of a value that could end the text around it, and are written otherwise.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Escape {
    /// `& < > " '` as in HTML.
    #[default]
    Html,
    /// Characters that a JSON string cannot have.
    Json,
    None,
}

/// The plugin, which is its config.
pub struct Respond(Config);

#[plugin]
impl Respond {
    fn configure(config: Config) -> Result<Self> {
        if !(200..=599).contains(&config.status) {
            bail!("config.status: {}: expected 200 to 599", config.status);
        }
        if let Some(method) = config.methods.iter().find(|method| !is_method(method)) {
            bail!("config.methods: `{method}`: expected a method in upper case");
        }
        let response = config
            .headers
            .iter()
            .find(|(_, value)| value.needs_response());
        if let Some((name, _)) = response {
            bail!("config.headers.{name}: it speaks of the response, which this is");
        }
        if config.body.needs_response() {
            bail!("config.body: it speaks of the response, which this is");
        }
        if matches!(config.status, 204 | 304) && config.body.as_text() != Some("") {
            bail!("config.body: a response {} has none", config.status);
        }
        Ok(Self(config))
    }

    fn content(&self, request: &mut Request) -> Verdict {
        let config = &self.0;
        let method = request.method();
        if !config.methods.is_empty() && !config.methods.contains(&method) {
            let allow = config.methods.join(", ");
            return Response::status(405).header("allow", allow).into();
        }
        let mut response = Response::status(config.status);
        for (name, value) in &config.headers {
            response = response.header(name, value.expand(request, None));
        }
        response.body(self.body(request)).into()
    }
}

impl Respond {
    fn body(&self, request: &Request) -> Vec<u8> {
        let escape: fn(&[u8]) -> Vec<u8> = match self.0.escape {
            Escape::Html => template::escape_html,
            Escape::Json => template::escape_json,
            Escape::None => <[u8]>::to_vec,
        };
        self.0.body.expand_with(request, None, escape)
    }
}

fn is_method(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'-')
}

fn ok() -> u16 {
    200
}

#[cfg(test)]
mod tests {
    use castling_sdk::testing::{self, Exchange};

    use super::*;

    fn answered(config: &str, exchange: Exchange) -> Response {
        let plugin = Respond::configure(testing::config(config).unwrap()).unwrap();
        let mut exchange = exchange;
        match plugin.content(exchange.request()) {
            Verdict::Answer(response) => response,
            verdict => panic!("{verdict:?}"),
        }
    }

    #[test]
    fn a_request_is_answered_by_what_it_says() {
        let config = r#"{"status": 404, "headers": {"x-path": "$path"}, "body": "<p>$path?$arg_q is not at $host</p>\n"}"#;
        let response = answered(config, Exchange::get("/a?q=%3Cb%3E&c").host("h.example"));
        assert_eq!(response.status_code(), 404);
        assert_eq!(response.header_value("x-path").unwrap(), "/a");
        let body = "<p>/a?&lt;b&gt; is not at h.example</p>\n";
        assert_eq!(String::from_utf8_lossy(response.body_bytes()), body);
        let config = r#"{"escape": "json", "body": "{\"agent\":\"$http_user_agent\"}"}"#;
        let response = answered(config, Exchange::get("/").header("user-agent", "a\"b\\c"));
        assert_eq!(response.body_bytes(), br#"{"agent":"a\"b\\c"}"#);
    }

    #[test]
    fn other_methods_are_told_which_there_are() {
        let config = r#"{"methods": ["GET", "HEAD"]}"#;
        assert_eq!(answered(config, Exchange::get("/")).status_code(), 200);
        let refused = answered(config, Exchange::new("POST", "/"));
        assert_eq!(refused.status_code(), 405);
        assert_eq!(refused.header_value("allow").unwrap(), "GET, HEAD");
    }

    #[test]
    fn a_config_without_sense_is_refused() {
        for (config, error) in [
            (
                r#"{"status": 99}"#,
                "config.status: 99: expected 200 to 599",
            ),
            (
                r#"{"methods": ["get"]}"#,
                "config.methods: `get`: expected a method in upper case",
            ),
            (
                r#"{"body": "$status"}"#,
                "config.body: it speaks of the response",
            ),
            (
                r#"{"headers": {"a": "$sent_http_b"}}"#,
                "config.headers.a: it speaks of the response",
            ),
            (
                r#"{"status": 204, "body": "x"}"#,
                "config.body: a response 204 has none",
            ),
        ] {
            let refused = testing::config(config).and_then(Respond::configure).err();
            let refused = refused.map(|error| error.to_string()).unwrap_or_default();
            assert!(refused.contains(error), "{config}: {refused}");
        }
    }
}
