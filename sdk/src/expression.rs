//! Regular expressions of a plugin's config, whose groups become variables (feature `regex`).
//!
//! ```
//! use castling_sdk::expression::Expression;
//! use castling_sdk::prelude::*;
//! use castling_sdk::testing::Exchange;
//!
//! let expression: Expression = "^/blog/(?<year>[0-9]+)/".parse()?;
//! let mut exchange = Exchange::get("/");
//! let request = exchange.request();
//! assert!(!expression.capture(request, "/about"));
//! assert!(expression.capture(request, "/blog/2024/a"));
//! assert_eq!(request.var("year").unwrap(), "2024");
//! assert_eq!(request.var("1").unwrap(), "2024");
//! # Ok::<(), Error>(())
//! ```

use std::str::FromStr;

use regex::{Captures, Regex, RegexBuilder};
use serde::Deserialize;

use crate::bail;
use crate::error::{Error, Result};
use crate::request::Request;
use crate::template;

/// A regular expression, compiled when the plugin is configured. In a config it is a string, and one that is none, or has a group whose name
/// no variable may have, is a config error. A search takes time that grows linearly with what is searched.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Expression(Regex);

impl Expression {
    /// Compiles an expression. Fails where it is none, or a group has a name that no variable may have
    /// ([`template::is_settable`]).
    pub fn new(text: &str, ignores_case: bool) -> Result<Self> {
        let built = RegexBuilder::new(text)
            .case_insensitive(ignores_case)
            .build();
        let regex = match built {
            Ok(regex) => regex,
            Err(error) => bail!("{error}"),
        };
        let mut names = regex.capture_names().flatten();
        if let Some(name) = names.find(|name| !template::is_settable(name)) {
            bail!(
                "group `{name}`: expected 1 to 64 of a-z 0-9 _, and none of the gateway's own variables"
            );
        }
        Ok(Self(regex))
    }

    /// Whether the expression is found in `text`.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// Whether the expression is found in `text`. Then its groups are variables of the request, by number and by name: `$1`, `$year`. One that takes no
    /// part in the match is empty.
    pub fn capture(&self, request: &Request, text: &str) -> bool {
        let Some(groups) = self.groups(text) else {
            return false;
        };
        for (idx, name) in self.0.capture_names().enumerate().skip(1) {
            let text = groups.at(idx);
            request.set_var(idx.to_string(), text);
            if let Some(name) = name {
                request.set_var(name, text);
            }
        }
        true
    }

    /// Groups of the first match in `text`, for [`Template::expand_own`](crate::template::Template::expand_own): they are nobody else's.
    /// `None`: the expression is not found.
    ///
    /// ```
    /// # use castling_sdk::expression::Expression;
    /// # use castling_sdk::prelude::*;
    /// let expression = Expression::new("(?<first>a)(b)?", true)?;
    /// let groups = expression.groups("xA").unwrap();
    /// assert_eq!((groups.get("1"), groups.get("first")), (Some("A"), Some("A")));
    /// assert_eq!((groups.get("2"), groups.get("other")), (Some(""), None));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn groups<'t>(&'t self, text: &'t str) -> Option<Groups<'t>> {
        let found = self.0.captures(text)?;
        Some(Groups {
            expression: &self.0,
            found,
        })
    }

    /// Names by which templates have its groups: numbers, and the names that they have.
    pub fn group_names(&self) -> impl Iterator<Item = String> {
        let groups = self.0.capture_names().enumerate().skip(1);
        groups.flat_map(|(idx, name)| {
            [Some(idx.to_string()), name.map(str::to_owned)]
                .into_iter()
                .flatten()
        })
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// Groups of a match.
#[derive(Debug)]
pub struct Groups<'t> {
    expression: &'t Regex,
    found: Captures<'t>,
}

impl<'t> Groups<'t> {
    /// Text of a group, by its number or its name; empty where it takes no part in the match. `None`: the expression has no such group. Number 0 is
    /// the whole match.
    pub fn get(&self, name: &str) -> Option<&'t str> {
        let idx = match name.parse::<usize>() {
            Ok(idx) => idx,
            Err(_) => {
                let mut names = self.expression.capture_names();
                names.position(|it| it == Some(name))?
            }
        };
        (idx < self.found.len()).then(|| self.at(idx))
    }

    fn at(&self, idx: usize) -> &'t str {
        self.found.get(idx).map_or("", |group| group.as_str())
    }
}

impl TryFrom<String> for Expression {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Expression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Exchange;

    #[test]
    fn groups_become_variables_by_number_and_name() {
        let expression: Expression = "^/(?<kind>[a-z]+)(/[0-9]+)?$".parse().unwrap();
        let names: Vec<String> = expression.group_names().collect();
        assert_eq!(names, ["1", "kind", "2"]);
        let mut exchange = Exchange::get("/");
        let request = exchange.request();
        assert!(expression.capture(request, "/item"));
        for (name, value) in [("1", "item"), ("kind", "item"), ("2", "")] {
            assert_eq!(request.var(name).unwrap(), value, "{name}");
        }
        assert!(!expression.capture(request, "/Item"));
        assert!(Expression::new("^/item$", true).unwrap().is_match("/ITEM"));
    }

    #[test]
    fn a_group_has_the_name_of_a_variable() {
        for (text, why) in [
            ("(", "unclosed group"),
            ("(?<host>a)", "group `host`: expected 1 to 64"),
            ("(?<Kind>a)", "group `Kind`: expected 1 to 64"),
        ] {
            let refused = text.parse::<Expression>().unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
