//! `[acme]` and `tls.acme` of listeners.

use super::*;

const AGREED: &str = "[acme]\nagree_to_terms = true\n";

fn with(keys: &str, names: &str) -> String {
    format!(
        "{AGREED}{keys}\n[listeners.a]\nbind = '127.0.0.1:1'\n[listeners.a.tls]\nacme = {names}\n"
    )
}

/// An authority's certificate in a file, so that nothing depends on those that the system has.
fn site(config: &str) -> Site {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Site::new(&format!("{config}{REST}")).file("ca.pem", pem)
}

#[track_caller]
fn refused(config: &str, error: &str) {
    assert_eq!(site(config).errors(), [error]);
}

#[test]
fn what_is_not_said_is_as_most_want_it() {
    let site = site(&with("ca = 'ca.pem'", "['A.test', 'www.a.test']"));
    let config = site.load().unwrap();
    let acme = config.acme.unwrap();
    assert_eq!(
        acme.directory,
        "https://acme-v02.api.letsencrypt.org/directory"
    );
    assert_eq!(acme.store.path, site.path("acme"));
    assert_eq!(
        acme.challenges,
        [ChallengeKind::TlsAlpn01, ChallengeKind::Http01]
    );
    assert_eq!((acme.key_type, acme.roots.len()), (AcmeKeyType::P256, 1));
    assert!(acme.contact.is_empty() && acme.profile.is_none() && acme.external_account.is_none());
    let tls = config.listeners["a"].tls.as_ref().unwrap();
    assert!(tls.certificates.is_empty());
    assert_eq!(tls.acme[0].names, ["a.test", "www.a.test"]);
}

#[test]
fn all_of_it_can_be_said() {
    let keys = "ca = 'ca.pem'\ndirectory = 'https://ca.test/dir'\ncontact = ['a@b.test', 'tel:+1']\nstore = 'kept'\n\
        challenges = ['http-01']\nprofile = 'shortlived'\nkey_type = 'p384'\n\
        external_account = { kid = 'k', hmac_key = { from_env = 'HMAC' } }";
    let site = site(&with(keys, "[['a.test'], ['b.test', 'c.test']]")).env("HMAC", "AQID\n");
    let config = site.load().unwrap();
    let acme = config.acme.as_ref().unwrap();
    assert_eq!(acme.contact, ["mailto:a@b.test", "tel:+1"]);
    assert_eq!(acme.store.path, site.path("kept"));
    let external = acme.external_account.as_ref().unwrap();
    assert_eq!(
        (external.kid.as_str(), &external.hmac_key[..]),
        ("k", &[1, 2, 3][..])
    );
    assert_eq!(format!("{external:?}"), "k, 3 bytes of key");
    let tls = config.listeners["a"].tls.as_ref().unwrap();
    assert_eq!(tls.acme.len(), 2);
    // Workers have no use for it.
    let told = serde_json::to_string(&config).unwrap();
    assert!(
        !told.contains("hmac_key") && !told.contains("ca.test"),
        "{told}"
    );
}

#[test]
fn who_has_not_agreed_orders_nothing() {
    let rule = "expected true, when you agree to the terms of service of the authority";
    refused(
        "[acme]\nca = 'ca.pem'\n",
        &format!("site.toml:1:1: missing key \"agree_to_terms\": {rule}"),
    );
    refused(
        "[acme]\nca = 'ca.pem'\nagree_to_terms = false\n",
        &format!("site.toml:3:18: agree_to_terms false: {rule}"),
    );
    refused(
        "[listeners.a]\nbind = '127.0.0.1:1'\n[listeners.a.tls]\nacme = ['a.test']\n",
        "site.toml:4:8: acme: there is no authority to order from: expected a section [acme] with agree_to_terms = true",
    );
}

#[test]
fn its_keys_are_checked() {
    for (line, error) in [
        (
            "directory = 'http://ca.test/dir'",
            "13: directory 'http://ca.test/dir': expected a URL such as \
             \"https://acme-v02.api.letsencrypt.org/directory\"",
        ),
        (
            "contact = 'somebody'",
            "11: contact 'somebody': expected an address such as \"mailto:hostmaster@example.com\"",
        ),
        (
            "directory = 'https://u:p@ca.test/dir'",
            "13: directory 'https://u:p@ca.test/dir': expected a URL such as \
             \"https://acme-v02.api.letsencrypt.org/directory\"",
        ),
        (
            "directory = 'https://ca.test/dir#f'",
            "13: directory 'https://ca.test/dir#f': expected a URL such as \
             \"https://acme-v02.api.letsencrypt.org/directory\"",
        ),
        (
            "contact = 'http:x'",
            "11: contact 'http:x': expected an address such as \"mailto:hostmaster@example.com\"",
        ),
        (
            "contact = 'mailto:x'",
            "11: contact 'mailto:x': expected an address such as \"mailto:hostmaster@example.com\"",
        ),
        (
            "challenges = []",
            "14: challenges a list: expected at least one challenge",
        ),
        (
            "challenges = ['dns-01']",
            "15: challenges 'dns-01': expected \"tls-alpn-01\" or \"http-01\"",
        ),
        (
            "key_type = 'rsa'",
            "12: key_type 'rsa': expected \"p256\", \"p384\" or \"rsa2048\"",
        ),
        (
            "external_account = { kid = 'k', hmac_key = 'no secret!' }",
            "44: hmac_key: expected the key in base64url",
        ),
        (
            "stor = 'x'",
            "1: unknown key \"stor\": did you mean \"store\"?",
        ),
    ] {
        let config = format!("{AGREED}ca = 'ca.pem'\n{line}\n");
        refused(&config, &format!("site.toml:4:{error}"));
    }
}

#[test]
fn names_are_hosts_and_each_is_in_one_certificate() {
    let names_rule = "expected a list of 1 to 100 names such as [\"example.com\", \"www.example.com\"], or of such lists";
    for (names, error) in [
        (
            "['*.a.test']",
            "9: acme \"*.a.test\": authorities want a challenge by DNS for wildcards, which is not supported: expected a \
             host name such as \"example.com\"",
        ),
        (
            "['Localhost']",
            "9: acme \"localhost\": it is another machine for everyone, and no authority vouches for it: expected a host \
             name such as \"example.com\"",
        ),
        (
            "['127.0.0.1']",
            "9: acme '127.0.0.1': expected a host name such as \"example.com\"",
        ),
        ("[]", &format!("8: acme a list: {names_rule}")),
        ("'a.test'", &format!("8: acme 'a.test': {names_rule}")),
        ("[[]]", &format!("9: acme a list: {names_rule}")),
        (
            "[['a.test'], ['a.test']]",
            "8: acme: a.test is in two certificates: expected each name once",
        ),
        (
            "['a.test', 'A.test']",
            "19: acme 'A.test' is already in the list",
        ),
    ] {
        refused(
            &with("ca = 'ca.pem'", names),
            &format!("site.toml:7:{error}"),
        );
    }
}
