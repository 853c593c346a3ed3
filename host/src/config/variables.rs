//! Texts with `$variables`, as the access log's format has them.

use http::HeaderName;

/// A part of such a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplatePart<'a> {
    Literal(&'a str),
    /// A name as [`is_variable`] allows it.
    Variable(&'a str),
}

/// The text's parts: `$name` and `${name}` are variables, `$$` is a dollar sign. The error says, for a person, what is
/// no variable's name.
pub fn template_parts(text: &str) -> Result<Vec<TemplatePart<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        let (before, after) = (&rest[..dollar], &rest[dollar + 1..]);
        if let Some(after) = after.strip_prefix('$') {
            // The literal ends with the first of the two.
            pieces.push(TemplatePart::Literal(&rest[..=dollar]));
            rest = after;
            continue;
        }
        if !before.is_empty() {
            pieces.push(TemplatePart::Literal(before));
        }
        let name;
        (name, rest) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').ok_or("`${` without `}`")?,
            None => {
                let end = after
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(after.len());
                after.split_at(end)
            }
        };
        if !is_variable(name) {
            return Err(format!("`${name}` is no variable's name"));
        }
        pieces.push(TemplatePart::Variable(name));
    }
    if !rest.is_empty() {
        pieces.push(TemplatePart::Literal(rest));
    }
    Ok(pieces)
}

/// `http_NAME` and `sent_http_NAME` with a header's name in which `_` stands for `-`, or 1 to 64 of `a-z 0-9 _`.
fn is_variable(name: &str) -> bool {
    let header = name
        .strip_prefix("http_")
        .or_else(|| name.strip_prefix("sent_http_"));
    match header {
        Some(header) => header.replace('_', "-").parse::<HeaderName>().is_ok(),
        None => {
            let valid = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
            (1..=64).contains(&name.len()) && name.bytes().all(valid)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_parted_at_its_variables() {
        use TemplatePart::{Literal, Variable};
        let parted = |text| template_parts(text).unwrap();
        assert_eq!(
            parted("a $b-${c}d"),
            [
                Literal("a "),
                Variable("b"),
                Literal("-"),
                Variable("c"),
                Literal("d")
            ]
        );
        assert_eq!(parted("$$x$$"), [Literal("$"), Literal("x$")]);
        assert_eq!(parted("$http_X_a"), [Variable("http_X_a")]);
        assert_eq!(parted(""), []);
        for bad in ["$", "$X", "${a", "$http_", "${http_a b}", "${}"] {
            assert!(template_parts(bad).is_err(), "{bad}");
        }
    }
}
