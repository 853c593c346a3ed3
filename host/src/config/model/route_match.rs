//! What a route asks of a request, beside its host.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

/// In the file a text for a prefix, or `{ exact = "/x" }`, or `{ regex = "^/x" }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathMatch {
    /// By whole segments: `/api` and `/api/` both match `/api`, `/api/` and `/api/x`, never `/apix`. Kept without the trailing
    /// slash (the root is the empty text). Has no empty, `.` or `..` segments, and is one that [`crate::message::path::read`]
    /// reads.
    Prefix(String),
    /// The whole path: `/x` is not `/x/`. What is said of a prefix holds for it.
    Exact(String),
    /// Looks for it anywhere in the path as it is compared, unless `^` and `$` bind it.
    Regex(Pattern),
}

/// A field, a query parameter or a cookie, and the test of its values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldMatch {
    /// Of a field: in lower case.
    pub name: String,
    pub test: ValueTest,
}

/// Where a name has several values, one that passes is enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ValueTest {
    /// In the file `"value"`, or a list of such.
    OneOf(Vec<String>),
    /// In the file `true`.
    Present,
    /// In the file `false`.
    Absent,
    /// In the file `{ regex = "..." }`.
    Regex(Pattern),
}

impl FieldMatch {
    pub fn pattern(&self) -> Option<&Pattern> {
        match &self.test {
            ValueTest::Regex(pattern) => Some(pattern),
            ValueTest::OneOf(_) | ValueTest::Present | ValueTest::Absent => None,
        }
    }
}

/// A regular expression that compiles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pattern(String);

/// Largest size of one that is compiled, and of what its searches keep.
const MAX_COMPILED_BYTES: usize = 256 << 10;

impl Pattern {
    /// The error says what is wrong with it, for a person, on one line.
    pub fn new(text: &str) -> Result<Self, String> {
        // With both settings of a listener's `case`: one of them may be too large alone.
        for ignores_case in [false, true] {
            compile(text, ignores_case).map_err(|error| reason(text, &error))?;
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Compiles it.
    pub fn regex(&self, ignores_case: bool) -> Regex {
        compile(&self.0, ignores_case)
            .expect("a pattern that was compiled when the config was read")
    }

    /// Number of its groups, with names and without.
    pub fn groups(&self) -> usize {
        self.regex(false).captures_len() - 1
    }

    /// Names of its groups.
    pub fn group_names(&self) -> Vec<String> {
        let regex = self.regex(false);
        regex.capture_names().flatten().map(str::to_owned).collect()
    }
}

/// Bytes, not characters: `\w`, `\d` and `.` are of ASCII, as paths are, and `.` is any byte but a newline.
fn compile(text: &str, ignores_case: bool) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text)
        .unicode(false)
        .case_insensitive(ignores_case)
        .size_limit(MAX_COMPILED_BYTES)
        .dfa_size_limit(MAX_COMPILED_BYTES)
        .nest_limit(MAX_NESTED)
        .build()
}

/// Deepest nesting of groups.
const MAX_NESTED: u32 = 100;

/// One line of the library's several, with the place in the pattern.
fn reason(text: &str, error: &regex::Error) -> String {
    let regex::Error::Syntax(said) = error else {
        return format!(
            "too large: expected at most {} KiB when compiled",
            MAX_COMPILED_BYTES >> 10
        );
    };
    let why = said.lines().find_map(|line| line.strip_prefix("error: "));
    let why = why.unwrap_or("no regular expression");
    // Below the pattern, which is indented by four, and which may be of such characters itself.
    let mut lines = said
        .lines()
        .skip_while(|line| line.get(4..) != Some(text))
        .skip(1);
    // Of two places the second is the one that is wrong, of a range the first character is told.
    match lines.next().and_then(|marks| marks.rfind(" ^")) {
        Some(before) => format!("{why}, at its character {}", before.saturating_sub(2)),
        None => why.to_owned(),
    }
}

impl PathMatch {
    /// For names of routes: as nginx writes a location.
    pub fn short(&self) -> String {
        match self {
            Self::Prefix(path) if path.is_empty() => "/".to_owned(),
            Self::Prefix(path) => path.clone(),
            Self::Exact(path) => format!("={path}"),
            Self::Regex(pattern) => format!("~{}", pattern.as_str()),
        }
    }
}

/// For a person: `path /api`, `path = /api`, `path ~ ^/api`.
impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(path) if path.is_empty() => f.write_str("path /"),
            Self::Prefix(path) => write!(f, "path {path}"),
            Self::Exact(path) => write!(f, "path = {path}"),
            Self::Regex(pattern) => write!(f, "path ~ {}", pattern.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_pattern_is_told_on_one_line() {
        for (text, why) in [
            ("^/(a", "unclosed group, at its character 3"),
            ("a**)", "unopened group, at its character 4"),
            (
                "(?=a)",
                "look-around, including look-ahead and look-behind, is not supported, at its character 1",
            ),
            (
                r"(a)\1",
                "backreferences are not supported, at its character 4",
            ),
            (
                "(?<a>x)(?<a>y)",
                "duplicate capture group name, at its character 11",
            ),
            (
                "(((a{9}){9}){9}){9}{9}",
                "too large: expected at most 256 KiB when compiled",
            ),
        ] {
            assert_eq!(Pattern::new(text), Err(why.to_owned()), "{text}");
        }
        let names = Pattern::new("(?<a>x)(y)(?P<b>z)").unwrap().group_names();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn case_is_ignored_where_the_listener_says_so() {
        let pattern = Pattern::new("^/User").unwrap();
        assert!(pattern.regex(true).is_match(b"/user") && !pattern.regex(false).is_match(b"/user"));
    }
}
