//! A file of peers: what is in it counts at once, and nothing that makes no sense does.

use std::collections::BTreeSet;
use std::fs;

use castling_tests::{Proxy, origin, until};

const CONFIG: &str = r#"
    [workers]
    count = 2

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers_file = "app.peers"

    # Their addresses are for the file.
    [upstreams.origins]
    peers = ["{a}", "{b}"]

    [[routes]]
    path = "/origins"
    upstream = "origins"

    [[routes]]
    upstream = "app"
"#;

fn served_by(proxy: &Proxy) -> BTreeSet<String> {
    proxy.tally("/", 12).into_keys().collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|it| (*it).to_owned()).collect()
}

/// Puts another file in its place, as one does.
fn write(proxy: &Proxy, text: &str) {
    let path = proxy.path("app.peers");
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(&new, &path).unwrap();
}

#[test]
fn a_file_says_who_the_peers_are() {
    let (a, b) = (origin::text("a"), origin::text("b"));
    let (at_a, at_b) = (a.address().to_string(), b.address().to_string());
    let mut proxy = Proxy::with_config(CONFIG)
        .file("app.peers", format!("peers = [\"{at_a}\"]"))
        .origin("a", a)
        .origin("b", b)
        .start();
    assert_eq!(served_by(&proxy), names(&["a"]));
    write(
        &proxy,
        &format!("{{ \"peers\": [\"{at_a}\", {{ \"address\": \"{at_b}\", \"weight\": 2 }}] }}"),
    );
    until("both are there", || served_by(&proxy) == names(&["a", "b"]));

    for (bad, said) in [
        (format!("peers = [\"{at_a}\""), "app.peers:1:"),
        ("peers = []".to_owned(), "app.peers:1:9: peers is empty"),
        ("{ \"peers\": 7 }".to_owned(), "app.peers:1:1: "),
    ] {
        write(&proxy, &bad);
        proxy.until_log_has(said);
        assert_eq!(served_by(&proxy), names(&["a", "b"]), "{bad}");
    }
    fs::remove_file(proxy.path("app.peers")).unwrap();
    proxy.until_log_has("No such file");
    proxy.reload().expect_success();
    proxy.upgrade(&[]).expect_success();
    assert_eq!(served_by(&proxy), names(&["a", "b"]));
    write(&proxy, &format!("peers = [\"{at_b}\"]"));
    until("one is left", || served_by(&proxy) == names(&["b"]));
}

#[test]
fn a_start_without_a_good_file_is_refused() {
    let refused = |text: &str, said: &str| {
        let setup = Proxy::with_config(CONFIG)
            .origin("a", origin::text("a"))
            .origin("b", origin::text("b"))
            .file("app.peers", text);
        setup.check().expect_error(said);
    };
    refused(
        "peers = [\"app.test:80\"]",
        "peer app.test:80: expected an address",
    );
    refused("peers = [\"10.0.0.1:80\"]\nbad = 1", "app.peers:2:1: ");
}
