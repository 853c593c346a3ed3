//! Limits how often a client, a user or any other key may send requests: GCRA on a counter zone, so that all workers
//! count together.
//!
//! README.md has the config.

use std::cell::Cell;
use std::num::NonZeroU32;

use castling_sdk::metrics::{Counter, CounterSeries};
use castling_sdk::prelude::*;
use castling_sdk::template::Template;
use castling_sdk::zones::{self, Rate, Taken};

/// The plugin's config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The counter zone.
    zone: String,
    /// Key that is counted for itself. Default `$client_address`.
    #[serde(default = "client_address")]
    key: Template,
    rate: Rate,
    /// How many may come at once.
    burst: NonZeroU32,
    /// Status of a refusal. 400 to 599. Default 429.
    #[serde(default = "too_many_requests")]
    status: u16,
    /// Whether responses say what is left. Default true.
    #[serde(default = "yes")]
    headers: bool,
}

/// The plugin.
pub struct RateLimit {
    counter: zones::Counter,
    key: Template,
    /// Where keys are put together, one request after the other.
    room: Cell<Vec<u8>>,
    rate: Rate,
    /// The burst, as text.
    limit: String,
    status: u16,
    headers: bool,
    passed: CounterSeries,
    limited: CounterSeries,
}

#[plugin]
impl RateLimit {
    fn configure(config: Config) -> Result<Self> {
        if config.zone.is_empty() {
            bail!("config.zone: empty");
        }
        let counter = zones::counter(config.zone);
        counter
            .must_be_granted()
            .map_err(|error| error.context("config.zone"))?;
        if config.key.needs_response() {
            bail!("config.key: it speaks of the response, which is not there yet");
        }
        let burst = config.burst.get();
        let refill = config.rate.interval().checked_mul(burst);
        if refill.is_none_or(|refill| refill > LONGEST_REFILL) {
            bail!("config.burst: more than a year of the rate");
        }
        if !(400..600).contains(&config.status) {
            bail!("config.status: {}: expected 400 to 599", config.status);
        }
        let help = "Requests with a key, by verdict.";
        let requests = Counter::new("requests_total", help, ["verdict"])?;
        Ok(Self {
            passed: requests.with(["passed"]),
            limited: requests.with(["limited"]),
            counter,
            key: config.key,
            room: Cell::default(),
            rate: config.rate.burst(burst),
            limit: burst.to_string(),
            status: config.status,
            headers: config.headers,
        })
    }

    fn preaccess(&self, request: &mut Request) -> Result<Verdict> {
        let mut key = self.room.take();
        key.clear();
        self.key.expand_into(&mut key, request, None);
        // A request without a key is not limited, as in nginx.
        let taken = match key.is_empty() {
            true => None,
            false => Some(self.counter.take(&key, self.rate)?),
        };
        self.room.set(key);
        match taken {
            None => Ok(Verdict::Continue),
            Some(Taken::Allowed { remaining, reset }) => {
                self.passed.inc();
                self.note(request, remaining, reset);
                Ok(Verdict::Continue)
            }
            Some(Taken::Refused { retry_after, reset }) => {
                self.limited.inc();
                self.note(request, 0, reset);
                Ok(self.refusal(retry_after))
            }
        }
    }

    fn response_headers(&self, request: &Request, reply: &mut Reply) {
        if !self.headers {
            return;
        }
        let Some(remaining) = request.var(REMAINING) else {
            return;
        };
        // Where the upstream has a limit of its own, the client is told the tighter one.
        let upstreams = reply.header("ratelimit-remaining");
        if number(upstreams) < number(Some(remaining.clone())) {
            return;
        }
        reply.set_header("ratelimit-remaining", remaining);
        for (name, variable) in [("ratelimit-limit", LIMIT), ("ratelimit-reset", RESET)] {
            if let Some(value) = request.var(variable) {
                reply.set_header(name, value);
            }
        }
    }
}

impl RateLimit {
    /// For the response's headers and the access log. Of several limits the tightest counts.
    fn note(&self, request: &Request, remaining: u32, reset: Duration) {
        if number(request.var(REMAINING)) <= u64::from(remaining) {
            return;
        }
        let mut digits = itoa::Buffer::new();
        request.set_var(LIMIT, &self.limit);
        request.set_var(REMAINING, digits.format(remaining));
        request.set_var(RESET, digits.format(whole_seconds(reset)));
    }

    #[cold]
    fn refusal(&self, retry_after: Duration) -> Verdict {
        Response::status(self.status)
            .header("content-type", "text/plain")
            .header("retry-after", whole_seconds(retry_after).to_string())
            .body("too many requests\n")
            .into()
    }
}

/// Without end where there is none.
fn number(value: Option<HeaderValue>) -> u64 {
    value
        .and_then(|value| value.as_str()?.trim().parse().ok())
        .unwrap_or(u64::MAX)
}

/// Rounded up: who comes back then is not too early.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn client_address() -> Template {
    "$client_address".parse().expect("it is a template")
}

const fn too_many_requests() -> u16 {
    429
}

const fn yes() -> bool {
    true
}

const LIMIT: &str = "rate_limit";
const REMAINING: &str = "rate_limit_remaining";
const RESET: &str = "rate_limit_reset";

