//! Refusals of `[listeners.NAME.tls]` and `[upstreams.NAME.tls]`.

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
        &format!(
            "site.toml:3:1: missing key \"certificates\": {rule}, or key \"acme\" with the names of one to order"
        ),
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

#[test]
fn an_upstreams_keys_are_checked() {
    for (line, error) in [
        (
            "server_name = '*.a'",
            "site.toml:4:15: server_name '*.a': expected a host name such as \"example.com\", or an IP address",
        ),
        (
            "ca = []",
            "site.toml:4:6: ca a list: expected a PEM file or a list of them",
        ),
        (
            "ca = 'p.wasm'",
            "site.toml:4:6: ca: p.wasm: it has none: expected PEM, BEGIN CERTIFICATE",
        ),
        (
            "crl = ['p.wasm']",
            "site.toml:4:8: crl: p.wasm: it has none: expected PEM, BEGIN X509 CRL",
        ),
        (
            "certificate = 'p.wasm'",
            "site.toml:3:1: missing key \"key\": expected a PEM file",
        ),
        (
            "key = 'p.wasm'",
            "site.toml:3:1: missing key \"certificate\": expected a PEM file",
        ),
        (
            "min_version = '1.1'",
            "site.toml:4:15: min_version '1.1': expected \"1.2\" or \"1.3\"",
        ),
        (
            "handshake_timeout = '1s'",
            "site.toml:4:1: unknown key \"handshake_timeout\": expected \"server_name\", \"verify\", \"ca\", \"crl\", \
             \"certificate\", \"key\", \"min_version\", \"suites\" or \"groups\"",
        ),
    ] {
        let upstream = "[upstreams.a]\npeers = ['a:1']\n[upstreams.a.tls]";
        refused(&format!("{upstream}\n{line}\nverify = false"), error);
    }
}

#[test]
fn roots_of_the_system_are_read_where_an_upstream_needs_them() {
    let roots = |tls: &str| {
        let config = good(&format!(
            "[upstreams.a]\npeers = ['a:1']\n[upstreams.a.tls]\n{tls}"
        ));
        config.system_roots.len()
    };
    assert_eq!(roots("verify = false"), 0);
}

#[test]
fn certificates_go_to_workers_as_they_are() {
    let der = Der((0..=255).collect());
    let json = serde_json::to_string(&der).unwrap();
    assert_eq!(json.len(), 2 + 2 * 256);
    assert_eq!(serde_json::from_str::<Der>(&json).unwrap(), der);
    for wrong in ["\"0\"", "\"0g\"", "\"é\""] {
        assert!(serde_json::from_str::<Der>(wrong).is_err());
    }
}
