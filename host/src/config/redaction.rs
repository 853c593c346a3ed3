//! Errors about a plugin's config without its values: they may be secrets, and logs are read by others than who wrote
//! the config.

use std::borrow::Cow;

use serde_json::Value as Json;

/// `said`, in which every value of the plugin's config (JSON) is replaced by its kind: `invalid type: a string of 12
/// bytes, expected u32`. An error that begins with a key path (`config.tokens[1]: ...`) is searched for the values at
/// that key only, any other for all of them. Names of keys stay.
pub fn without_values(config: &str, said: &str) -> String {
    let Ok(config) = serde_json::from_str::<Json>(config) else {
        return said.to_owned();
    };
    let (path, reason) = match said.split_once(": ") {
        Some((path, reason)) if path == "config" || is_key_path(path) => (path, reason),
        Some(_) | None => ("", said),
    };
    if names_keys_only(reason) {
        return said.to_owned();
    }
    let at_key = path
        .strip_prefix("config")
        .and_then(|inner| at(&config, inner));
    let mut shown = Vec::new();
    add_values(at_key.unwrap_or(&config), at_key.is_some(), &mut shown);
    // A longer one may have a shorter one in it.
    shown.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
    let mut reason = Cow::Borrowed(reason);
    for (text, kind) in &shown {
        reason = Cow::Owned(replace(&reason, text, kind));
    }
    for (text, _) in &shown {
        reason = Cow::Owned(hide_parts(&reason, text));
    }
    match path {
        "" => reason.into_owned(),
        path => format!("{path}: {reason}"),
    }
}

fn is_key_path(path: &str) -> bool {
    path.starts_with("config.") || path.starts_with("config[")
}

/// Whether serde's message is about keys. Keys are no values, and which one is missing may be the text of a value
/// elsewhere.
fn names_keys_only(reason: &str) -> bool {
    ["missing field `", "unknown field `", "duplicate field `"]
        .iter()
        .any(|begin| reason.starts_with(begin))
}

/// The value at `.tokens[1]`; `None` where the path leads nowhere.
fn at<'a>(config: &'a Json, path: &str) -> Option<&'a Json> {
    let mut value = config;
    let mut rest = path;
    while !rest.is_empty() {
        let end = rest[1..].find(['.', '[']).map_or(rest.len(), |end| end + 1);
        let step = &rest[..end];
        value = match step.strip_prefix('[') {
            Some(index) => value.get(index.strip_suffix(']')?.parse::<usize>().ok()?)?,
            None => value.get(step.strip_prefix('.')?)?,
        };
        rest = &rest[end..];
    }
    Some(value)
}

/// Each text and number in the value, with its kind. Numbers only where the value itself is `asked_for`: elsewhere they
/// would hide the limits that an error names.
fn add_values(value: &Json, asked_for: bool, shown: &mut Vec<(String, String)>) {
    match value {
        Json::Null | Json::Bool(_) => {}
        Json::Number(number) if asked_for => {
            let kind = if number.is_f64() {
                "a number"
            } else {
                "an integer"
            };
            shown.push((number.to_string(), kind.to_owned()));
        }
        Json::Number(_) => {}
        Json::String(text) if text.is_empty() => {}
        Json::String(text) => {
            let bytes = match text.len() {
                1 => "1 byte".to_owned(),
                len => format!("{len} bytes"),
            };
            shown.push((text.clone(), format!("a string of {bytes}")));
        }
        Json::Array(items) => items.iter().for_each(|item| add_values(item, false, shown)),
        Json::Object(entries) => entries
            .values()
            .for_each(|entry| add_values(entry, false, shown)),
    }
}

/// Puts `kind` into the place of `text`, with the quotes and words that serde and others put around a value.
fn replace(reason: &str, text: &str, kind: &str) -> String {
    let mut reason = reason.to_owned();
    let mut spellings = vec![
        text.to_owned(),
        text.escape_debug().to_string(),
        text.escape_default().to_string(),
        text.as_bytes().escape_ascii().to_string(),
    ];
    spellings.dedup();
    for text in spellings {
        for word in ["string ", "integer ", "floating point ", "character ", ""] {
            for quote in ['"', '`', '\''] {
                reason = reason.replace(&format!("{word}{quote}{text}{quote}"), kind);
            }
        }
        reason = replace_words(&reason, &text, kind);
    }
    reason
}

