//! Answers preflights and lets chosen origins read responses (CORS, <https://fetch.spec.whatwg.org/#http-cors-protocol>).
//!
//! README.md has the config.

mod origin;

use castling_sdk::prelude::*;
use castling_sdk::units;

use crate::origin::OriginPattern;

/// The plugin's config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Origins that may read responses. At least one.
    origins: Vec<OriginPattern>,
    /// Methods that they may ask with. Default `GET`, `HEAD` and `POST`.
    #[serde(default = "simple_methods")]
    methods: Vec<String>,
    /// Request headers they may set, besides those that need no leave. `*` is any. Default none.
    #[serde(default)]
    headers: Vec<HeaderName>,
    /// Response headers they may read, besides those that need no leave. `*` is any. Default none.
    #[serde(default)]
    exposed: Vec<HeaderName>,
    /// Whether they may send cookies and the like. Default false.
    #[serde(default)]
    credentials: bool,
    /// How long a browser may keep a preflight's answer, in whole seconds. Default 5 s, as where it is not said.
    #[serde(default = "five_seconds", deserialize_with = "units::duration")]
    max_age: Duration,
}

/// The plugin: the config as header values.
pub struct Cors {
    origins: Vec<OriginPattern>,
    /// Whether any origin is allowed without being named, so that responses do not depend on it.
    any: bool,
    methods: String,
    headers: String,
    exposed: String,
    credentials: bool,
    max_age: String,
}

#[plugin]
impl Cors {
    fn configure(config: Config) -> Result<Self> {
        if config.origins.is_empty() {
            bail!("config.origins: none; leave the plugin out instead");
        }
        for (i, method) in config.methods.iter().enumerate() {
            if HeaderName::new(method.as_str()).is_err() {
                bail!("config.methods[{i}]: `{method}` is not a method");
            }
        }
        let any = config.origins.contains(&OriginPattern::Any);
        let stars = [
            ("origins", any),
            ("methods", config.methods.iter().any(|method| method == "*")),
            ("headers", config.headers.iter().any(|name| *name == "*")),
            ("exposed", config.exposed.iter().any(|name| *name == "*")),
        ];
        for (key, has_star) in stars {
            // Fetch §3.3.5: with credentials, browsers take it for a name.
            if config.credentials && has_star {
                bail!("config.{key}: `*` means nothing with credentials; list them");
            }
        }
        Ok(Self {
            origins: config.origins,
            any,
            methods: config.methods.join(", "),
            headers: list(&config.headers),
            exposed: list(&config.exposed),
            credentials: config.credentials,
            max_age: config.max_age.as_secs().to_string(),
        })
    }

    /// Before `access`: browsers send preflights without credentials.
    fn preaccess(&self, request: &mut Request) -> Verdict {
        if !is_preflight(request) {
            return Verdict::Continue;
        }
        match self.allowed(request) {
            Some(origin) => self.leave(&origin).into(),
            None => Response::status(403)
                .header("content-type", "text/plain")
                .header("vary", "Origin")
                .body("origin not allowed\n")
                .into(),
        }
    }

    fn response_headers(&self, request: &Request, reply: &mut Reply) {
        if is_preflight(request) {
            return;
        }
        // The upstream's own fields do not count: two answers would be none.
        for name in [ALLOW_ORIGIN, ALLOW_CREDENTIALS, EXPOSE_HEADERS] {
            reply.remove_header(name);
        }
        if !self.any {
            vary_by_origin(reply);
        }
        let Some(origin) = self.allowed(request) else {
            return;
        };
        reply.set_header(ALLOW_ORIGIN, origin);
        if self.credentials {
            reply.set_header(ALLOW_CREDENTIALS, "true");
        }
        if !self.exposed.is_empty() {
            reply.set_header(EXPOSE_HEADERS, &self.exposed);
        }
    }
}

impl Cors {
    /// The value of `Access-Control-Allow-Origin`; `None` when the origin is not allowed, or there is none.
    fn allowed(&self, request: &Request) -> Option<HeaderValue> {
        let origin = request.header("origin")?;
        let text = origin.as_str()?;
        if self.any {
            return HeaderValue::new("*").ok();
        }
        let allowed = self.origins.iter().any(|pattern| pattern.matches(text));
        allowed.then_some(origin)
    }

    /// The answer to a preflight. Whether it covers what was asked for, the browser finds out.
    fn leave(&self, origin: &HeaderValue) -> Response {
        let mut response = Response::status(204)
            .header(ALLOW_ORIGIN, origin)
            .header("access-control-allow-methods", &self.methods)
            .header("access-control-max-age", &self.max_age);
        if !self.headers.is_empty() {
            response = response.header("access-control-allow-headers", &self.headers);
        }
        if self.credentials {
            response = response.header(ALLOW_CREDENTIALS, "true");
        }
        if !self.any {
            response = response.header("vary", "Origin");
        }
        response
    }
}

/// Fetch §3.3.2: a CORS-preflight request.
fn is_preflight(request: &Request) -> bool {
    request.method() == "OPTIONS"
        && request.header("origin").is_some()
        && request.header("access-control-request-method").is_some()
}

/// Also for requests without an origin: a cache may keep theirs for those with one.
fn vary_by_origin(reply: &mut Reply) {
    let said = reply.header_all("vary").iter().any(|value| {
        let value = value.to_string_lossy();
        value
            .split(',')
            .any(|name| name.trim() == "*" || name.trim().eq_ignore_ascii_case("origin"))
    });
    if !said {
        reply.add_header("vary", "Origin");
    }
}

