//! A gateway among the peers of its own listener.

use castling_tests::{Proxy, origin};

fn config(via: bool) -> String {
    format!(
        r#"
        [workers]
        count = 2
        [access_log]
        file = "{{dir}}/access.log"
        flush = "0s"
        [listeners.web]
        bind = "{{listen}}"
        via = {via}
        [listeners.second]
        bind = "{{listen_second}}"
        via = {via}
        [upstreams.itself]
        peers = ["{{listen}}"]
        [upstreams.second]
        peers = ["{{listen_second}}"]
        [upstreams.app]
        peers = ["{{app}}"]
        [[routes]]
        path = "/loop"
        upstream = "itself"
        [[routes]]
        listeners = ["web"]
        path = "/round"
        upstream = "second"
        [[routes]]
        listeners = ["second"]
        path = "/round"
        upstream = "itself"
        [[routes]]
        listeners = ["web"]
        path = "/"
        upstream = "second"
        [[routes]]
        listeners = ["second"]
        path = "/"
        upstream = "app"
    "#
    )
}

#[test]
fn a_request_that_comes_back_is_508() {
    for via in [true, false] {
        let proxy = Proxy::with_config(&config(via))
            .origin("app", origin::text("ok"))
            .start();
        assert_eq!(proxy.get("/loop").status, 508);
        proxy.until_access_lines(2);
        assert_eq!(proxy.get("/round").status, 508);
        proxy.until_access_lines(5);
        proxy.until_log_has("has come back to the listener");
        // From one listener to the other is no loop.
        assert_eq!(proxy.get("/").text(), "ok");
        let seen = proxy.origin("app").last();
        assert_eq!(seen.header("via").is_some(), via);
    }
}

#[test]
fn a_second_tier_of_gateways_is_no_loop() {
    let behind = Proxy::before(origin::text("ok"));
    let config = r#"
        [listeners.web]
        bind = "{listen}"
        [upstreams.app]
        peers = ["BEHIND"]
        [[routes]]
        upstream = "app"
    "#;
    let config = config.replace("BEHIND", &behind.address().to_string());
    let before = Proxy::with_config(&config).start();
    assert_eq!(before.get("/").text(), "ok");
    let seen = behind.origin("app").last();
    let loops = seen.header("cdn-loop").unwrap().to_owned();
    let ids: Vec<&str> = loops.split(", ").collect();
    assert_eq!(ids.len(), 2, "{loops}");
    assert_ne!(ids[0], ids[1]);
}
