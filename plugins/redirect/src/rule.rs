//! Rules of the config.

use castling_sdk::prelude::*;
use castling_sdk::template::{self, Template};
use regex::Regex;

use crate::{Target, check_status};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleConfig {
    /// The whole path.
    path: Option<String>,
    /// The path's first segments; what follows them follows the target.
    prefix: Option<String>,
    /// An expression that is looked for in the path. Its groups are variables: `$1`, `$name`.
    regex: Option<String>,
    /// A path or a URL, with variables.
    to: Template,
    /// Default: the plugin's.
    status: Option<u16>,
}

pub(crate) struct Rule {
    matches: Match,
    to: Template,
    status: u16,
}

enum Match {
    Path(String),
    Prefix(String),
    Regex(Regex),
}

impl Rule {
    pub(crate) fn new(config: RuleConfig, status: u16) -> Result<Self> {
        let matches = match (config.path, config.prefix, config.regex) {
            (Some(path), None, None) => Match::Path(rooted("path", path)?),
            (None, Some(prefix), None) => {
                let prefix = rooted("prefix", prefix)?;
                Match::Prefix(prefix.trim_end_matches('/').to_owned())
            }
            (None, None, Some(regex)) => match Regex::new(&regex) {
                Ok(regex) => Match::Regex(named(regex)?),
                Err(error) => bail!("regex: {error}"),
            },
            _ => bail!("expected one of `path`, `prefix` and `regex`"),
        };
        let status = config.status.unwrap_or(status);
        check_status(status).map_err(|error| error.context("status"))?;
        Ok(Self {
            matches,
            to: config.to,
            status,
        })
    }

    pub(crate) fn target(&self, request: &Request, path: &str) -> Option<Target> {
        let rest = match &self.matches {
            Match::Path(whole) => (whole == path).then_some("")?,
            Match::Prefix(prefix) => path
                .strip_prefix(prefix)
                .filter(|rest| rest.is_empty() || rest.starts_with('/'))?,
            Match::Regex(regex) => {
                set_groups(regex, request, path)?;
                ""
            }
        };
        let location = self.to.expand(request, None);
        let mut location = String::from_utf8_lossy(&location).into_owned();
        if !rest.is_empty() {
            location.truncate(location.trim_end_matches('/').len());
        }
        location.push_str(rest);
        Some(Target {
            location,
            status: self.status,
        })
    }
}

/// Sets the expression's groups as variables, `$1` and by name, as a route's are.
fn set_groups(regex: &Regex, request: &Request, path: &str) -> Option<()> {
    let found = regex.captures(path)?;
    for (idx, name) in regex.capture_names().enumerate().skip(1) {
        let text = found.get(idx).map_or("", |group| group.as_str());
        request.set_var(idx.to_string(), text);
        if let Some(name) = name {
            request.set_var(name, text);
        }
    }
    Some(())
}

/// The expression, if its groups can be variables.
fn named(regex: Regex) -> Result<Regex> {
    let mut names = regex.capture_names().flatten();
    if let Some(name) = names.find(|name| !template::is_settable(name)) {
        bail!(
            "regex: group `{name}`: expected 1 to 64 of a-z 0-9 _, and none of the gateway's own variables"
        );
    }
    Ok(regex)
}

fn rooted(key: &str, path: String) -> Result<String> {
    match path.starts_with('/') {
        true => Ok(path),
        false => bail!("{key} `{path}`: expected one that begins with `/`"),
    }
}
