//! Changes the path, the query and the host of requests, before they are routed on or on their way to the upstream.
//!
//! README.md has the config.

use castling_sdk::expression::Expression;
use castling_sdk::prelude::*;
use castling_sdk::template::{self, Template};

/// The plugin's config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The first that matches is applied.
    rules: Vec<RuleConfig>,
    /// Whether the route is looked for again after a change. Default false: the request stays with its route.
    #[serde(default)]
    reroute: bool,
    /// Variable by which the plugin knows a request that it has rerouted: where two of them reroute, each has its own. Default `rewrite_done`.
    #[serde(default = "rewrite_done")]
    done: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleConfig {
    /// An expression that is looked for in the path. Its groups are variables: `$1`, `$name`. Default: each path.
    regex: Option<Expression>,
    /// First segments that are taken away. Default none.
    strip_prefix: Option<String>,
    /// Text that goes before the path. Default none.
    add_prefix: Option<Template>,
    /// The new path, which may have a query of its own. Default: the path stays.
    path: Option<Template>,
    /// The new query; an empty one removes it. Default: the query stays, or follows that of `path`.
    query: Option<Template>,
    /// The new host. Default: the host stays.
    host: Option<Template>,
}

/// The plugin.
pub struct Rewrite {
    rules: Vec<Rule>,
    reroute: bool,
    done: String,
}

struct Rule {
    regex: Option<Expression>,
    strip_prefix: Option<String>,
    add_prefix: Option<Template>,
    path: Option<Template>,
    query: Option<Template>,
    host: Option<Template>,
}

fn rewrite_done() -> String {
    "rewrite_done".to_owned()
}

#[plugin]
impl Rewrite {
    fn configure(config: Config) -> Result<Self> {
        if config.rules.is_empty() {
            bail!("config.rules: expected at least one");
        }
        if !template::is_settable(&config.done) {
            bail!(
                "config.done: `{}`: expected 1 to 64 of a-z 0-9 _, and none of the gateway's own variables",
                config.done
            );
        }
        let rules = config.rules.into_iter().enumerate().map(|(idx, rule)| {
            Rule::new(rule).map_err(|error| error.context(format!("config.rules[{idx}]")))
        });
        Ok(Self {
            rules: rules.collect::<Result<_>>()?,
            reroute: config.reroute,
            done: config.done,
        })
    }

    fn rewrite(&self, request: &mut Request) -> Result<Verdict> {
        // Rules are applied once, also where they lead to a path that one matches.
        if self.reroute && request.var(&self.done).is_some() {
            return Ok(Verdict::Continue);
        }
        for rule in &self.rules {
            if rule.apply(request)? {
                if self.reroute {
                    request.set_var(&self.done, "1");
                    return Ok(Verdict::Reroute);
                }
                break;
            }
        }
        Ok(Verdict::Continue)
    }
}

impl Rule {
    fn new(config: RuleConfig) -> Result<Self> {
        let strip_prefix = match config.strip_prefix {
            Some(prefix) if !prefix.starts_with('/') => {
                bail!("strip_prefix `{prefix}`: expected one that begins with `/`")
            }
            prefix => prefix.map(|prefix| prefix.trim_end_matches('/').to_owned()),
        };
        if config.path.is_some() && (strip_prefix.is_some() || config.add_prefix.is_some()) {
            bail!(
                "`path` is the whole path: expected no `strip_prefix` and `add_prefix` beside it"
            );
        }
        let changes = [
            &config.path,
            &config.add_prefix,
            &config.query,
            &config.host,
        ];
        if strip_prefix.is_none() && changes.iter().all(|change| change.is_none()) {
            bail!(
                "it changes nothing: expected `path`, `strip_prefix`, `add_prefix`, `query` or `host`"
            );
        }
        Ok(Self {
            regex: config.regex,
            strip_prefix,
            add_prefix: config.add_prefix,
            path: config.path,
            query: config.query,
            host: config.host,
        })
    }

    /// False: it does not match, and has changed nothing.
    fn apply(&self, request: &mut Request) -> Result<bool> {
        let path = request.path();
        // `*` of OPTIONS is no path.
        if !path.starts_with('/') || !self.matches(request, &path) {
            return Ok(false);
        }
        let Some(stripped) = self.stripped(&path) else {
            return Ok(false);
        };
        let text = |template: &Template| {
            String::from_utf8_lossy(&template.expand(request, None)).into_owned()
        };
        let query = self.query.as_ref().map(text);
        let host = self.host.as_ref().map(text);
        let (mut path, mut own_query) = (stripped.to_owned(), None);
        if let Some(prefix) = &self.add_prefix {
            path = format!("{}{path}", text(prefix).trim_end_matches('/'));
        }
        if let Some(target) = &self.path {
            let target = text(target);
            (path, own_query) = match target.split_once('?') {
                Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
                None => (target, None),
            };
        }
        request.set_path(path);
        match (query, own_query, request.query()) {
            (Some(query), _, _) => request.set_query(query),
            (None, Some(own), Some(old)) if !own.is_empty() => {
                request.set_query(format!("{own}&{old}"))
            }
            (None, Some(own), _) => request.set_query(own),
            (None, None, _) => {}
        }
        if let Some(host) = host {
            request.set_host(host);
        }
        Ok(true)
    }

