//! Rules of the config.

use castling_sdk::expression::Expression;
use castling_sdk::prelude::*;
use castling_sdk::template::Template;

use crate::{Target, check_status};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleConfig {
    /// The whole path.
    path: Option<String>,
    /// The path's first segments; what follows them follows the target.
    prefix: Option<String>,
    /// An expression that is looked for in the path. Its groups are variables: `$1`, `$name`.
    regex: Option<Expression>,
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
    Regex(Expression),
}

impl Rule {
    pub(crate) fn new(config: RuleConfig, status: u16) -> Result<Self> {
        let matches = match (config.path, config.prefix, config.regex) {
            (Some(path), None, None) => Match::Path(rooted("path", path)?),
            (None, Some(prefix), None) => {
                let prefix = rooted("prefix", prefix)?;
                Match::Prefix(prefix.trim_end_matches('/').to_owned())
            }
            (None, None, Some(regex)) => Match::Regex(regex),
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
            Match::Regex(regex) => regex.capture(request, path).then_some("")?,
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

fn rooted(key: &str, path: String) -> Result<String> {
    match path.starts_with('/') {
        true => Ok(path),
        false => bail!("{key} `{path}`: expected one that begins with `/`"),
    }
}
