//! JSON: a plugin's config, which is the `config` table of the gateway's file, and bodies.

use serde::de::DeserializeOwned;

mod types;

use crate::error::{Error, Result};

/// Parses the config. An error names the key: `config.tokens[1]: invalid type: integer 5, expected a string`.
pub(crate) fn parse<C: DeserializeOwned>(text: &[u8]) -> Result<C> {
    parse_as("config", text)
}

/// Parses a body. An error names the key, as that of a config does: `body.tags[2]: …`.
pub(crate) fn parse_body<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    parse_as("body", text)
}

fn parse_as<T: DeserializeOwned>(root: &str, text: &[u8]) -> Result<T> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| at_key(root, &error.path().to_string(), error.inner()))?;
    json.end().map_err(|error| at_key(root, ".", &error))?;
    Ok(value)
}

/// Apart from `parse_as`, so that it is there once and not for each type.
fn at_key(root: &str, path: &str, error: &serde_json::Error) -> Error {
    let mut reason = error.to_string();
    // Line and column are those of a JSON text that nobody has written.
    if error.line() != 0
        && let Some(end) = reason.rfind(" at line ")
    {
        reason.truncate(end);
    }
    let dot = if path.starts_with('[') { "" } else { "." };
    match path {
        "." => Error::msg(format_args!("{root}: {reason}")),
        path => Error::msg(format_args!("{root}{dot}{path}: {reason}")),
    }
}

/// The config of a plugin that takes none.
pub(crate) fn parse_none(text: &[u8]) -> Result<()> {
    if matches!(text.trim_ascii(), b"{}" | b"null" | b"") {
        Ok(())
    } else {
        Err(Error::msg("config: this plugin takes none"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        #[allow(dead_code, reason = "parsed only")]
        tokens: Vec<String>,
    }

    fn error(text: &str) -> String {
        parse::<Config>(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn an_error_names_the_key() {
        assert_eq!(
            error(r#"{"tokens": ["a", 5]}"#),
            "config.tokens[1]: invalid type: integer `5`, expected a string"
        );
        assert_eq!(error("{}"), "config: missing field `tokens`");
        assert_eq!(
            error(r#"{"tokens": [], "tokenz": 1}"#),
            "config.tokenz: unknown field `tokenz`, expected `tokens`"
        );
        assert_eq!(
            error("[]"),
            "config: invalid length 0, expected struct Config with 1 element"
        );
    }

    #[test]
    fn a_plugin_without_config_says_so() {
        assert!(parse_none(b"{}").is_ok());
        assert_eq!(
            parse_none(br#"{"a":1}"#).unwrap_err().to_string(),
            "config: this plugin takes none"
        );
    }
}
