//! Asks an authentication service whether a request may pass, as nginx's `auth_request` does.
//!
//! README.md has the config.

use castling_sdk::prelude::*;
use castling_sdk::units;

/// The plugin's config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the service is.
    upstream: String,
    /// Target that the service is asked for: path, or path and query. Default `/`.
    #[serde(default = "root")]
    path: String,
    /// How it is asked. Default `GET`.
    #[serde(default = "get")]
    method: String,
    /// Headers of the client that the service gets to see. Default `authorization` and `cookie`.
    #[serde(default = "credentials")]
    forward: Vec<HeaderName>,
    /// Headers of a 2xx that the request takes on. What the client sent under these names is gone, whatever the
    /// service answers. Default none.
    #[serde(default)]
    copy: Vec<HeaderName>,
    /// Longest wait for the answer. Above zero. Default 5 s.
    #[serde(
        default = "five_seconds",
        deserialize_with = "units::duration_above_zero"
    )]
    timeout: Duration,
    /// Whether a request passes when the service cannot say. Default false: the hook fails.
    #[serde(default)]
    fail_open: bool,
}

/// The plugin.
pub struct ExternalAuth {
    config: Config,
}

#[plugin]
impl ExternalAuth {
    fn configure(config: Config) -> Result<Self> {
        if config.upstream.is_empty() {
            bail!("config.upstream: empty");
        }
        http::must_be_granted(&config.upstream)
            .map_err(|error| error.context("config.upstream"))?;
        if !config.path.starts_with('/') {
            bail!("config.path: `{}` does not begin with `/`", config.path);
        }
        if HeaderName::new(config.method.as_str()).is_err() {
            bail!("config.method: `{}` is not a method", config.method);
        }
        for (key, names) in [("forward", &config.forward), ("copy", &config.copy)] {
            for (i, name) in names.iter().enumerate() {
                if NOT_COPIED.contains(&name.as_str()) {
                    bail!("config.{key}[{i}]: `{name}` is not copied from message to message");
                }
            }
        }
        Ok(Self { config })
    }

    fn access(&self, request: &mut Request) -> Result<Verdict> {
        let question = self.question(request);
        // Before anything can fail: upstreams trust these.
        for name in &self.config.copy {
            request.remove_header(name);
        }
        match self.ask(question) {
            Ok(answer) => Ok(self.decide(request, &answer)),
            Err(error) if self.config.fail_open => {
                log::warn!("{error}: the request passes unauthenticated");
                Ok(Verdict::Continue)
            }
            Err(error) => Err(error),
        }
    }
}

impl ExternalAuth {
    fn question(&self, request: &Request) -> http::Request {
        let config = &self.config;
        let mut question = http::Request::new(config.method.as_str(), config.path.as_str())
            .timeout(config.timeout)
            .header("x-original-method", request.method())
            .header("x-original-uri", target(request))
            .header("x-original-host", request.host())
            .header("x-original-scheme", request.scheme())
            .header("x-real-ip", request.client_address());
        for name in &config.forward {
            for value in request.header_all(name) {
                question = question.header(name, value);
            }
        }
        question
    }

    /// A response that decides. Fails when there is none.
    fn ask(&self, question: http::Request) -> Result<http::Response> {
        let upstream = &self.config.upstream;
        let answer = http::send(upstream, question)?;
        match answer.status() {
            200..=299 | 401 | 403 => Ok(answer),
            status => bail!("upstream {upstream} answered {status}: expected 2xx, 401 or 403"),
        }
    }

    fn decide(&self, request: &mut Request, answer: &http::Response) -> Verdict {
        if !(200..=299).contains(&answer.status()) {
            return refuse(answer);
        }
        for name in &self.config.copy {
            for value in answer.headers().all(name.as_str()) {
                request.add_header(name, value);
            }
        }
        Verdict::Continue
    }
}

/// The service's own refusal.
fn refuse(answer: &http::Response) -> Verdict {
    let mut response = Response::status(answer.status()).body(answer.body());
    for name in ["www-authenticate", "content-type"] {
        for value in answer.headers().all(name) {
            response = response.header(name, value);
        }
    }
    response.into()
}

/// Path and query, as they came.
fn target(request: &Request) -> String {
    match request.query() {
        Some(query) => format!("{}?{query}", request.path()),
        None => request.path(),
    }
}

fn root() -> String {
    String::from("/")
}

fn get() -> String {
    String::from("GET")
}

fn credentials() -> Vec<HeaderName> {
    ["authorization", "cookie"]
        .map(|name| HeaderName::new(name).expect("it is a header name"))
        .into()
}

const fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

/// Fields that frame a message or say where it goes (RFC 9110 §7.6.1, RFC 9112 §6), and those that the plugin sets itself.
const NOT_COPIED: [&str; 14] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-original-host",
    "x-original-method",
    "x-original-scheme",
    "x-original-uri",
    "x-real-ip",
];

#[cfg(test)]
mod tests {
    use super::*;
    use castling_sdk::testing::{self, Exchange};

    fn plugin(json: &str) -> ExternalAuth {
        ExternalAuth::configure(testing::config(json).unwrap()).unwrap()
    }