    /// Sets the groups of the expression as variables, as those of a route are.
    fn matches(&self, request: &Request, path: &str) -> bool {
        let mut regex = self.regex.iter();
        regex.all(|regex| regex.capture(request, path))
    }

    /// The path without the prefix; `None`: it has another.
    fn stripped<'p>(&self, path: &'p str) -> Option<&'p str> {
        match &self.strip_prefix {
            None => Some(path),
            Some(prefix) => match path.strip_prefix(&**prefix)? {
                "" => Some("/"),
                rest => rest.starts_with('/').then_some(rest),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use castling_sdk::testing::{self, Exchange};

    use super::*;

    fn plugin(config: &str) -> Rewrite {
        Rewrite::configure(testing::config(config).unwrap()).unwrap()
    }

    /// Target of a request, and its host, when the plugin is done with it.
    fn rewritten(plugin: &Rewrite, target: &str) -> (String, String) {
        let mut exchange = Exchange::get(target);
        plugin.rewrite(exchange.request()).unwrap();
        assert!(exchange.refusal().is_none(), "{target}");
        (exchange.request().target(), exchange.request().host())
    }

    #[track_caller]
    fn check(config: &str, cases: &[(&str, &str)]) {
        let plugin = plugin(config);
        for (target, expected) in cases {
            assert_eq!(rewritten(&plugin, target).0, *expected, "{target}");
        }
    }

    #[test]
    fn prefixes_are_taken_away_and_added() {
        check(
            r#"{"rules": [{"strip_prefix": "/api/", "add_prefix": "/v2"}]}"#,
            &[
                ("/api/a?b=c", "/v2/a?b=c"),
                ("/api", "/v2/"),
                ("/apix", "/apix"),
                ("/", "/"),
            ],
        );
        check(
            r#"{"rules": [{"add_prefix": "/$listener/"}]}"#,
            &[("/a", "/web/a")],
        );
    }

    #[test]
    fn expressions_make_paths_and_queries() {
        check(
            r#"{"rules": [
                {"regex": "^/user/(?<id>[0-9]+)$", "path": "/profile?id=$id"},
                {"regex": "^/item/(.*)$", "path": "/$1", "query": "from=item"},
                {"regex": "^/plain$", "query": ""}
            ]}"#,
            &[
                ("/user/42", "/profile?id=42"),
                ("/user/42?a=b", "/profile?id=42&a=b"),
                ("/item/a%20b/c?x", "/a%20b/c?from=item"),
                ("/plain?x", "/plain"),
                ("/other?x", "/other?x"),
            ],
        );
    }

    #[test]
    fn a_request_that_is_routed_again_is_changed_once() {
        let plugin =
            plugin(r#"{"reroute": true, "rules": [{"add_prefix": "/a", "host": "b.example"}]}"#);
        let mut exchange = Exchange::get("/x");
        assert_eq!(
            plugin.rewrite(exchange.request()).unwrap(),
            Verdict::Reroute
        );
        assert_eq!(
            plugin.rewrite(exchange.request()).unwrap(),
            Verdict::Continue
        );
        let request = exchange.request();
        assert_eq!(
            (request.path(), request.host()),
            ("/a/x".into(), "b.example".into())
        );
    }

    #[test]
    fn a_config_without_sense_is_refused() {
        for (config, error) in [
            (r#"{"rules": []}"#, "config.rules: expected at least one"),
            (r#"{"rules": [{}]}"#, "config.rules[0]: it changes nothing"),
            (
                r#"{"rules": [{"regex": "(", "path": "/"}]}"#,
                "config.rules[0].regex: ",
            ),
            (
                r#"{"rules": [{"regex": "(?<path>.*)", "path": "/"}]}"#,
                "config.rules[0].regex: group `path`: expected",
            ),
            (
                r#"{"rules": [{"path": "/"}], "done": "host"}"#,
                "config.done: `host`: expected",
            ),
            (
                r#"{"rules": [{"strip_prefix": "a"}]}"#,
                "strip_prefix `a`: expected one that begins with `/`",
            ),
            (
                r#"{"rules": [{"strip_prefix": "/a", "path": "/"}]}"#,
                "`path` is the whole path",
            ),
        ] {
            let refused = testing::config(config).and_then(Rewrite::configure).err();
            let refused = refused.map(|error| error.to_string()).unwrap_or_default();
            assert!(refused.contains(error), "{config}: {refused}");
        }
    }
}
