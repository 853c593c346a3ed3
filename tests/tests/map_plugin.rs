//! The plugin map over real sockets, as its README says.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};

use castling_tests::{Proxy, origin, until, workspace_root};

/// The README's example, which stands between its first pair of fences.
fn example() -> String {
    let readme = fs::read_to_string(workspace_root().join("plugins/map/README.md")).unwrap();
    let (_, rest) = readme.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    example.replace("plugins/map.wasm", "{plugins}/map.wasm")
}

fn start(plugins: &str) -> Proxy {
    let config = r#"
        [workers]
        count = 1

        [listeners.web]
        bind = "{listen}"

        [access_log]
        file = "{dir}/access.log"
        format = "$path loggable=$loggable"
        flush = "0s"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        upstream = "app"
        plugins = ["map", "headers"]

        [plugins.headers]
        wasm = "{plugins}/headers.wasm"

        [plugins.headers.config.request]
        set = { x-tenant = "$tenant", x-network = "$network", x-moved = "$moved", x-variant = "$variant" }
    "#;
    Proxy::with_config(&format!("{config}\n{plugins}"))
        .file(
            "moved.map",
            "/old \"/new of $host\";\n~^/item/([0-9]+)$ /items?id=$1;\n",
        )
        .origin("app", origin::text("hello"))
        .start()
}

#[test]
fn variables_are_looked_up_for_other_plugins_and_the_log() {
    let proxy = start(&example());
    let seen = |host: &str, target: &str, header: &str| {
        proxy.get_from(host, target);
        let seen = proxy.origin("app").last();
        seen.header(header).unwrap_or_default().to_owned()
    };
    for (host, tenant) in [
        ("example.com", "main"),
        ("a.b.EXAMPLE.com:8080", "sub"),
        ("example.org", "org"),
        ("www.example.net", "www"),
        ("shop.test", "test-shop"),
        ("else.where", "other"),
    ] {
        assert_eq!(seen(host, "/", "x-tenant"), tenant, "{host}");
    }
    assert_eq!(seen("a", "/", "x-network"), "here");
    assert_eq!(seen("h.example", "/old", "x-moved"), "/new of h.example");
    assert_eq!(seen("a", "/item/42", "x-moved"), "/items?id=42");
    assert_eq!(seen("a", "/none", "x-moved"), "");
    assert!(["new", "old"].contains(&&*seen("a", "/", "x-variant")));
    let lines = proxy.until_access_lines(11);
    assert!(
        lines.contains(&"/item/42 loggable=0".to_owned()),
        "{lines:?}"
    );
}

/// A peer is chosen by a variable that nothing else has asked for: each client's network has one of the two.
#[test]
fn an_upstreams_key_has_it_computed() {
    let config = r#"
        [workers]
        count = 1

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{a}", "{b}"]
        balance = { hash = "$shard" }

        [[routes]]
        upstream = "app"
        plugins = ["map"]

        [plugins.map]
        wasm = "{plugins}/map.wasm"
        grants = { files = [] }
        config = { maps = [{ variable = "shard", source = "$http_x_user", regexes = [{ regex = "^(.)", value = "$1" }] }] }
    "#;
    let proxy = Proxy::with_config(config)
        .origin("a", origin::text("a"))
        .origin("b", origin::text("b"))
        .start();
    let peer = |user: &str| proxy.get_with("/", &[("x-user", user)]).text();
    for letter in 'a'..='m' {
        let first = peer(&format!("{letter}da"));
        for rest in ["", "b", "cc", "ddd"] {
            assert_eq!(peer(&format!("{letter}{rest}")), first, "{letter}{rest}");
        }
    }
    let peers: Vec<String> = ('a'..='m')
        .map(|letter| peer(&letter.to_string()))
        .collect();
    assert!(peers.contains(&"a".to_owned()) && peers.contains(&"b".to_owned()));
}

#[test]
fn a_table_of_a_hundred_thousand_is_followed() {
    let lines = |to: &str| -> String {
        let line = |idx| format!("/old/path/of/item/{idx} /{to}/path/{idx};\n");
        (0..100_000).map(line).collect()
    };
    let config = r#"
        [workers]
        count = 1

        [listeners.web]
        bind = "{listen}"

        [[routes]]
        plugins = ["map", "respond"]

        [plugins.map]
        wasm = "{plugins}/map.wasm"
        grants = { files = ["large.map"] }
        limits = { memory = "32MiB", cpu = "1s" }
        config = { maps = [{ variable = "new", source = "$path", file = "large.map", default = "none" }] }

        [plugins.respond]
        wasm = "{plugins}/respond.wasm"
        config = { body = "$new" }
    "#;
    let proxy = Proxy::with_config(config)
        .file("large.map", lines("new"))
        .start();
    let new = |idx: u32| proxy.get(&format!("/old/path/of/item/{idx}")).text();
    assert_eq!([new(0), new(99_999)], ["/new/path/0", "/new/path/99999"]);
    assert_eq!(new(100_000), "none");
    fs::write(proxy.path("next.map"), lines("newer")).unwrap();
    fs::rename(proxy.path("next.map"), proxy.path("large.map")).unwrap();
    until("the table is another", || new(7) == "/newer/path/7");
    assert_eq!(new(99_999), "/newer/path/99999");
    // Calls by one instance, which has not outgrown its memory.
    let status = proxy.status().to_string();
    assert!(status.contains("\"instances\":1,"), "{status}");
    assert_eq!(proxy.error_lines(), [""; 0]);
}