/// Longer than that, a limit is a slip of the pen.
const LONGEST_REFILL: Duration = Duration::from_secs(366 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use castling_sdk::testing::{self, Exchange, advance_clock};

    fn plugin(json: &str) -> RateLimit {
        RateLimit::configure(testing::config(json).unwrap()).unwrap()
    }

    fn two_a_second() -> RateLimit {
        plugin(r#"{"zone": "limits", "rate": "2/s", "burst": 3}"#)
    }

    /// Status (0: passed) and `Retry-After`.
    fn ask(plugin: &RateLimit, exchange: &mut Exchange) -> (u16, Option<String>) {
        match plugin.preaccess(exchange.request()).unwrap() {
            Verdict::Continue => (0, None),
            Verdict::Answer(response) => {
                let retry_after = response.header_value("retry-after").unwrap();
                (
                    response.status_code(),
                    retry_after.as_str().map(String::from),
                )
            }
            Verdict::Reroute | Verdict::Streamed(_) => panic!("not answered"),
        }
    }

    fn ask_from(plugin: &RateLimit, address: &str) -> u16 {
        ask(plugin, &mut Exchange::get("/").client_address(address)).0
    }

    /// `RateLimit-Limit`, `-Remaining`, `-Reset`.
    fn headers(plugin: &RateLimit, exchange: &mut Exchange) -> [Option<String>; 3] {
        let (request, reply) = exchange.request_and_reply();
        plugin.response_headers(request, reply);
        ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"].map(|name| {
            reply
                .header(name)
                .map(|value| value.to_string_lossy().into())
        })
    }

    #[test]
    fn a_burst_passes_and_then_one_each_interval() {
        let plugin = two_a_second();
        let statuses = [(); 5].map(|()| ask_from(&plugin, "192.0.2.1"));
        assert_eq!(statuses, [0, 0, 0, 429, 429]);
        assert_eq!(ask_from(&plugin, "192.0.2.2"), 0, "another client");
        advance_clock(Duration::from_millis(500));
        assert_eq!(ask_from(&plugin, "192.0.2.1"), 0);
        assert_eq!(ask_from(&plugin, "192.0.2.1"), 429);
        let counted = |verdict| testing::metric("requests_total", [verdict]);
        assert_eq!(
            (counted("passed"), counted("limited")),
            (Some(5.0), Some(3.0))
        );
    }

    #[test]
    fn responses_say_what_is_left() {
        let plugin = two_a_second();
        let mut exchange = Exchange::get("/").response(200);
        assert_eq!(ask(&plugin, &mut exchange), (0, None));
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            headers(&plugin, &mut exchange),
            [text("3"), text("2"), text("1")]
        );
        for _ in 0..2 {
            ask_from(&plugin, "192.0.2.1");
        }
        let mut refused = Exchange::get("/").response(429);
        assert_eq!(ask(&plugin, &mut refused), (429, text("1")));
        assert_eq!(
            headers(&plugin, &mut refused),
            [text("3"), text("0"), text("2")]
        );
        assert_eq!(refused.request().var("rate_limit_remaining").unwrap(), "0");
    }

    #[test]
    fn the_tightest_of_several_limits_is_told() {
        let tight = two_a_second();
        let wide = plugin(r#"{"zone": "all", "key": "all", "rate": "100/s", "burst": 100}"#);
        for order in [[&tight, &wide], [&wide, &tight]] {
            let mut exchange = Exchange::get("/").response(200);
            for plugin in order {
                ask(plugin, &mut exchange);
            }
            assert_eq!(headers(&wide, &mut exchange)[0].as_deref(), Some("3"));
        }
        advance_clock(Duration::from_secs(9));
        let mut exchange = Exchange::get("/")
            .response_header("ratelimit-limit", "5")
            .response_header("ratelimit-remaining", "0");
        ask(&tight, &mut exchange);
        let told = headers(&tight, &mut exchange);
        assert_eq!(told, [Some("5".into()), Some("0".into()), None]);
    }

    #[test]
    fn the_key_is_any_variable() {
        let plugin = plugin(
            r#"{"zone": "limits", "key": "$http_x_key", "rate": "1/m", "burst": 1, "status": 503, "headers": false}"#,
        );
        let with = |key: &str| Exchange::get("/").header("x-key", key);
        assert_eq!(ask(&plugin, &mut with("a")).0, 0);
        assert_eq!(ask(&plugin, &mut with("b")).0, 0);
        assert_eq!(
            ask(&plugin, &mut with("a")),
            (503, Some(String::from("60")))
        );
        let mut without = Exchange::get("/").response(200);
        for _ in 0..3 {
            assert_eq!(ask(&plugin, &mut without).0, 0, "no key, no limit");
        }
        let mut silent = with("c").response(200);
        ask(&plugin, &mut silent);
        assert_eq!(headers(&plugin, &mut silent), [None, None, None]);
    }

    #[test]
    fn a_bad_config_says_where() {
        for (json, text) in [
            (
                r#"{"zone": "z", "rate": "10", "burst": 1}"#,
                "config.rate: `10` is not a rate",
            ),
            (
                r#"{"zone": "z", "rate": "1/s", "burst": 0}"#,
                "config.burst: invalid value: integer `0`",
            ),
            (
                r#"{"zone": "z", "rate": "1/d", "burst": 400}"#,
                "config.burst: more than a year",
            ),
            (
                r#"{"zone": "", "rate": "1/d", "burst": 4}"#,
                "config.zone: empty",
            ),
            (
                r#"{"zone": "z", "rate": "1/s", "burst": 1, "status": 200}"#,
                "config.status: 200: expected 400 to 599",
            ),
            (
                r#"{"zone": "z", "rate": "1/s", "burst": 1, "key": "$status"}"#,
                "config.key: it speaks of the response",
            ),
            (
                r#"{"rate": "1/s", "burst": 1}"#,
                "config: missing field `zone`",
            ),
        ] {
            let error = testing::config(json).and_then(RateLimit::configure).err();
            let error = error.expect(json).to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
