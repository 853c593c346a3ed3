//! The config of a test: common indentation taken off, `{placeholders}` filled in, what every gateway needs appended.

use std::collections::BTreeSet;

/// Takes off the first line if it is blank, and the indentation that all lines share, so that line and column are those
/// that the test shows.
pub(crate) fn dedent(text: &str) -> String {
    let text = text.strip_prefix('\n').unwrap_or(text);
    let indent = |line: &&str| line.len() - line.trim_start().len();
    let common = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| indent(&line))
        .min()
        .unwrap_or(0);
    let mut lines: Vec<&str> = text
        .lines()
        .map(|line| line.get(common..).unwrap_or(""))
        .collect();
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    lines.join("\n") + "\n"
}

/// The names in `{name}`: lower-case letters, digits and `_` only, so TOML's tables are none.
pub(crate) fn placeholders(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (start, _) in text.match_indices('{') {
        let rest = &text[start + 1..];
        if let Some(name) = rest.split('}').next().filter(|name| is_name(name)) {
            names.insert(name.to_owned());
        }
    }
    names
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// The tables that may stand once in a config: each default is appended where the test has not its own.
pub(crate) fn with_defaults(text: &str, defaults: &[(&str, String)]) -> String {
    let mut whole = text.to_owned();
    for (table, lines) in defaults {
        let own = text.lines().any(|line| {
            let line = line.trim_start();
            line.starts_with(&format!("[{table}]")) || line.starts_with(&format!("{table}."))
        });
        if !own {
            whole += &format!("\n[{table}]\n{lines}\n");
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indentation_that_all_lines_share_goes() {
        assert_eq!(dedent("\n    a\n      b\n\n    c\n    "), "a\n  b\n\nc\n");
    }

    #[test]
    fn tables_are_no_placeholders() {
        let found = placeholders(r#"x = { plugin = "ewma" } y = "{listen}" z = "{dir}/a" w = {}"#);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["dir", "listen"]);
    }

    #[test]
    fn a_default_gives_way_to_the_tests_own_table() {
        let defaults = [
            ("workers", "count = 2".to_owned()),
            ("log", "level = \"info\"".to_owned()),
        ];
        let whole = with_defaults("[workers]\ncount = 1\n", &defaults);
        assert_eq!(whole, "[workers]\ncount = 1\n\n[log]\nlevel = \"info\"\n");
    }
}
