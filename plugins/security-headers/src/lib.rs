//! Sets the headers by which browsers protect a site's users.
//!
//! README.md has the config.

use castling_sdk::prelude::*;

/// The plugin's config. A header is left out where its value is empty.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `Strict-Transport-Security`, by TLS alone.
    hsts: String,
    /// `X-Content-Type-Options`.
    content_type_options: String,
    /// `X-Frame-Options`.
    frame_options: String,
    referrer_policy: String,
    /// `Content-Security-Policy`. Default none: each site has its own.
    content_security_policy: String,
    /// `Content-Security-Policy-Report-Only`.
    content_security_policy_report_only: String,
    permissions_policy: String,
    /// `Cross-Origin-Opener-Policy`.
    opener_policy: String,
    /// `Cross-Origin-Resource-Policy`.
    resource_policy: String,
    /// `Cross-Origin-Embedder-Policy`. Default none: it keeps a page from loading what does not agree.
    embedder_policy: String,
    /// Whether what the peer has set is replaced. Default false.
    replace: bool,
    /// Fields that are removed.
    remove: Vec<HeaderName>,
}

impl Default for Config {
    fn default() -> Self {
        let text = str::to_owned;
        Self {
            hsts: text("max-age=31536000; includeSubDomains"),
            content_type_options: text("nosniff"),
            frame_options: text("SAMEORIGIN"),
            referrer_policy: text("strict-origin-when-cross-origin"),
            content_security_policy: String::new(),
            content_security_policy_report_only: String::new(),
            permissions_policy: String::new(),
            opener_policy: text("same-origin"),
            resource_policy: text("same-origin"),
            embedder_policy: String::new(),
            replace: false,
            remove: ["server", "x-powered-by"]
                .iter()
                .filter_map(|name| HeaderName::new(*name).ok())
                .collect(),
        }
    }
}

/// The plugin.
pub struct SecurityHeaders {
    hsts: Option<String>,
    /// The others.
    headers: Vec<(&'static str, String)>,
    replace: bool,
    remove: Vec<HeaderName>,
}

const HSTS: &str = "strict-transport-security";

#[plugin]
impl SecurityHeaders {
    fn configure(config: Config) -> Result<Self> {
        let headers = [
            ("x-content-type-options", config.content_type_options),
            ("x-frame-options", config.frame_options),
            ("referrer-policy", config.referrer_policy),
            ("content-security-policy", config.content_security_policy),
            (
                "content-security-policy-report-only",
                config.content_security_policy_report_only,
            ),
            ("permissions-policy", config.permissions_policy),
            ("cross-origin-opener-policy", config.opener_policy),
            ("cross-origin-resource-policy", config.resource_policy),
            ("cross-origin-embedder-policy", config.embedder_policy),
        ];
        for (name, value) in headers.iter().chain([&(HSTS, config.hsts.clone())]) {
            if HeaderValue::new(value).is_err() {
                bail!("config: {name}: expected a text without control characters");
            }
        }
        Ok(Self {
            hsts: Some(config.hsts).filter(|value| !value.is_empty()),
            headers: headers
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .collect(),
            replace: config.replace,
            remove: config.remove,
        })
    }

    fn response_headers(&self, request: &Request, reply: &mut Reply) {
        for name in &self.remove {
            reply.remove_header(name);
        }
        for (name, value) in &self.headers {
            self.set(reply, name, value);
        }
        // RFC 6797 section 7.2: not by plain HTTP.
        if let Some(value) = &self.hsts
            && request.scheme() == "https"
        {
            self.set(reply, HSTS, value);
        }
    }
}

impl SecurityHeaders {
    fn set(&self, reply: &mut Reply, name: &str, value: &str) {
        if self.replace || reply.header(name).is_none() {
            reply.set_header(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use castling_sdk::testing::{self, Exchange};

    use super::*;

    /// Value of a header of the response.
    fn sent(config: &str, exchange: Exchange, name: &str) -> Option<String> {
        let plugin = SecurityHeaders::configure(testing::config(config).unwrap()).unwrap();
        let mut exchange = exchange;
        let (request, reply) = exchange.request_and_reply();
        plugin.response_headers(request, reply);
        reply
            .header(name)
            .map(|value| value.to_string_lossy().into_owned())
    }

    fn answered() -> Exchange {
        Exchange::get("/").response(200)
    }

    #[test]
    fn what_is_set_is_sent_and_what_the_peer_has_set_stays() {
        let nosniff = Some("nosniff".to_owned());
        assert_eq!(sent("{}", answered(), "x-content-type-options"), nosniff);
        let own = || answered().response_header("x-frame-options", "DENY");
        assert_eq!(sent("{}", own(), "x-frame-options").unwrap(), "DENY");
        let replaced = sent(r#"{"replace": true}"#, own(), "x-frame-options");
        assert_eq!(replaced.unwrap(), "SAMEORIGIN");
        assert_eq!(
            sent(r#"{"frame_options": ""}"#, answered(), "x-frame-options"),
            None
        );
        let csp = r#"{"content_security_policy": "default-src 'self'"}"#;
        assert_eq!(
            sent(csp, answered(), "content-security-policy").unwrap(),
            "default-src 'self'"
        );
        let server = answered().response_header("server", "x/1");
        assert_eq!(sent("{}", server, "server"), None);
    }

    #[test]
    fn plain_http_is_told_nothing_of_tls() {
        assert_eq!(sent("{}", answered(), HSTS), None);
        let sent = sent("{}", answered().scheme("https"), HSTS);
        assert_eq!(sent.unwrap(), "max-age=31536000; includeSubDomains");
    }

    #[test]
    fn a_value_that_ends_its_line_is_refused() {
        let config = testing::config(r#"{"referrer_policy": "a\r\nb: c"}"#).unwrap();
        let refused = SecurityHeaders::configure(config)
            .err()
            .unwrap()
            .to_string();
        assert!(
            refused.contains("referrer-policy: expected a text without control characters"),
            "{refused}"
        );
    }
}
