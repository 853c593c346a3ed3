//! Refusals of `[listeners.NAME.tls]`.

use super::*;

fn with(lines: &str) -> String {
    format!("[listeners.a]\nbind = '127.0.0.1:1'\n[listeners.a.tls]\n{lines}")
}

/// Looks for an error beside that of a file that is not there.
#[track_caller]
fn also_refused(lines: &str, error: &str) {
    let errors = Site::new(&format!("{}{REST}", with(lines))).errors();
    assert!(errors.iter().any(|one| one == error), "{errors:?}");
}

#[test]
fn a_listener_with_tls_has_certificates() {
    let rule = "expected a list such as [{ certificate = \"site.pem\", key = \"site.key\" }]";
    refused(
        &with(""),
        &format!("site.toml:3:1: missing key \"certificates\": {rule}"),
    );
    refused(
        &with("certificates = []"),
        &format!("site.toml:4:16: certificates a list: {rule}"),
    );
    also_refused(
        "certificates = [{ certificate = 'a.pem' }]",
        "site.toml:4:17: missing key \"key\": expected a PEM file",
    );
    also_refused(
        "certificates = [{ certificate = '/dev/zero', key = '/dev/null' }]",
        "site.toml:4:33: certificate: /dev/zero: it is not a regular file",
    );
    also_refused(
        "certificates = [{ certificate = '/nowhere', key = '/nowhere', names = ['a b'] }]",
        "site.toml:4:72: names 'a b': expected a host name such as \"example.com\" or \"*.example.com\"",
    );
}

#[test]
fn its_other_keys_are_checked() {
    for (line, error) in [
        (
            "min_version = '1.1'",
            "site.toml:4:15: min_version '1.1': expected \"1.2\" or \"1.3\"",
        ),
        (
            "unknown_name = 'last'",
            "site.toml:4:16: unknown_name 'last': expected \"first\" or \"refuse\"",
        ),
        (
            "suites = []",
            "site.toml:4:10: suites a list: expected at least one name",
        ),
        (
            "handshake_timeout = '0s'",
            "site.toml:4:21: handshake_timeout '0s': expected 1ms to 30days",
        ),
    ] {
        also_refused(line, error);
    }
}