/// Puts `kind` into the place of `text` where it stands without quotes: anywhere when it is long enough to be no
/// accident, else where no letter or digit is beside it and it is a number.
fn replace_words(reason: &str, text: &str, kind: &str) -> String {
    let is_number = text.parse::<f64>().is_ok();
    if !is_number {
        return match text.len() {
            0..LEAST_TOLD_BYTES => reason.to_owned(),
            _ => reason.replace(text, kind),
        };
    }
    let mut whole = String::with_capacity(reason.len());
    let mut end = 0;
    for (start, _) in reason.match_indices(text) {
        let is_part = |c: char| c.is_alphanumeric() || c == '.';
        let (before, after) = (&reason[..start], &reason[start + text.len()..]);
        if !before.ends_with(is_part) && !after.starts_with(char::is_alphanumeric) {
            whole.push_str(&reason[end..start]);
            whole.push_str(kind);
            end = start + text.len();
        }
    }
    whole.push_str(&reason[end..]);
    whole
}

/// Hides what stands in backticks or quotes and is a part of a value: an error often quotes from where it could not
/// read on.
fn hide_parts(reason: &str, value: &str) -> String {
    let mut hidden = String::with_capacity(reason.len());
    let mut rest = reason;
    while let Some(start) = rest.find(['`', '"']) {
        let quote = &rest[start..=start];
        let inner = &rest[start + 1..];
        let Some(end) = inner.find(quote) else { break };
        let quoted = &inner[..end];
        hidden.push_str(&rest[..start]);
        match quoted.len() >= LEAST_TOLD_BYTES && value.contains(quoted) {
            true => hidden.push_str("a part of it"),
            false => hidden.push_str(&rest[start..start + quoted.len() + 2]),
        }
        rest = &inner[end + 1..];
    }
    hidden.push_str(rest);
    hidden
}

/// A shorter text is found in words by accident, and little is told by it.
const LEAST_TOLD_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"token":"s3cret \"word\"","tokens":["ab","s3cret2"],"limit":4711,"rate":0.5,
        "header":"x-token","nested":{"on":true,"name":"$hidden}x"}}"#;

    #[track_caller]
    fn told(said: &str, expected: &str) {
        assert_eq!(without_values(CONFIG, said), expected);
    }

    #[test]
    fn a_value_is_told_by_its_kind() {
        told(
            r#"config.token: invalid type: string "s3cret \"word\"", expected u32"#,
            "config.token: invalid type: a string of 13 bytes, expected u32",
        );
        told(
            "config.limit: invalid type: integer `4711`, expected a string",
            "config.limit: invalid type: an integer, expected a string",
        );
        told(
            "config.rate: invalid type: floating point `0.5`, expected a string",
            "config.rate: invalid type: a number, expected a string",
        );
        told(
            "config.limit: 4711: expected 1 to 47110",
            "config.limit: an integer: expected 1 to 47110",
        );
        told(
            "config.tokens[0]: `ab` is about absurd",
            "config.tokens[0]: a string of 2 bytes is about absurd",
        );
        told(
            "config.tokens[1]: unknown variant `s3cret2`, expected `fast` or `slow`",
            "config.tokens[1]: unknown variant a string of 7 bytes, expected `fast` or `slow`",
        );
    }

    #[test]
    fn a_part_of_a_value_is_hidden_too() {
        told(
            "config.nested.name: `$hidden`: no `}` follows",
            "config.nested.name: a part of it: no `}` follows",
        );
        told(
            "config.nested: no such thing as $hidden}x",
            "config.nested: no such thing as a string of 9 bytes",
        );
    }

    #[test]
    fn without_a_key_all_values_are_hidden() {
        told(
            "panicked at src/lib.rs:5:1: s3cret2 is not x-token",
            "panicked at src/lib.rs:5:1: a string of 7 bytes is not a string of 7 bytes",
        );
        told(
            "config.gone[7]: s3cret2",
            "config.gone[7]: a string of 7 bytes",
        );
    }

    #[test]
    fn what_is_no_value_stays() {
        let keys = "config: missing field `x-token`";
        told(keys, keys);
        let unknown = "config.tokenz: unknown field `tokenz`, expected `tokens` or `header`";
        told(unknown, unknown);
        let other = "config.nested.on: invalid type: boolean `true`, expected a string";
        told(other, other);
        assert_eq!(without_values("no json", "text"), "text");
    }
}