/// Ranges that begin and end anywhere take an entry each, as networks do.
#[test]
fn a_hundred_thousand_ranges_are_followed() {
    let v4 = |number: u32| Ipv4Addr::from_bits(number + 0x0a00_0000).to_string();
    let v6 = |number: u32| Ipv6Addr::from_bits(u128::from(number) | 0x2001_0db8 << 96).to_string();
    ranges_are_followed("32MiB", v4);
    ranges_are_followed("64MiB", v6);
}

fn ranges_are_followed(memory: &str, address: fn(u32) -> String) {
    let lines = |value: &str| -> String {
        let line = |idx: u32| {
            let first = idx * 10_007;
            let last = first + 1 + idx * 7_919 % 10_000;
            format!("{}-{} {value}{idx};\n", address(first), address(last))
        };
        (0..100_000).map(line).collect()
    };
    let config = r#"
        [workers]
        count = 1

        [listeners.web]
        bind = "{listen}"

        [[routes]]
        plugins = ["map", "respond"]

        [plugins.map]
        wasm = "{plugins}/map.wasm"
        grants = { files = ["ranges.map"] }
        limits = { memory = "MEMORY", cpu = "1s" }
        config = { maps = [{ variable = "it", keys = "networks", source = "$http_x", file = "ranges.map", default = "none" }] }

        [plugins.respond]
        wasm = "{plugins}/respond.wasm"
        config = { body = "$it" }
    "#;
    let proxy = Proxy::with_config(&config.replace("MEMORY", memory))
        .file("ranges.map", lines("a"))
        .start();
    let of = |number: u32| proxy.get_with("/", &[("x", &address(number))]).text();
    assert_eq!([of(1), of(2), of(10_009)], ["a0", "none", "a1"]);
    fs::write(proxy.path("next.map"), lines("b")).unwrap();
    fs::rename(proxy.path("next.map"), proxy.path("ranges.map")).unwrap();
    until("the table is another", || of(1) == "b0");
    assert_eq!(of(99_999 * 10_007), "b99999");
    let status = proxy.status().to_string();
    assert!(status.contains("\"instances\":1,"), "{status}");
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn a_plugin_makes_so_many_variables_and_no_more() {
    let check = |count: usize| {
        let map = |idx| {
            format!("{{ variable = \"v{idx}\", source = \"$path\", values = {{ a = \"b\" }} }}")
        };
        let maps: Vec<String> = (0..count).map(map).collect();
        let config = r#"
            [listeners.web]
            bind = "{listen}"

            [[routes]]
            plugins = ["map", "respond"]

            [plugins.respond]
            wasm = "{plugins}/respond.wasm"

            [plugins.map]
            wasm = "{plugins}/map.wasm"
            grants = { files = [] }
            config = { maps = [MAPS] }
        "#;
        let checked = Proxy::with_config(&config.replace("MAPS", &maps.join(", "))).check();
        checked
            .outcome
            .code
            .map(|code| (code, checked.outcome.stderr.clone()))
    };
    assert_eq!(check(64).unwrap().0, 0);
    let (_, refused) = check(65).unwrap();
    assert!(refused.contains("config.maps[64]: "), "{refused}");
    assert!(refused.contains("limit reached"), "{refused}");
}

#[test]
fn two_plugins_that_make_one_variable_are_refused() {
    let config = r#"
        [listeners.web]
        bind = "{listen}"

        [[routes]]
        plugins = ["one", "other", "respond"]

        [plugins.respond]
        wasm = "{plugins}/respond.wasm"

        [plugins.one]
        wasm = "{plugins}/map.wasm"
        grants = { files = [] }
        config = { maps = [{ variable = "a", source = "$path", values = { a = "b" } }] }

        [plugins.other]
        wasm = "{plugins}/map.wasm"
        grants = { files = [] }
        config = { maps = [{ variable = "a", source = "$path", values = { a = "b" } }] }
    "#;
    let refused = Proxy::with_config(config).check();
    let expected = "plugins one and other both compute $a; expected one that does";
    assert!(
        refused.outcome.stderr.contains(expected),
        "{}",
        refused.outcome.stderr
    );
}
