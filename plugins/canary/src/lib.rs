//! Splits requests between variants by weight, header or sticky cookie, and says which one it is in a header that routes
//! match on.
//!
//! README.md has the config.

use std::collections::BTreeMap;

use castling_sdk::prelude::*;
use castling_sdk::units;

/// The plugin's config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Weights by name. At least one is above 0.
    variants: BTreeMap<String, u32>,
    /// Where routes and upstreams find the variant. Default `x-variant`.
    #[serde(default = "x_variant")]
    header: HeaderName,
    /// Where plugins and the access log find it. Default `variant`.
    #[serde(default = "variant")]
    variable: String,
    /// A header in which a client may name the variant that it wants. Default none.
    #[serde(default)]
    choose_header: Option<HeaderName>,
    /// A cookie that keeps a client with its variant. Default none: each request for itself.
    #[serde(default)]
    cookie: Option<String>,
    /// How long a browser keeps it, in whole seconds. Above zero. Default 1 day.
    #[serde(default = "one_day", deserialize_with = "units::duration")]
    cookie_max_age: Duration,
}

/// The plugin.
pub struct Canary {
    config: Config,
    total_weight: u64,
}

#[plugin]
impl Canary {
    fn configure(config: Config) -> Result<Self> {
        for name in config.variants.keys() {
            if !is_token(name) {
                bail!(
                    "config.variants: `{name}`: expected a name of letters, digits, `-`, `_` and `.`"
                );
            }
        }
        let total_weight = config.variants.values().copied().map(u64::from).sum();
        if total_weight == 0 {
            bail!("config.variants: none has a weight above 0");
        }
        if !is_variable(&config.variable) {
            bail!(
                "config.variable: `{}`: expected a-z, 0-9 and _",
                config.variable
            );
        }
        if let Some(cookie) = config.cookie.as_ref().filter(|cookie| !is_token(cookie)) {
            bail!("config.cookie: `{cookie}`: expected letters, digits, `-`, `_` and `.`");
        }
        if config.cookie_max_age.as_secs() == 0 {
            bail!("config.cookie_max_age: expected 1s or more");
        }
        if config.choose_header.as_ref() == Some(&config.header) {
            bail!(
                "config.choose_header: `{}` is where the plugin puts its choice",
                config.header
            );
        }
        Ok(Self {
            config,
            total_weight,
        })
    }

    fn rewrite(&self, request: &mut Request) -> Verdict {
        let config = &self.config;
        // The plugin has chosen before: this is the route that was looked for again. A variable, since the header might be
        // the client's.
        if request.var(&config.variable).is_some() {
            return Verdict::Continue;
        }
        let variant = self.choose(request);
        request.set_var(&config.variable, variant);
        request.set_header(&config.header, variant);
        Verdict::Reroute
    }

    fn response_headers(&self, request: &Request, reply: &mut Reply) {
        let config = &self.config;
        let (Some(cookie), Some(variant)) = (&config.cookie, request.var(&config.variable)) else {
            return;
        };
        let variant = variant.to_string_lossy();
        if request.cookie(cookie).is_none_or(|kept| kept != *variant) {
            let max_age = config.cookie_max_age.as_secs();
            let value =
                format!("{cookie}={variant}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax");
            reply.add_header("set-cookie", value);
        }
    }
}

impl Canary {
    fn choose(&self, request: &Request) -> &str {
        self.asked_for(request)
            .or_else(|| self.kept(request))
            .unwrap_or_else(|| self.drawn())
    }

    /// Variant that the client names in `choose_header`, whatever its weight.
    fn asked_for(&self, request: &Request) -> Option<&str> {
        let value = request.header(self.config.choose_header.as_ref()?)?;
        let (name, _) = self.config.variants.get_key_value(value.as_str()?)?;
        Some(name)
    }

    /// Variant that the client's cookie names, unless nobody is to get there any more.
    fn kept(&self, request: &Request) -> Option<&str> {
        let value = request.cookie(self.config.cookie.as_ref()?)?;
        let (name, weight) = self.config.variants.get_key_value(value.as_str()?)?;
        (*weight > 0).then_some(name)
    }

    fn drawn(&self) -> &str {
        // Even up to one part in 2^64 / `total_weight`.
        let mut rest = random::u64() % self.total_weight;
        for (name, &weight) in &self.config.variants {
            match rest.checked_sub(weight.into()) {
                Some(left) => rest = left,
                None => return name,
            }
        }
        unreachable!("the rest is below the sum of the weights")
    }
}

/// Whether a text can stand in a header, a cookie and a route's match as it is.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_variable(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

fn x_variant() -> HeaderName {
    HeaderName::new("x-variant").expect("it is a header name")
}

fn variant() -> String {
    String::from("variant")
}

