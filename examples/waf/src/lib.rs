//! Looks for attacks in requests: by rules of the config, which are regular expressions with a score each. A request whose score
//! reaches the threshold is refused, or told in the log.
//!
//! ```toml
//! [plugins.waf]
//! wasm = "waf.wasm"
//!
//! [plugins.waf.config]
//! threshold = 5
//! mode = "report"             # or "block"
//! body = "64KiB"              # so much of it is looked at; default: nothing
//!
//! [[plugins.waf.config.rules]]
//! name = "sqli-union"
//! in = ["query", "body"]      # of path, query, headers, cookies, body
//! matches = '(?i)\bunion\s+(all\s+)?select\b'
//! score = 5
//!
//! [[routes]]                  # a route may have a config of its own
//! path = "/admin"
//! plugins = [{ name = "waf", config = { threshold = 3, mode = "block", rules = [] } }]
//! ```
//!
//! Rules see values as they come and as they are decoded, also what was encoded twice. `$waf_score` and `$waf_rules` are for the
//! access log.

use std::collections::BTreeSet;

use castling_sdk::prelude::*;
use castling_sdk::units;
use regex::bytes::{RegexSet, RegexSetBuilder};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    threshold: u32,
    mode: Mode,
    #[serde(deserialize_with = "units::size", default)]
    body: usize,
    rules: Vec<Rule>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Report,
    Block,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    name: String,
    r#in: Vec<Place>,
    matches: String,
    score: u32,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Place {
    Path,
    Query,
    Headers,
    Cookies,
    Body,
}

struct Waf {
    config: Config,
    /// Expressions of all rules, which are looked for at once.
    rules: RegexSet,
}

/// Indexes of the rules that a request matches: each counts once.
type Matched = BTreeSet<usize>;

#[plugin]
impl Waf {
    fn configure(config: Config) -> Result<Self> {
        let expressions = config.rules.iter().map(|rule| &rule.matches);
        let rules = RegexSetBuilder::new(expressions).unicode(false).build();
        let rules = rules.map_err(|error| Error::from(error).context("config.rules"))?;
        Ok(Self { config, rules })
    }

    fn access(&self, request: &mut Request) -> Result<Verdict> {
        let mut matched = Matched::new();
        self.look_at_head(request, &mut matched);
        if self.config.body > 0 {
            let (body, _) = request.peek_body(self.config.body)?;
            self.look(Place::Body, &body, &mut matched);
        }
        if matched.is_empty() {
            return Ok(Verdict::Continue);
        }
        let matched: Vec<_> = matched
            .into_iter()
            .map(|idx| &self.config.rules[idx])
            .collect();
        let score: u32 = matched.iter().map(|rule| rule.score).sum();
        let rules: Vec<_> = matched.iter().map(|rule| &*rule.name).collect();
        let rules = rules.join(",");
        request.set_var("waf_score", score.to_string());
        request.set_var("waf_rules", &rules);
        if score < self.config.threshold {
            return Ok(Verdict::Continue);
        }
        let is_blocked = self.config.mode == Mode::Block;
        log::warn!(client = request.client_address(), score = score, rules = rules, blocked = is_blocked; "looks like an attack");
        Ok(match self.config.mode {
            Mode::Report => Verdict::Continue,
            Mode::Block => Response::status(403).body("forbidden").into(),
        })
    }
}

impl Waf {
    fn look_at_head(&self, request: &Request, matched: &mut Matched) {
        self.look(Place::Path, request.path().as_bytes(), matched);
        self.look(
            Place::Query,
            request.query().unwrap_or_default().as_bytes(),
            matched,
        );
        for (name, value) in request.headers().iter() {
            let place = if name == "cookie" {
                Place::Cookies
            } else {
                Place::Headers
            };
            self.look(place, value, matched);
        }
    }

    /// Looks at the value, and at what it stands for where it is encoded, up to twice; a `+` may be a space there.
    fn look(&self, place: Place, value: &[u8], matched: &mut Matched) {
        let is_meant = |idx: &usize| self.config.rules[*idx].r#in.contains(&place);
        let mut value = value.to_vec();
        for _ in 0..3 {
            matched.extend(self.rules.matches(&value).into_iter().filter(is_meant));
            let spaced = value
                .iter()
                .map(|byte| if *byte == b'+' { b' ' } else { *byte });
            let decoded = http::decode(&spaced.collect::<Vec<_>>()).into_owned();
            if decoded == value {
                break;
            }
            value = decoded;
        }
    }
}

#[cfg(test)]
mod tests;
