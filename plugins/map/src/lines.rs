//! Lines of a file: `key value`, also as files have them that nginx includes into a `map` or a `geo`.

/// A key and its value. `None`: it is not a key, blanks and a value.
pub(crate) fn split(line: &str) -> Option<(&str, &str)> {
    let line = match line.strip_suffix(';') {
        Some(line) => line.trim_end(),
        None => line,
    };
    let (key, rest) = match line.chars().next()? {
        quote @ ('"' | '\'') => {
            let (key, rest) = line[1..].split_once(quote)?;
            (key, rest.starts_with([' ', '\t']).then_some(rest)?)
        }
        _ => line.split_once([' ', '\t'])?,
    };
    Some((key, unquoted(rest.trim())?))
}

/// A value without its quotes; `None`: there is nothing, or a quote too few.
fn unquoted(text: &str) -> Option<&str> {
    match text.chars().next()? {
        quote @ ('"' | '\'') => text[1..].strip_suffix(quote),
        _ => Some(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_key_and_a_value() {
        for (line, expected) in [
            ("/a /b", Some(("/a", "/b"))),
            ("/a\t /b c;", Some(("/a", "/b c"))),
            ("\"a b\" 'c d';", Some(("a b", "c d"))),
            ("a \"\" ;", Some(("a", ""))),
            ("'a' b'c", Some(("a", "b'c"))),
            ("a", None),
            ("a;", None),
            ("a \"b", None),
            ("\"a\"b", None),
            (";", None),
        ] {
            assert_eq!(split(line), expected, "{line}");
        }
    }
}
