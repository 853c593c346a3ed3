//! `{ from_file = "PATH" }` in the place of a text: a file's text, which no message shows.

use std::cmp::Reverse;
use std::io::ErrorKind;
use std::path::Path;

use super::file::{MAX_BYTES, read_regular};

/// Text of the file, less one line break at its end. `Err`: what is wrong, the path included.
pub(super) fn read(path: &Path, limit_bytes: u64) -> Result<String, String> {
    let refused = |why: String| format!("from_file: {} {why}", path.display());
    let limit_bytes = limit_bytes.min(MAX_SECRET_BYTES);
    let bytes = read_regular(path, limit_bytes).map_err(|error| match error.kind() {
        ErrorKind::FileTooLarge => refused(format!(
            "is too large: expected at most {} MiB, and {} MiB in all files of the config",
            MAX_SECRET_BYTES >> 20,
            MAX_BYTES >> 20
        )),
        _ => refused(format!("cannot be read: {error}")),
    })?;
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        refused(format!("is not UTF-8 from byte {offset} on"))
    })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// Replaces each of the secrets in a message.
pub(super) fn hide(message: String, secrets: &[String]) -> String {
    let told = |secret: &&String| secret.len() >= LEAST_TOLD_BYTES;
    let mut told: Vec<&String> = secrets.iter().filter(told).collect();
    // A secret may be a part of another, of which the rest would be shown.
    told.sort_by_key(|secret| Reverse(secret.len()));
    told.into_iter().fold(message, |message, secret| {
        let escaped = secret.escape_debug().to_string();
        message.replace(&escaped, HIDDEN).replace(secret, HIDDEN)
    })
}

/// Size limit of one file: what Kubernetes allows for a Secret.
const MAX_SECRET_BYTES: u64 = 1 << 20;

/// A shorter text is found in words by accident, and little is told by it.
const LEAST_TOLD_BYTES: usize = 4;

const HIDDEN: &str = "(text of a file)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_is_a_part_of_another_leaves_nothing_of_it() {
        let secrets = ["prod", "prod-9f3a"].map(str::to_owned);
        let said = hide("no zone prod-9f3a, no prod".to_owned(), &secrets);
        assert_eq!(said, format!("no zone {HIDDEN}, no {HIDDEN}"));
    }
}
