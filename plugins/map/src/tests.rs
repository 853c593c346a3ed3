use castling_sdk::testing::{self, Exchange};

use super::*;

fn plugin(config: &str) -> Map {
    Map::configure(testing::config(config).unwrap()).unwrap()
}

/// Value of the variable in this exchange.
fn value(plugin: &Map, name: &str, exchange: Exchange) -> Option<String> {
    let mut exchange = exchange;
    let value = plugin.variable(exchange.request(), name)?;
    Some(String::from_utf8(value).unwrap())
}

/// Checks `$it` of the map for each host.
#[track_caller]
fn check(map: &str, cases: &[(&str, Option<&str>)]) {
    let plugin = plugin(&format!(r#"{{"maps": [{{"variable": "it", {map}}}]}}"#));
    for (host, expected) in cases {
        let found = value(&plugin, "it", Exchange::get("/").host(host));
        assert_eq!(found.as_deref(), *expected, "{host}");
    }
}

#[test]
fn texts_are_looked_up_with_their_case_or_without() {
    let values = r#""source": "$host", "values": {"A": "one", "b": "$method $$1"}"#;
    check(
        values,
        &[("a", Some("one")), ("B", Some("GET $1")), ("c", None)],
    );
    let sensitive = format!(r#"{values}, "case": "sensitive", "default": "none of $host""#);
    check(&sensitive, &[("A", Some("one")), ("a", Some("none of a"))]);
}

#[test]
fn hosts_have_the_longest_of_what_is_written_for_them() {
    check(
        r#""keys": "hosts", "values": {
            "example.com": "itself", "*.example.com": "below", ".example.org": "both",
            "www.example.*": "www", "*.b.example.com": "below b"
        }, "regexes": [{"regex": "^(?<label>[a-z]+)\\.test", "value": "$label"}]"#,
        &[
            ("example.com", Some("itself")),
            ("EXAMPLE.com:8080", Some("itself")),
            ("example.com.", Some("itself")),
            ("a.example.com", Some("below")),
            ("a.b.example.com", Some("below b")),
            ("b.example.com", Some("below")),
            ("example.org", Some("both")),
            ("a.b.example.org", Some("both")),
            ("www.example.net", Some("www")),
            ("www.example.co.uk", Some("www")),
            ("shop.test", Some("shop")),
            ("badexample.com", None),
            ("", None),
        ],
    );
}

/// Keys do, too: otherwise a client would pass by an expression with a port, a dot or capitals.
#[test]
fn expressions_see_a_host_without_port_dot_and_case() {
    let map =
        r#""keys": "hosts", "regexes": [{"regex": "^(?<name>[a-z]+)\\.test$", "value": "$name"}]"#;
    let cases = [
        "shop.test",
        "SHOP.Test",
        "shop.test.",
        "Shop.test:8080",
        "shop.test.:80",
    ];
    check(map, &cases.map(|host| (host, Some("shop"))));
}

#[test]
fn a_host_of_dots_alone_is_no_work() {
    let plugin = plugin(
        r#"{"maps": [{"variable": "it", "keys": "hosts", "source": "$http_x", "values": {"*.a": "b"}}]}"#,
    );
    let dots = ".".repeat(60_000);
    assert_eq!(
        value(&plugin, "it", Exchange::get("/").header("x", &dots)),
        None
    );
}

#[test]
fn networks_numbers_and_shares_have_values() {
    let plugin = plugin(
        r#"{"maps": [
            {"variable": "net", "keys": "networks", "values": {"10.0.0.0/8": "lan", "10.1.0.0/16": "lab", "10.2.0.1-10.2.0.3": "few"}, "default": "out"},
            {"variable": "class", "keys": "numbers", "source": "$status", "values": {"..399": "fine", "400..499": "theirs", "500..": "ours"}},
            {"variable": "share", "source": "$client_address", "split": [{"percent": 50, "value": "a"}, {"value": "b"}]}
        ]}"#,
    );
    let from = |address: &str| Exchange::get("/").client_address(address);
    for (address, expected) in [
        ("10.9.9.9", "lan"),
        ("10.1.0.1", "lab"),
        ("10.2.0.2", "few"),
        ("192.0.2.1", "out"),
    ] {
        assert_eq!(
            value(&plugin, "net", from(address)).unwrap(),
            expected,
            "{address}"
        );
    }
    let answered = |status| Exchange::get("/").response(status);
    assert_eq!(value(&plugin, "class", answered(200)).unwrap(), "fine");
    assert_eq!(value(&plugin, "class", answered(404)).unwrap(), "theirs");
    assert_eq!(value(&plugin, "class", answered(503)).unwrap(), "ours");
    assert_eq!(
        value(&plugin, "class", Exchange::get("/")),
        None,
        "there is no response"
    );
    let of = |idx| value(&plugin, "share", from(&format!("192.0.2.{idx}"))).unwrap();
    let a = (0..=255).filter(|idx| of(*idx) == "a").count();
    assert!((90..166).contains(&a), "{a}");
}

