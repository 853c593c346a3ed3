//! Redirects by path, regular expression and table, and by a slash at a path's end.
//!
//! README.md has the config.

mod rule;
mod table;

use castling_sdk::prelude::*;

use rule::{Rule, RuleConfig};
use table::Table;

/// The plugin's config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Status of a redirect that says no other. Default 301.
    #[serde(default = "moved")]
    status: u16,
    /// The request's query follows the target, where that has none. Default true.
    #[serde(default = "yes")]
    keep_query: bool,
    /// Paths, but `/`, end with a slash, or do not. Default: as they come.
    #[serde(default)]
    trailing_slash: Option<TrailingSlash>,
    /// A granted file with a redirect a line: path, target, and a status if it is another. Default none.
    #[serde(default)]
    table: Option<String>,
    /// The first that matches counts. Default none.
    #[serde(default)]
    rules: Vec<RuleConfig>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TrailingSlash {
    Add,
    Remove,
}

/// The plugin.
pub struct Redirect {
    status: u16,
    keep_query: bool,
    trailing_slash: Option<TrailingSlash>,
    table: Option<Table>,
    rules: Vec<Rule>,
}

/// Where to, and how.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    location: String,
    status: u16,
}

#[plugin]
impl Redirect {
    fn configure(config: Config) -> Result<Self> {
        check_status(config.status).map_err(|error| error.context("config.status"))?;
        let rules = config.rules.into_iter().enumerate().map(|(idx, rule)| {
            let built = Rule::new(rule, config.status);
            built.map_err(|error| error.context(format!("config.rules[{idx}]")))
        });
        let rules = rules.collect::<Result<Vec<_>>>()?;
        let table = config.table.map(|name| Table::open(&name, config.status));
        if rules.is_empty() && table.is_none() && config.trailing_slash.is_none() {
            bail!("config: expected `rules`, `table` or `trailing_slash`");
        }
        Ok(Self {
            status: config.status,
            keep_query: config.keep_query,
            trailing_slash: config.trailing_slash,
            table: table.transpose()?,
            rules,
        })
    }

    fn rewrite(&self, request: &mut Request) -> Result<Verdict> {
        let path = request.path();
        // `*` of OPTIONS is no path.
        if !path.starts_with('/') {
            return Ok(Verdict::Continue);
        }
        let Some(target) = self.target(request, &path)? else {
            return Ok(Verdict::Continue);
        };
        let mut location = http::on_this_host(&target.location);
        if self.keep_query
            && !location.contains('?')
            && let Some(query) = request.query()
        {
            let fragment = location.find('#').unwrap_or(location.len());
            location.insert_str(fragment, &format!("?{query}"));
        }
        // A rule that leads to itself would have the client go in circles.
        if location == request.target() {
            return Ok(Verdict::Continue);
        }
        Ok(Response::status(target.status)
            .header("location", location)
            .into())
    }
}

impl Redirect {
    fn target(&self, request: &Request, path: &str) -> Result<Option<Target>> {
        for rule in &self.rules {
            if let Some(target) = rule.target(request, path) {
                return Ok(Some(target));
            }
        }
        if let Some(table) = &self.table
            && let Some(target) = table.target(path)?
        {
            return Ok(Some(target));
        }
        Ok(self.slashed(path).map(|location| Target {
            location,
            status: self.status,
        }))
    }

    /// The path as its end should be; `None`: it is so.
    fn slashed(&self, path: &str) -> Option<String> {
        let last = path.rsplit('/').next().unwrap_or_default();
        match self.trailing_slash? {
            // Files have none.
            TrailingSlash::Add if !path.ends_with('/') && !last.contains('.') => {
                Some(format!("{path}/"))
            }
            TrailingSlash::Remove if path.len() > 1 && path.ends_with('/') => {
                let trimmed = path.trim_end_matches('/');
                Some(if trimmed.is_empty() { "/" } else { trimmed }.to_owned())
            }
            _ => None,
        }
    }
}

fn check_status(status: u16) -> Result<()> {
    match status {
        301 | 302 | 303 | 307 | 308 => Ok(()),
        _ => bail!("{status}: expected 301, 302, 303, 307 or 308"),
    }
}

