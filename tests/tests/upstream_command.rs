//! `castling upstream`: the operator's orders for peers, at run time.

use std::collections::BTreeSet;

use castling_tests::{Proxy, origin};

const CONFIG: &str = r#"
    [workers]
    count = 2

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{a}", "{b}"]

    [upstreams.other]
    peers = ["{c}"]

    [[routes]]
    hosts = ["other.test"]
    upstream = "other"

    [[routes]]
    upstream = "app"
"#;

fn started() -> Proxy {
    Proxy::with_config(CONFIG)
        .origin("a", origin::text("a"))
        .origin("b", origin::text("b"))
        .origin("c", origin::text("c"))
        .start()
}

/// Address of an origin.
fn at(proxy: &Proxy, name: &str) -> String {
    proxy.origin(name).address().to_string()
}

fn served_by(proxy: &Proxy) -> BTreeSet<String> {
    proxy.tally("/", 16).into_keys().collect()
}

#[track_caller]
fn order(proxy: &Proxy, words: &[&str]) -> String {
    let words: Vec<&str> = ["app"].into_iter().chain(words.iter().copied()).collect();
    proxy.command("upstream", &words).expect_success().stdout
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|it| (*it).to_owned()).collect()
}

#[test]
fn a_peer_that_is_drained_or_down_gets_nothing_until_it_is_up_again() {
    let mut proxy = started();
    assert_eq!(served_by(&proxy), names(&["a", "b"]));
    let (a, b) = (at(&proxy, "a"), at(&proxy, "b"));
    assert!(order(&proxy, &["drain", &a]).contains("draining"));
    assert_eq!(served_by(&proxy), names(&["b"]));
    proxy.reload().expect_success();
    assert_eq!(served_by(&proxy), names(&["b"]), "after a reload");
    proxy.upgrade(&[]).expect_success();
    assert_eq!(served_by(&proxy), names(&["b"]), "after an upgrade");
    let listed = order(&proxy, &["list"]);
    assert!(listed.contains("draining"), "{listed}");

    order(&proxy, &["down", &b]);
    order(&proxy, &["up", &a]);
    assert_eq!(served_by(&proxy), names(&["a"]));
    let shown = order(&proxy, &["up", &b]);
    assert!(!shown.contains("down"), "{shown}");
    assert_eq!(served_by(&proxy), names(&["a", "b"]));
}

#[test]
fn peers_are_added_and_removed_while_it_runs() {
    let mut proxy = started();
    let (a, c) = (at(&proxy, "a"), at(&proxy, "c"));
    order(&proxy, &["add", &c, "--weight", "3"]);
    order(&proxy, &["remove", &a]);
    assert_eq!(served_by(&proxy), names(&["b", "c"]));
    proxy.reload().expect_success();
    proxy.upgrade(&[]).expect_success();
    assert_eq!(served_by(&proxy), names(&["b", "c"]));
    let status = proxy.status();
    let app = &status["upstreams"][0];
    assert_eq!(app["removed"], serde_json::json!([a]));
    assert_eq!(app["peers"][1]["operator"], "added");
    assert_eq!(app["peers"][1]["weight"], 3);

    order(&proxy, &["remove", &c]);
    // The operator's order alone had made it a peer: there is nothing to keep out.
    let removed = proxy.status()["upstreams"][0]["removed"].clone();
    assert_eq!(removed, serde_json::json!([a]));
    order(&proxy, &["add", &a]);
    assert_eq!(served_by(&proxy), names(&["a", "b"]));
    let log = proxy.log();
    let holds = |order: &str| {
        let line = format!("the operator's order holds upstream=\"app\" order={order}");
        assert!(log.contains(&line), "{line} is not in {log}");
    };
    holds(&format!("\"add\" peer={c} weight=\"3\" backup=false"));
    holds(&format!("\"remove\" peer={a}\n"));
}

#[test]
fn a_peer_that_comes_to_others_is_slow_started() {
    let config = CONFIG
        .replace("count = 2", "count = 1")
        .replace("\"{b}\"]", "\"{b}\"]\nslow_start = \"1h\"");
    let mut proxy = Proxy::with_config(&config)
        .origin("a", origin::text("a"))
        .origin("b", origin::text("b"))
        .origin("c", origin::text("c"))
        .origin("d", origin::text("d"))
        .start();
    let shares = |proxy: &Proxy| {
        let tally = proxy.tally("/", 210);
        ["a", "b", "c", "d"].map(|name| tally.get(name).copied().unwrap_or(0))
    };
    assert_eq!(shares(&proxy), [105, 105, 0, 0], "all are new at the start");
    let is_a_tenth = |served: usize| assert!((8..=12).contains(&served), "{served}");
    let (a, c) = (at(&proxy, "a"), at(&proxy, "c"));
    order(&proxy, &["add", &c]);
    is_a_tenth(shares(&proxy)[2]);
    let longer = config.replace("\"{b}\"]\nslow", "\"{b}\", \"{d}\"]\nslow");
    proxy.reload_with(&longer).expect_success();
    let [_, _, by_order, by_reload] = shares(&proxy);
    is_a_tenth(by_order);
    is_a_tenth(by_reload);
    order(&proxy, &["down", &a]);
    order(&proxy, &["up", &a]);
    let [a, b, c, d] = shares(&proxy);
    // Three peers have a tenth of their weight each.
    assert!(a.abs_diff(c) <= 2 && b > 150, "{a}, {b}, {c}, {d}");
}

#[test]
fn a_weight_is_the_operators_until_it_is_given_back() {
    let proxy = started();
    let a = at(&proxy, "a");
    order(&proxy, &["weight", &a, "3"]);
    // Both workers count for themselves; each is near three to one.
    let tally = proxy.tally("/", 40);
    assert!((26..=34).contains(&tally["a"]), "{tally:?}");
    assert!(order(&proxy, &["list"]).contains("weight 3"));
    assert!(!order(&proxy, &["weight", &a, "listed"]).contains("weight 3"));
}

#[test]
fn orders_that_make_no_sense_say_what_is_there() {
    let proxy = started();
    let refused = |words: &[&str]| proxy.command("upstream", words).expect_refusal().stderr;
    let said = refused(&["nosuch", "list"]);
    assert!(
        said.contains("there is no upstream nosuch; expected one of app, other"),
        "{said}"
    );
    let said = refused(&["app", "drain", "10.9.9.9:1"]);
    assert!(
        said.contains("there is no peer 10.9.9.9:1; expected one of 127.0.0.1:"),
        "{said}"
    );
    let a = at(&proxy, "a");
    let said = refused(&["app", "add", &a]);
    assert!(
        said.contains(&format!("there is a peer {a} already")),
        "{said}"
    );
    let line = proxy.until_log_has("an order of the operator's is refused");
    let fields =
        "upstream=\"app\" order=\"drain\" peer=10.9.9.9:1 reason=\"there is no peer 10.9.9.9:1; ";
    assert!(line.contains(fields), "{line}");
    assert!(!proxy.log().contains("the operator's order holds"));
    let bad = proxy.command("upstream", &["app", "add", "0.0.0.0:80"]);
    assert_eq!(bad.code, Some(2));
    let bad = proxy.command("upstream", &["app", "drain", "a.test:80"]);
    assert_eq!(bad.code, Some(2));
    assert!(
        bad.stderr.contains("expected an address such as"),
        "{}",
        bad.stderr
    );
}