const fn one_day() -> Duration {
    Duration::from_secs(24 * 60 * 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use castling_sdk::testing::{self, Exchange, script_random};

    fn plugin(json: &str) -> Canary {
        Canary::configure(testing::config(json).unwrap()).unwrap()
    }

    /// By name, `canary` comes first: 0 to 4 of 100.
    fn sticky() -> Canary {
        plugin(
            r#"{"variants": {"stable": 95, "canary": 5, "gone": 0}, "cookie": "v", "choose_header": "x-want"}"#,
        )
    }

    fn chosen(plugin: &Canary, exchange: Exchange) -> String {
        let mut exchange = exchange;
        assert_eq!(plugin.rewrite(exchange.request()), Verdict::Reroute);
        let header = exchange.request().header("x-variant").unwrap();
        assert_eq!(
            exchange.request().var("variant").unwrap(),
            header.as_bytes()
        );
        header.to_string_lossy().into_owned()
    }

    #[test]
    fn weights_decide() {
        let plugin = sticky();
        for (drawn, expected) in [(0, "canary"), (4, "canary"), (5, "stable"), (99, "stable")] {
            script_random([drawn]);
            assert_eq!(chosen(&plugin, Exchange::get("/")), expected, "{drawn}");
        }
        script_random([]);
        let canaries = (0..10_000)
            .filter(|_| chosen(&plugin, Exchange::get("/")) == "canary")
            .count();
        assert!((400..600).contains(&canaries), "{canaries}");
    }

    #[test]
    fn it_chooses_once_and_the_client_cannot_forge_it() {
        let plugin = sticky();
        script_random([99]);
        let mut exchange = Exchange::get("/").header("x-variant", "canary");
        assert_eq!(plugin.rewrite(exchange.request()), Verdict::Reroute);
        assert_eq!(plugin.rewrite(exchange.request()), Verdict::Continue);
        let values = exchange.request().header_all("x-variant");
        assert_eq!(values, [HeaderValue::new("stable").unwrap()]);
    }

    #[test]
    fn a_client_may_ask_for_a_variant_or_stay_with_one() {
        let plugin = sticky();
        let get = || Exchange::get("/");
        script_random([99; 9]);
        for (exchange, expected) in [
            (get().header("x-want", "canary"), "canary"),
            (get().header("x-want", "gone"), "gone"),
            (get().header("x-want", "nothing"), "stable"),
            (get().header("cookie", "a=b; v=canary"), "canary"),
            (get().header("cookie", "v=gone"), "stable"),
            (get().header("cookie", "vv=canary"), "stable"),
            (
                get()
                    .header("cookie", "v=canary")
                    .header("x-want", "stable"),
                "stable",
            ),
        ] {
            assert_eq!(chosen(&plugin, exchange), expected);
        }
    }

    #[test]
    fn the_cookie_is_set_where_it_is_another() {
        let plugin = sticky();
        let set = |exchange: Exchange| {
            let mut exchange = exchange.response(200);
            plugin.rewrite(exchange.request());
            let (request, reply) = exchange.request_and_reply();
            plugin.response_headers(request, reply);
            reply
                .header("set-cookie")
                .map(|value| value.to_string_lossy().into_owned())
        };
        script_random([0, 0]);
        let expected = "v=canary; Path=/; Max-Age=86400; HttpOnly; SameSite=Lax";
        assert_eq!(set(Exchange::get("/")).as_deref(), Some(expected));
        let gone = Exchange::get("/").header("cookie", "v=gone");
        assert_eq!(set(gone).as_deref(), Some(expected));
        assert_eq!(set(Exchange::get("/").header("cookie", "v=canary")), None);
    }

    #[test]
    fn a_bad_config_says_where() {
        for (json, text) in [
            (r#"{"variants": {}}"#, "config.variants: none has a weight"),
            (
                r#"{"variants": {"a": 0}}"#,
                "config.variants: none has a weight",
            ),
            (
                r#"{"variants": {"a b": 1}}"#,
                "config.variants: `a b`: expected a name",
            ),
            (
                r#"{"variants": {"a": 1}, "cookie": "a;b"}"#,
                "config.cookie: `a;b`: expected",
            ),
            (
                r#"{"variants": {"a": 1}, "variable": "A"}"#,
                "config.variable: `A`: expected",
            ),
            (
                r#"{"variants": {"a": 1}, "cookie_max_age": "1ms"}"#,
                "config.cookie_max_age: expected 1s",
            ),
            (
                r#"{"variants": {"a": 1}, "choose_header": "x-variant"}"#,
                "config.choose_header: `x-variant` is where",
            ),
        ] {
            let error = testing::config(json).and_then(Canary::configure).err();
            let error = error.expect(json).to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