fn moved() -> u16 {
    301
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use castling_sdk::testing::{self, Exchange};

    use super::*;

    fn plugin(config: &str) -> Redirect {
        Redirect::configure(testing::config(config).unwrap()).unwrap()
    }

    /// Status and target of the redirect of a request for `target`.
    fn redirected(plugin: &Redirect, target: &str) -> Option<(u16, String)> {
        let mut exchange = Exchange::get(target);
        match plugin.rewrite(exchange.request()).unwrap() {
            Verdict::Answer(response) => {
                let location = response.header_value("location").unwrap();
                Some((
                    response.status_code(),
                    location.to_string_lossy().into_owned(),
                ))
            }
            _ => None,
        }
    }

    fn to(status: u16, location: &str) -> Option<(u16, String)> {
        Some((status, location.to_owned()))
    }

    #[test]
    fn rules_are_tried_in_their_order() {
        let plugin = plugin(
            r#"{"rules": [
                {"path": "/old", "to": "/new"},
                {"prefix": "/docs/v1", "to": "/docs/v2", "status": 302},
                {"regex": "^/blog/(?<year>[0-9]+)/(.*)$", "to": "https://blog.example.com/$year/$2?host=$host", "status": 308},
                {"regex": "^/blog/", "to": "/never"}
            ]}"#,
        );
        assert_eq!(redirected(&plugin, "/old"), to(301, "/new"));
        assert_eq!(redirected(&plugin, "/old?a=b"), to(301, "/new?a=b"));
        assert_eq!(redirected(&plugin, "/old/er"), None);
        assert_eq!(redirected(&plugin, "/docs/v1/a?b"), to(302, "/docs/v2/a?b"));
        assert_eq!(redirected(&plugin, "/docs/v12"), None);
        let blog = "https://blog.example.com/2024/a%20b?host=example.com";
        assert_eq!(redirected(&plugin, "/blog/2024/a%20b?c=d"), to(308, blog));
        assert_eq!(redirected(&plugin, "/blog/x"), to(301, "/never"));
    }

    #[test]
    fn a_table_is_looked_up_and_followed() {
        testing::set_file(
            "moved.txt",
            "# moved\n/a /b\n/c https://example.org/c 302\n\n/a%20b /ab\n",
        );
        let plugin = plugin(r#"{"table": "moved.txt", "keep_query": false}"#);
        assert_eq!(redirected(&plugin, "/a?x"), to(301, "/b"));
        assert_eq!(redirected(&plugin, "/c"), to(302, "https://example.org/c"));
        assert_eq!(redirected(&plugin, "/a%20b"), to(301, "/ab"));
        assert_eq!(redirected(&plugin, "/"), None);
        testing::set_file("moved.txt", "/a /elsewhere 307\n");
        assert_eq!(redirected(&plugin, "/a"), to(307, "/elsewhere"));
        assert_eq!(redirected(&plugin, "/c"), None);
        // A file that is wrong changes nothing.
        testing::set_file("moved.txt", "/a\n");
        assert_eq!(redirected(&plugin, "/a"), to(307, "/elsewhere"));
    }

    #[test]
    fn paths_end_with_a_slash_or_without() {
        let add = plugin(r#"{"trailing_slash": "add"}"#);
        assert_eq!(redirected(&add, "/a?b=c"), to(301, "/a/?b=c"));
        for fine in ["/", "/a/", "/a/b.css"] {
            assert_eq!(redirected(&add, fine), None, "{fine}");
        }
        let remove = plugin(r#"{"trailing_slash": "remove", "status": 308}"#);
        assert_eq!(redirected(&remove, "/a/"), to(308, "/a"));
        for fine in ["/", "/a"] {
            assert_eq!(redirected(&remove, fine), None, "{fine}");
        }
    }

    #[test]
    fn no_path_leads_to_another_host() {
        let page =
            plugin(r#"{"rules": [{"path": "/go", "to": "/$arg_page"}], "keep_query": false}"#);
        assert_eq!(
            redirected(&page, "/go?page=%09/evil.example"),
            to(301, "/evil.example")
        );
        let remove = plugin(r#"{"trailing_slash": "remove"}"#);
        assert_eq!(
            redirected(&remove, "//evil.example/"),
            to(301, "/evil.example")
        );
        let rule = plugin(r#"{"rules": [{"regex": "^/x(.*)$", "to": "$1"}]}"#);
        assert_eq!(
            redirected(&rule, "/x//evil.example"),
            to(301, "/evil.example")
        );
        assert_eq!(
            redirected(&rule, "/x/\\evil.example"),
            to(301, "/evil.example")
        );
    }

    #[test]
    fn a_rule_that_leads_to_itself_is_none() {
        let plugin = plugin(r#"{"rules": [{"prefix": "/", "to": "/"}]}"#);
        assert_eq!(redirected(&plugin, "/a?b"), None);
    }

    #[test]
    fn a_config_without_sense_is_refused() {
        testing::set_file("bad.txt", "/a /b\n/c\n");
        for (config, error) in [
            ("{}", "expected `rules`, `table` or `trailing_slash`"),
            (
                r#"{"status": 200, "trailing_slash": "add"}"#,
                "config.status: 200: expected 301, 302, 303, 307 or 308",
            ),
            (
                r#"{"rules": [{"to": "/"}]}"#,
                "config.rules[0]: expected one of `path`, `prefix` and `regex`",
            ),
            (
                r#"{"rules": [{"path": "a", "to": "/"}]}"#,
                "config.rules[0]: path `a`: expected one that begins with `/`",
            ),
            (
                r#"{"rules": [{"regex": "(", "to": "/"}]}"#,
                "config.rules[0].regex: ",
            ),
            (
                r#"{"table": "bad.txt"}"#,
                "config.table: bad.txt: line 2: expected a path that begins with `/`, a target, and a status if it is another",
            ),
            (r#"{"table": "none.txt"}"#, "none.txt"),
        ] {
            let refused = testing::config(config).and_then(Redirect::configure).err();
            let refused = refused.map(|error| error.to_string()).unwrap_or_default();
            assert!(refused.contains(error), "{config}: {refused}");
        }
    }
}
