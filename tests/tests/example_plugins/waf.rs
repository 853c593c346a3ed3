//! `waf`.

use castling_tests::{Proxy, body, origin};

const CONFIG: &str = r#"
    [workers]
    count = 1

    [access_log]
    file = "{dir}/access.log"
    format = "$path $status score=$waf_score rules=$waf_rules"
    flush = "0s"

    [plugins.waf]
    wasm = "{plugins}/waf.wasm"

    [plugins.waf.config]
    threshold = 5
    mode = "block"
    body = "64KiB"

    [[plugins.waf.config.rules]]
    name = "union"
    in = ["query", "body"]
    matches = '(?i)\bunion\s+(all\s+)?select\b'
    score = 5

    [[plugins.waf.config.rules]]
    name = "dots"
    in = ["query", "cookies"]
    matches = '\.\./'
    score = 3

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    plugins = ["waf"]
    upstream = "app"

    [[routes]]
    path = "/watched"
    plugins = [{ name = "waf", config = { threshold = 3, mode = "report", rules = [{ name = "dots", in = ["query"], matches = '\.\./', score = 3 }] } }]
    upstream = "app"
"#;

#[test]
fn attacks_are_refused_or_told_as_the_route_says() {
    let proxy = Proxy::with_config(CONFIG)
        .origin("app", origin::echoing())
        .start();
    for (target, status) in [
        ("/a?q=a+union+of+selected", 200),
        ("/b?q=1%2BUNION+ALL%2520select+2", 403),
        ("/c?q=../../etc", 200),
        ("/watched?q=%2e%2e%2f", 200),
        ("/watched?q=union+select", 200),
    ] {
        assert_eq!(proxy.get(target).status, status, "{target}");
    }
    assert_eq!(
        proxy
            .get_with("/d?q=union%0bselect", &[("cookie", "a=../")])
            .status,
        403
    );
    // The rest after the first 64 KiB passes as it came.
    let long = format!("{}union select", " ".repeat(65_536));
    assert_eq!(proxy.post("/e", body::full(long.clone())).text(), long);
    assert_eq!(proxy.post("/f", body::full("q=union%20select")).status, 403);

    let expected = [
        "/a 200 score=- rules=-",
        "/b 403 score=5 rules=union",
        "/c 200 score=3 rules=dots",
        "/watched 200 score=3 rules=dots",
        "/watched 200 score=- rules=-",
        "/d 403 score=8 rules=union,dots",
        "/e 200 score=- rules=-",
        "/f 403 score=5 rules=union",
    ];
    assert_eq!(proxy.until_access_lines(expected.len()), expected);
    let log = proxy.until_log_has("score=8");
    let said =
        r#"looks like an attack plugin="waf" blocked=true client=127.0.0.1 rules=union,dots"#;
    assert!(log.contains(said), "{log}");
    proxy.until_log_has("blocked=false client=127.0.0.1 rules=dots score=3");
}