fn list(names: &[HeaderName]) -> String {
    let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
    names.join(", ")
}

fn simple_methods() -> Vec<String> {
    ["GET", "HEAD", "POST"].map(String::from).into()
}

const fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

const ALLOW_ORIGIN: &str = "access-control-allow-origin";
const ALLOW_CREDENTIALS: &str = "access-control-allow-credentials";
const EXPOSE_HEADERS: &str = "access-control-expose-headers";

#[cfg(test)]
mod tests {
    use super::*;
    use castling_sdk::testing::{self, Exchange};

    fn plugin(json: &str) -> Cors {
        Cors::configure(testing::config(json).unwrap()).unwrap()
    }

    fn with_credentials() -> Cors {
        plugin(
            r#"{"origins": ["https://a.example"], "methods": ["GET", "PUT"], "headers": ["X-A", "x-b"],
                "exposed": ["x-c"], "credentials": true, "max_age": "1h"}"#,
        )
    }

    fn preflight(origin: &str) -> Exchange {
        Exchange::new("OPTIONS", "/")
            .header("origin", origin)
            .header("access-control-request-method", "PUT")
    }

    fn passed(plugin: &Cors, exchange: Exchange) -> Exchange {
        let mut exchange = exchange;
        let (request, reply) = exchange.request_and_reply();
        plugin.response_headers(request, reply);
        exchange
    }

    fn text(value: Option<HeaderValue>) -> Option<String> {
        value.map(|value| value.to_string_lossy().into_owned())
    }

    #[test]
    fn a_preflight_is_answered() {
        let answer = with_credentials().preaccess(preflight("https://a.example").request());
        let expected = Response::status(204)
            .header("access-control-allow-origin", "https://a.example")
            .header("access-control-allow-methods", "GET, PUT")
            .header("access-control-max-age", "3600")
            .header("access-control-allow-headers", "x-a, x-b")
            .header("access-control-allow-credentials", "true")
            .header("vary", "Origin");
        assert_eq!(answer, expected.into());

        let answer =
            plugin(r#"{"origins": ["*"]}"#).preaccess(preflight("https://b.example").request());
        let expected = Response::status(204)
            .header("access-control-allow-origin", "*")
            .header("access-control-allow-methods", "GET, HEAD, POST")
            .header("access-control-max-age", "5");
        assert_eq!(answer, expected.into());
    }

    #[test]
    fn a_preflight_from_elsewhere_is_refused() {
        let answer = with_credentials().preaccess(preflight("https://b.example").request());
        let Verdict::Answer(response) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(response.status_code(), 403);
        assert_eq!(response.header_value("access-control-allow-origin"), None);
    }

    #[test]
    fn what_is_no_preflight_goes_on() {
        let plugin = with_credentials();
        for mut exchange in [
            Exchange::get("/").header("origin", "https://b.example"),
            Exchange::new("OPTIONS", "/").header("origin", "https://a.example"),
            Exchange::new("OPTIONS", "/").header("access-control-request-method", "PUT"),
        ] {
            assert_eq!(plugin.preaccess(exchange.request()), Verdict::Continue);
        }
    }

    #[test]
    fn responses_say_who_may_read_them() {
        let plugin = with_credentials();
        let upstreams = |origin: &str| {
            Exchange::get("/")
                .header("origin", origin)
                .response_header("access-control-allow-origin", "*")
                .response_header("vary", "accept-encoding")
        };
        let mut exchange = passed(&plugin, upstreams("https://a.example"));
        let reply = exchange.reply();
        assert_eq!(reply.header(ALLOW_ORIGIN).unwrap(), "https://a.example");
        assert_eq!(reply.header(ALLOW_CREDENTIALS).unwrap(), "true");
        assert_eq!(reply.header(EXPOSE_HEADERS).unwrap(), "x-c");
        assert_eq!(reply.header_all("vary").len(), 2);

        let mut exchange = passed(&plugin, upstreams("https://b.example"));
        let reply = exchange.reply();
        assert_eq!(reply.header(ALLOW_ORIGIN), None);
        assert_eq!(reply.header_all("vary").len(), 2);
    }

    #[test]
    fn vary_is_said_once_and_where_it_is_so() {
        let vary = |plugin: &Cors, exchange: Exchange| {
            text(passed(plugin, exchange).reply().header("vary"))
        };
        let get = || Exchange::get("/").response(200);
        let named = with_credentials();
        let said = |value: &str| Some(String::from(value));
        assert_eq!(vary(&named, get()), said("Origin"));
        let upstreams = get().response_header("vary", "a, ORIGIN");
        assert_eq!(vary(&named, upstreams), said("a, ORIGIN"));
        let any = plugin(r#"{"origins": ["*"]}"#);
        assert_eq!(vary(&any, get()), None);
    }

    #[test]
    fn a_bad_config_says_where() {
        for (json, text) in [
            (r#"{"origins": []}"#, "config.origins: none"),
            (
                r#"{"origins": ["https://a", "a.example"]}"#,
                "config.origins[1]: `a.example` is not an origin",
            ),
            (
                r#"{"origins": ["*"], "credentials": true}"#,
                "config.origins: `*` means nothing with credentials",
            ),
            (
                r#"{"origins": ["https://a"], "headers": ["*"], "credentials": true}"#,
                "config.headers: `*` means nothing",
            ),
            (
                r#"{"origins": ["*"], "methods": ["GET", "P T"]}"#,
                "config.methods[1]: `P T` is not a method",
            ),
        ] {
            let error = testing::config(json).and_then(Cors::configure).err();
            let error = error.expect(json).to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
