//! Allows and denies requests by network, method, header and time: the first rule that fits decides.
//!
//! README.md has the config.

mod times;

use std::collections::BTreeMap;
use std::net::IpAddr;

use castling_sdk::prelude::*;
use ipnet::IpNet;

use times::Times;

/// The plugin's config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// At least one.
    rules: Vec<RuleConfig>,
    /// Action for a request that no rule fits. Default `deny`.
    #[serde(default)]
    default: Action,
    /// `any`: who is not allowed goes on, to plugins that ask for a password. Default `all`.
    #[serde(default)]
    satisfy: Satisfy,
    /// Status of those who are denied. Default 403.
    #[serde(default = "forbidden")]
    status: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleConfig {
    action: Action,
    /// Addresses and networks of clients. Default all.
    #[serde(default)]
    networks: Vec<String>,
    /// Default all.
    #[serde(default)]
    methods: Vec<String>,
    /// Values of request headers. Default any.
    #[serde(default)]
    headers: BTreeMap<HeaderName, String>,
    /// When the rule holds: `09:00-17:30`, UTC. Default always.
    #[serde(default)]
    hours: Option<String>,
    /// Days on which it holds: `mon` to `sun`, UTC. Default all.
    #[serde(default)]
    days: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Allow,
    #[default]
    Deny,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Satisfy {
    #[default]
    All,
    Any,
}

/// The plugin.
pub struct Access {
    rules: Vec<Rule>,
    default: Action,
    satisfy: Satisfy,
    status: u16,
}

struct Rule {
    action: Action,
    networks: Vec<IpNet>,
    methods: Vec<String>,
    headers: Vec<(HeaderName, String)>,
    times: Times,
}

/// Variable that is `1` where a rule has allowed the request, and `0` where the last access has left it to others.
const ALLOWED: &str = "access";

#[plugin]
impl Access {
    fn configure(config: Config) -> Result<Self> {
        if config.rules.is_empty() {
            bail!("config.rules: expected at least one");
        }
        if !(400..=599).contains(&config.status) {
            bail!("config.status: {}: expected 400 to 599", config.status);
        }
        let rules = config.rules.into_iter().enumerate().map(|(idx, rule)| {
            Rule::new(rule).map_err(|error| error.context(format!("config.rules[{idx}]")))
        });
        Ok(Self {
            rules: rules.collect::<Result<_>>()?,
            default: config.default,
            satisfy: config.satisfy,
            status: config.status,
        })
    }

    fn access(&self, request: &mut Request) -> Verdict {
        let fitting = self.rules.iter().find(|rule| rule.fits(request));
        let action = fitting.map_or(self.default, |rule| rule.action);
        match action {
            Action::Allow => {
                request.set_var(ALLOWED, "1");
                Verdict::Continue
            }
            Action::Deny if self.satisfy == Satisfy::Any => {
                // Another access of the request may have allowed it.
                request.set_var(ALLOWED, "0");
                Verdict::Continue
            }
            Action::Deny => Response::status(self.status).into(),
        }
    }
}

impl Rule {
    fn new(config: RuleConfig) -> Result<Self> {
        let networks = config.networks.iter().map(|text| network(text));
        if let Some(method) = config
            .methods
            .iter()
            .find(|method| HeaderName::new(method.as_str()).is_err())
        {
            bail!("methods: `{method}`: expected a method");
        }
        Ok(Self {
            action: config.action,
            networks: networks.collect::<Result<_>>()?,
            methods: config.methods,
            headers: config.headers.into_iter().collect(),
            times: Times::new(config.hours.as_deref(), &config.days)?,
        })
    }

    fn fits(&self, request: &Request) -> bool {
        self.is_from(request)
            && (self.methods.is_empty() || self.methods.contains(&request.method()))
            && self.headers.iter().all(|(name, value)| {
                let mut values = request.header_all(name).into_iter();
                values.any(|other| other == value.as_str())
            })
            && self.times.hold()
    }

    fn is_from(&self, request: &Request) -> bool {
        if self.networks.is_empty() {
            return true;
        }
        // A client of a Unix socket is of no network.
        let Ok(address) = request.client_address().parse::<IpAddr>() else {
            return false;
        };
        self.networks
            .iter()
            .any(|network| network.contains(&address))
    }
}

fn network(text: &str) -> Result<IpNet> {
    let network = text
        .parse()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    match network {
        Ok(network) => Ok(network),
        Err(_) => {
            bail!("networks: `{text}`: expected an address or a network such as `10.0.0.0/8`")
        }
    }
}

fn forbidden() -> u16 {
    403
}

#[cfg(test)]
mod tests {
    use castling_sdk::testing::{self, Exchange};

    use super::*;

    fn plugin(config: &str) -> Access {
        Access::configure(testing::config(config).unwrap()).unwrap()
    }

    fn status(plugin: &Access, exchange: Exchange) -> Option<u16> {
        let mut exchange = exchange;
        match plugin.access(exchange.request()) {
            Verdict::Answer(response) => Some(response.status_code()),
            _ => None,
        }
    }

    fn from(address: &str) -> Exchange {
        Exchange::get("/").client_address(address)
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let plugin = plugin(
            r#"{"rules": [
                {"action": "deny", "networks": ["10.0.0.1"]},
                {"action": "allow", "networks": ["10.0.0.0/8", "2001:db8::/32"]},
                {"action": "allow", "methods": ["GET"], "headers": {"x-key": "k"}}
            ], "status": 404}"#,
        );
        for (address, expected) in [
            ("10.0.0.1", Some(404)),
            ("10.0.0.2", None),
            ("2001:db8::1", None),
            ("192.0.2.1", Some(404)),
            ("unix:", Some(404)),
        ] {
            assert_eq!(status(&plugin, from(address)), expected, "{address}");
        }
        let key = |method| {
            Exchange::new(method, "/")
                .header("x-key", "other")
                .header("x-key", "k")
        };
        assert_eq!(status(&plugin, key("GET")), None);
        assert_eq!(status(&plugin, key("POST")), Some(404));
    }

    #[test]
    fn whoever_is_not_allowed_may_be_asked_for_a_password() {
        let plugin = plugin(
            r#"{"rules": [{"action": "allow", "networks": ["10.0.0.0/8"]}], "satisfy": "any"}"#,
        );
        let mut inside = from("10.1.1.1");
        assert_eq!(plugin.access(inside.request()), Verdict::Continue);
        assert_eq!(inside.request().var("access").unwrap(), "1");
        let mut outside = from("192.0.2.1");
        assert_eq!(plugin.access(outside.request()), Verdict::Continue);
        assert_eq!(outside.request().var("access").unwrap(), "0");
    }

    #[test]
    fn a_rule_has_its_times() {
        // A Tuesday, 22:13 UTC, by the clock of tests.
        let at = |hours: &str, days: &str| {
            let config = format!(
                r#"{{"rules": [{{"action": "allow", "hours": "{hours}", "days": {days}}}]}}"#
            );
            status(&plugin(&config), Exchange::get("/"))
        };
        assert_eq!(at("22:00-23:00", "[]"), None);
        assert_eq!(at("22:14-23:00", "[]"), Some(403));
        assert_eq!(at("20:00-06:00", "[\"tue\"]"), None);
        assert_eq!(at("20:00-22:13", "[\"tue\"]"), Some(403));
        assert_eq!(at("00:00-24:00", "[\"mon\", \"wed\"]"), Some(403));
    }

    #[test]
    fn a_config_without_sense_is_refused() {
        for (config, error) in [
            (r#"{"rules": []}"#, "config.rules: expected at least one"),
            (
                r#"{"rules": [{"action": "allow", "networks": ["10.0.0.0/33"]}]}"#,
                "config.rules[0]: networks: `10.0.0.0/33`: expected",
            ),
            (
                r#"{"rules": [{"action": "allow", "hours": "9-17"}]}"#,
                "config.rules[0]: hours: `9-17`: expected",
            ),
            (
                r#"{"rules": [{"action": "allow", "hours": "09:00-09:00"}]}"#,
                "config.rules[0]: hours: `09:00-09:00`: expected",
            ),
            (
                r#"{"rules": [{"action": "allow", "days": ["monday"]}]}"#,
                "config.rules[0]: days: `monday`: expected",
            ),
            (
                r#"{"rules": [{"action": "allow"}], "status": 200}"#,
                "config.status: 200: expected 400 to 599",
            ),
        ] {
            let refused = testing::config(config).and_then(Access::configure).err();
            let refused = refused.map(|error| error.to_string()).unwrap_or_default();
            assert!(refused.contains(error), "{config}: {refused}");
        }
    }
}