    fn answer(verdict: Verdict) -> Response {
        match verdict {
            Verdict::Answer(response) => response,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_service_sees_what_it_has_to_judge() {
        let plugin = plugin(
            r#"{"upstream": "auth", "path": "/verify?x=1", "forward": ["x-key"], "timeout": "2s"}"#,
        );
        let mut exchange = Exchange::new("POST", "/a/b?c=d")
            .header("x-key", "1")
            .header("x-key", "2")
            .header("cookie", "not asked for")
            .body("not sent")
            .call("auth", |_| Response::status(204));
        let verdict = plugin.access(exchange.request()).unwrap();
        assert_eq!(verdict, Verdict::Continue);
        let expected = http::Request::get("/verify?x=1")
            .timeout(Duration::from_secs(2))
            .header("x-original-method", "POST")
            .header("x-original-uri", "/a/b?c=d")
            .header("x-original-host", "example.com")
            .header("x-original-scheme", "http")
            .header("x-real-ip", "192.0.2.1")
            .header("x-key", "1")
            .header("x-key", "2");
        assert_eq!(exchange.calls(), [(String::from("auth"), expected)]);
    }

    #[test]
    fn a_2xx_passes_and_its_headers_are_taken_on() {
        let plugin = plugin(r#"{"upstream": "auth", "copy": ["x-user", "x-groups"]}"#);
        let mut exchange = Exchange::get("/")
            .header("authorization", "Bearer t")
            .header("x-user", "forged")
            .header("x-groups", "forged")
            .call("auth", |question| {
                assert_eq!(question.header_value("authorization").unwrap(), "Bearer t");
                assert_eq!(question.header_value("x-user"), None);
                Response::status(200).header("X-User", "ada")
            });
        plugin.access(exchange.request()).unwrap();
        let request = exchange.request();
        let users = request.header_all("x-user");
        assert_eq!(users, [HeaderValue::new("ada").unwrap()]);
        assert_eq!(request.header("x-groups"), None);
    }

    #[test]
    fn a_refusal_is_the_clients_to_see() {
        let plugin = plugin(r#"{"upstream": "auth"}"#);
        for status in [401, 403] {
            let mut exchange = Exchange::get("/").call("auth", move |_| {
                Response::status(status)
                    .header("www-authenticate", "Bearer realm=\"a\"")
                    .header("www-authenticate", "Basic")
                    .header("server", "hidden")
                    .body("no")
            });
            let refusal = answer(plugin.access(exchange.request()).unwrap());
            let expected = Response::status(status)
                .header("www-authenticate", "Bearer realm=\"a\"")
                .header("www-authenticate", "Basic")
                .body("no");
            assert_eq!(refusal, expected);
        }
    }

    #[test]
    fn what_does_not_decide_fails_the_hook() {
        let plugin = plugin(r#"{"upstream": "auth", "copy": ["x-user"]}"#);
        let mut broken = Exchange::get("/")
            .header("x-user", "forged")
            .call("auth", |_| Response::status(502));
        let error = plugin.access(broken.request()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "upstream auth answered 502: expected 2xx, 401 or 403"
        );
        assert_eq!(broken.request().header("x-user"), None);

        let mut gone = Exchange::get("/").failing_call("auth", "no response in 5s");
        let error = plugin.access(gone.request()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "http::send(\"auth\", GET /): no response in 5s"
        );
    }

    #[test]
    fn or_lets_the_request_pass_where_the_config_says_so() {
        let plugin = plugin(r#"{"upstream": "auth", "copy": ["x-user"], "fail_open": true}"#);
        let mut gone = Exchange::get("/")
            .header("x-user", "forged")
            .failing_call("auth", "no response in 5s");
        let verdict = plugin.access(gone.request()).unwrap();
        assert_eq!(verdict, Verdict::Continue);
        assert_eq!(gone.request().header("x-user"), None);
        assert_eq!(testing::take_log().len(), 1);
        let mut refused = Exchange::get("/").call("auth", |_| Response::status(403));
        let refusal = answer(plugin.access(refused.request()).unwrap());
        assert_eq!(refusal.status_code(), 403);
    }

    #[test]
    fn a_bad_config_says_where() {
        for (json, text) in [
            ("{}", "config: missing field `upstream`"),
            (
                r#"{"upstream": "a", "path": "x"}"#,
                "config.path: `x` does not begin with `/`",
            ),
            (
                r#"{"upstream": "a", "method": "G T"}"#,
                "config.method: `G T` is not a method",
            ),
            (
                r#"{"upstream": "a", "timeout": 0}"#,
                "config.timeout: invalid value: integer `0`, expected a duration above",
            ),
            (
                r#"{"upstream": "a", "copy": ["x", "Content-Length"]}"#,
                "config.copy[1]: `content-length` is not copied",
            ),
            (
                r#"{"upstream": "a", "forward": ["host"]}"#,
                "config.forward[0]: `host` is not copied",
            ),
        ] {
            let error = testing::config(json)
                .and_then(ExternalAuth::configure)
                .err();
            let error = error.expect(json).to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
