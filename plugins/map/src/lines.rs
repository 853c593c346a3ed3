//! Lines of a file: `key value`, also as files have them that nginx includes into a `map` or a `geo`.

use castling_sdk::prelude::*;

/// A key and its value.
pub(crate) fn split(line: &str) -> Result<(&str, &str)> {
    let (key, rest) = match quoted(line)? {
        Some((key, rest)) if rest.starts_with(BLANKS) => (key, rest),
        Some(_) => return Err(Error::msg(EXPECTED)),
        None => line
            .split_once(BLANKS)
            .ok_or_else(|| Error::msg(EXPECTED))?,
    };
    let rest = rest.trim_start();
    let (value, rest) = match quoted(rest)? {
        Some(quoted) => quoted,
        None => {
            let end = rest.find(';').unwrap_or(rest.len());
            match rest[..end].trim_end() {
                "" => return Err(Error::msg(EXPECTED)),
                value => (value, &rest[end..]),
            }
        }
    };
    check_end(rest.trim())?;
    Ok((key, value))
}

/// The text between the quotes that `text` begins with, and the rest behind them. `None`: it begins with none.
fn quoted(text: &str) -> Result<Option<(&str, &str)>> {
    let Some(quote @ ('"' | '\'')) = text.chars().next() else {
        return Ok(None);
    };
    let Some((inner, rest)) = text[1..].split_once(quote) else {
        bail!("expected another {quote} where the text ends");
    };
    // nginx takes the backslash away, while values are used where they lie in the file.
    if inner.ends_with('\\') {
        bail!("\\{quote}: expected the other kind of quotes around a text with {quote} in it");
    }
    Ok(Some((inner, rest)))
}

/// Fails where there is more behind a value than `;` and a comment.
fn check_end(rest: &str) -> Result<()> {
    if rest.is_empty() {
        return Ok(());
    }
    match rest.strip_prefix(';').map(str::trim_start) {
        Some(behind) if behind.is_empty() || behind.starts_with('#') => Ok(()),
        Some(behind) => bail!(
            "`{behind}` behind the `;` that ends the value: expected one entry a line, and quotes around a value with `;` in it"
        ),
        None => bail!("`{rest}` behind a value in quotes: expected `;` or nothing"),
    }
}

const BLANKS: [char; 2] = [' ', '\t'];

const EXPECTED: &str = "expected a key and a value";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_key_and_a_value() {
        for (line, expected) in [
            ("/a /b", ("/a", "/b")),
            ("/a\t /b c;", ("/a", "/b c")),
            ("\"a b\" 'c d';", ("a b", "c d")),
            ("a \"\" ;", ("a", "")),
            ("'a' b'c", ("a", "b'c")),
            ("/a one;   # comment", ("/a", "one")),
            ("/a one ;# ; comment", ("/a", "one")),
            ("/a 'one; two' ;  #", ("/a", "one; two")),
            ("/a \"it's\";", ("/a", "it's")),
            ("/a /b#c d", ("/a", "/b#c d")),
            ("/a;v=1 /b;", ("/a;v=1", "/b")),
        ] {
            assert_eq!(split(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn a_line_that_is_not_one_entry_is_refused() {
        for (line, expected) in [
            ("a", EXPECTED),
            ("a;", EXPECTED),
            ("a ;", EXPECTED),
            (";", EXPECTED),
            ("\"a\"b", EXPECTED),
            ("a \"b", "expected another \" where"),
            ("'a b", "expected another ' where"),
            ("/b two; /c three;", "`/c three;` behind the `;`"),
            ("/b text/html; charset=x", "`charset=x` behind the `;`"),
            ("/b two;;", "`;` behind the `;`"),
            ("/b 'two' three;", "`three;` behind a value in quotes"),
            ("/b \"t\\\"wo\";", "\\\": expected the other kind"),
        ] {
            let refused = split(line).unwrap_err().to_string();
            assert!(refused.starts_with(expected), "{line}: {refused}");
        }
    }
}