#[test]
fn ranges_that_overlap_in_part_are_refused_with_both_names() {
    let refused = |map: &str| {
        let config = format!(r#"{{"maps": [{{"variable": "it", "keys": "networks", {map}}}]}}"#);
        let refused = testing::config(&config).and_then(Map::configure).err();
        refused.unwrap().to_string()
    };
    let rule = "have some addresses in common: expected one to lie in the other, or none in common";
    assert_eq!(
        refused(r#""values": {"10.0.0.0/29": "a", "10.0.0.4-10.0.0.9": "b"}"#),
        format!(
            "config.maps[0]: values: `10.0.0.4-10.0.0.9`: `10.0.0.4-10.0.0.9` and `10.0.0.0/29` {rule}"
        )
    );
    testing::set_file("ranges.map", "10.0.0.4-10.0.0.9 b\n\n10.0.0.0/29 a\n");
    assert_eq!(
        refused(r#""file": "ranges.map""#),
        format!(
            "config.maps[0]: file: ranges.map: line 1: `10.0.0.4-10.0.0.9` and `10.0.0.0/29` {rule}"
        )
    );
}

#[test]
fn a_line_of_two_entries_is_refused_with_its_number() {
    testing::set_file("two.map", "/a one;   # comment\n/b two; /c three;\n");
    let config = r#"{"maps": [{"variable": "it", "source": "$path", "file": "two.map"}]}"#;
    let refused = testing::config(config).and_then(Map::configure).err();
    let refused = refused.unwrap().to_string();
    let expected = "config.maps[0]: file: two.map: line 2: `/c three;` behind the `;`";
    assert!(refused.starts_with(expected), "{refused}");
    testing::set_file("two.map", "/a one;   # comment\n/b two;\n");
    let plugin = plugin(config);
    assert_eq!(value(&plugin, "it", Exchange::get("/a")).unwrap(), "one");
}

#[test]
fn an_expression_comes_after_keys_and_gives_its_groups() {
    check(
        r#""source": "$host", "values": {"shop.example": "known"}, "regexes": [
            {"regex": "^(?<name>[a-z]+)\\.(example|test)$", "value": "$name at $2"},
            {"regex": "(?i)^never", "value": "never"},
            {"regex": "^(a)?(?<b>B)?$", "value": "<$1$b>"}
        ]"#,
        &[
            ("shop.example", Some("known")),
            ("other.test", Some("other at test")),
            ("NEVER", Some("never")),
            ("a", Some("<a>")),
            ("B", Some("<B>")),
            ("c", None),
        ],
    );
}

#[test]
fn maps_may_name_one_another_but_not_themselves() {
    let chained = plugin(
        r#"{"maps": [
            {"variable": "a", "source": "$b-$b", "values": {"2-2": "$c"}},
            {"variable": "b", "source": "$host", "values": {"h": "2"}},
            {"variable": "c", "source": "$b", "values": {"2": "found"}}
        ]}"#,
    );
    let of = |host| value(&chained, "a", Exchange::get("/").host(host));
    assert_eq!(of("h").as_deref(), Some("found"));
    assert_eq!(of("other"), None);
    // Doublings of doublings take no longer than there are maps.
    let doubled = (0..60).map(|idx| {
        let next = idx + 1;
        format!(r#"{{"variable": "v{idx}", "source": "x", "default": "$v{next}$v{next}"}}"#)
            .replace("\"default\"", "\"values\": {\"y\": \"\"}, \"default\"")
    });
    let maps: Vec<String> = doubled.collect();
    let doubled = plugin(&format!(
        r#"{{"maps": [{}, {{"variable": "v60", "source": "$nothing", "values": {{"": ""}}}}]}}"#,
        maps.join(",")
    ));
    assert_eq!(
        value(&doubled, "v0", Exchange::get("/")).as_deref(),
        Some("")
    );
}

#[test]
fn a_file_is_followed_and_may_be_one_of_nginx() {
    testing::set_file(
        "hosts.map",
        "# comment\ndefault none;\n/a one;\n\"/b c\" 'two three';\n~^/item/([0-9]+)$ item-$1;\n~*^/CASE case;\n\\default itself;\n/empty \"\";\n",
    );
    let plugin = plugin(
        r#"{"maps": [{"variable": "it", "source": "$http_x", "file": "hosts.map", "values": {"/mine": "first"}, "default": "last"}]}"#,
    );
    let of = |text: &str| value(&plugin, "it", Exchange::get("/").header("x", text)).unwrap();
    for (source, expected) in [
        ("/a", "one"),
        ("/b c", "two three"),
        ("/item/42", "item-42"),
        ("/case", "case"),
        ("default", "itself"),
        ("/empty", ""),
        ("/mine", "first"),
        ("/other", "none"),
    ] {
        assert_eq!(of(source), expected, "{source}");
    }
    assert_eq!(testing::metric("entries", ["it"]), Some(4.0));
    testing::set_file("hosts.map", "/a other\n");
    assert_eq!((of("/a"), of("/other")), ("other".into(), "last".into()));
    assert_eq!(testing::metric("entries", ["it"]), Some(1.0));
    testing::set_file("hosts.map", "/a\n");
    assert_eq!(of("/a"), "other");
    let said = testing::take_log().pop().unwrap().1;
    assert_eq!(
        said,
        "file hosts.map is not used as it is now: line 1: expected a key and a value"
    );
}

#[test]
fn a_file_that_comes_to_name_the_map_itself_is_no_end_of_work() {
    testing::set_file("later.map", "a b\n");
    let plugin =
        plugin(r#"{"maps": [{"variable": "it", "source": "$host", "file": "later.map"}]}"#);
    testing::set_file("later.map", "a <$it>\n");
    assert_eq!(
        value(&plugin, "it", Exchange::get("/").host("a")).as_deref(),
        Some("<>")
    );
}

#[test]
fn a_hundred_thousand_entries_are_found() {
    let lines = |value: &str| -> String {
        (0..100_000)
            .map(|idx| format!("/old/path/{idx} {value}{idx}\n"))
            .collect()
    };
    testing::set_file("large.map", lines("/new/"));
    let plugin =
        plugin(r#"{"maps": [{"variable": "it", "source": "$path", "file": "large.map"}]}"#);
    for idx in [0, 1, 50_000, 99_999] {
        let exchange = Exchange::get(&format!("/old/path/{idx}"));
        assert_eq!(
            value(&plugin, "it", exchange).unwrap(),
            format!("/new/{idx}")
        );
    }
    assert_eq!(
        value(&plugin, "it", Exchange::get("/old/path/100000")),
        None
    );
}

#[test]
fn a_config_without_sense_is_refused() {
    testing::set_file("bad.map", "a b\nA c\n");
    let map = |more: &str| format!(r#"{{"maps": [{{"variable": "it", {more}}}]}}"#);
    let hosts = |key: &str| map(&format!(r#""keys": "hosts", "values": {{"{key}": "b"}}"#));
    for (config, error) in [
        (
            r#"{"maps": []}"#.to_owned(),
            "config.maps: expected at least one",
        ),
        (
            map(r#""values": {"a": "b"}"#),
            "config.maps[0]: source: expected what is looked up",
        ),
        (
            map(r#""source": "$host""#),
            "config.maps[0]: expected either `values`, `file` and `regexes`, or `split`",
        ),
        (
            map(r#""source": "$host", "values": {"a": "$"}"#),
            "config.maps[0]: values: `a`: ",
        ),
        (
            map(r#""source": "$host", "values": {"a": "b", "A": "c"}"#),
            "config.maps[0]: values: `a`: it is there already",
        ),
        (
            map(r#""source": "$host", "values": {"a": "c\td\u0001"}"#),
            "config.maps[0]: values: `a`: a control character",
        ),
        (
            map(r#""source": "$host", "file": "bad.map""#),
            "config.maps[0]: file: bad.map: line 2: it is there already",
        ),
        (
            map(r#""source": "$host", "file": "none.map""#),
            "config.maps[0]: file: ",
        ),
        (
            map(r#""keys": "networks", "values": {"10.0.0.0/33": "b"}"#),
            "config.maps[0]: values: `10.0.0.0/33`: expected an address",
        ),
        (
            map(r#""keys": "numbers", "source": "$status", "values": {"1..5": "a", "5..6": "b"}"#),
            "config.maps[0]: values: `5..6`: another range has numbers of this one",
        ),
        (
            map(r#""source": "$it", "values": {"a": "b"}"#),
            "config.maps[0]: it needs its own value, `$it`",
        ),
        (
            map(r#""source": "$host", "regexes": [{"regex": "(", "value": "b"}]"#),
            "config.maps[0].regexes[0].regex: ",
        ),
        (
            map(r#""source": "$host", "split": [{"percent": 101, "value": "b"}]"#),
            "config.maps[0]: split[0].percent: 101: expected 0.01 to 100",
        ),
        (
            hosts("a b"),
            "config.maps[0]: values: `a b`: expected a host",
        ),
        (
            hosts("*.*"),
            "config.maps[0]: values: `*.*`: expected a host",
        ),
        (
            r#"{"maps": [{"variable": "host", "source": "$path", "values": {"a": "b"}}]}"#
                .to_owned(),
            "config.maps[0]: variable `host`: it is one of the gateway's own",
        ),
    ] {
        let refused = testing::config(&config).and_then(Map::configure).err();
        let refused = refused.map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.starts_with(error), "{config}: {refused}");
    }
}
