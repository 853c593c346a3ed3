//! Metrics of the gateway and its plugins, and how they are read.

use castling_tests::{Exposition, Proxy, Reply, Setup, origin, until};
use http::{Request, StatusCode};
use rustix::process::Signal;

const CONFIG: &str = r#"
    [workers]
    count = 2

    [plugins.meter]
    wasm = "{guests}/meter.wasm"
    limits = { metric_series = 100 }
    quarantine = { traps = 2, within = "1h", backoff = "1m" }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    name = "metrics"
    path = "/metrics"
    metrics = true

    [[routes]]
    name = "app"
    plugins = ["meter"]
    upstream = "app"
"#;

const COUNTER: &str = "castling_plugin_meter_seen_total";

fn setup(config: &str) -> Setup {
    Proxy::with_config(config).origin("app", origin::text("hello"))
}

fn metered() -> Proxy {
    setup(CONFIG).start()
}

/// Output of `castling metrics`.
#[track_caller]
fn told(proxy: &Proxy) -> Exposition {
    Exposition::parse(&proxy.command("metrics", &[]).expect_success().stdout)
}

/// Waits until it prints this: a request is counted after its response is out.
#[track_caller]
fn until_told(proxy: &Proxy, what: &str, is_so: impl Fn(&Exposition) -> bool) -> Exposition {
    let mut exposition = told(proxy);
    until(what, || {
        exposition = told(proxy);
        is_so(&exposition)
    });
    exposition
}

#[track_caller]
fn passed(reply: &Reply) {
    assert_eq!(reply.status, 200, "{}", reply.text());
}

fn count(proxy: &Proxy, key: &str, n: usize) {
    for _ in 0..n {
        passed(&proxy.get_with("/", &[("x-key", key), ("x-count", "1")]));
    }
}

#[test]
fn workers_are_added_up_and_the_route_and_the_command_agree() {
    let proxy = metered();
    // Each has a connection of its own, so both workers get some.
    count(&proxy, "a", 60);
    assert_eq!(proxy.get("/metrics/x").status, 200);
    let status = proxy.status();
    let workers = status["workers"].as_array().expect("a list");
    assert!(
        workers.iter().all(|w| w["requests"].as_u64() > Some(0)),
        "{status}"
    );
    let route = [("listener", "web"), ("route", "app"), ("code", "2xx")];
    let told = until_told(&proxy, "60 requests", |told| {
        told.get("castling_requests_total", &route) == Some(60.0)
            && told.get("castling_connections_active", &[("listener", "web")]) == Some(0.0)
    });
    assert_eq!(
        told.get(COUNTER, &[("plugin", "meter"), ("key", "a")]),
        Some(60.0)
    );
    assert_eq!(
        told.get("castling_hook_calls_total", &[("plugin", "meter")]),
        Some(60.0)
    );
    let tries = [("upstream", "app"), ("outcome", "responded")];
    assert_eq!(
        told.get("castling_upstream_tries_total", &tries),
        Some(60.0)
    );
    assert_eq!(
        told.get(
            "castling_upstream_response_seconds_count",
            &[("upstream", "app")]
        ),
        Some(60.0)
    );
    assert_eq!(told.get("castling_workers", &[]), Some(2.0));
    assert_eq!(told.get("castling_generation", &[]), Some(1.0));
    assert_eq!(told.get("castling_requests_active", &[]), Some(0.0));
    assert!(told.sum("castling_response_body_bytes_total", &[("listener", "web")]) > 300.0);
    assert_eq!(told.count("castling_build_info", &[]), 1);

    let reply = proxy.get("/metrics");
    assert_eq!(
        reply.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let shown = Exposition::parse(&reply.text());
    // Metrics that reading itself changes.
    let by_reading = |name: &str, labels: &std::collections::BTreeMap<String, String>| {
        name.starts_with("castling_connections")
            || name.ends_with("_bytes_total")
            || name == "castling_requests_active"
            || labels.get("route").is_some_and(|route| route == "metrics")
    };
    assert_eq!(shown.without(by_reading), told.without(by_reading));
}

#[test]
fn counts_survive_a_reload_and_the_death_of_workers_and_gauges_do_not() {
    let mut proxy = metered();
    count(&proxy, "a", 7);
    for _ in 0..20 {
        passed(&proxy.get_with("/", &[("x-hold", "2"), ("x-highest", "5"), ("x-size", "4")]));
    }
    let held = "castling_plugin_meter_held";
    let of_meter = [("plugin", "meter")];
    let before = until_told(&proxy, "all is counted", |told| {
        told.sum("castling_requests_total", &[("route", "app")]) == 27.0
    });
    assert_eq!(before.get(held, &of_meter), Some(40.0));
    assert_eq!(
        before.get("castling_plugin_meter_highest", &of_meter),
        Some(5.0)
    );
    assert_eq!(
        before.sum("castling_plugin_meter_size_bucket", &[("le", "10")]),
        20.0
    );

    proxy
        .reload_with(&CONFIG.replace("[\"{app}\"]", "[\"{app}\"]\ntries = 2"))
        .expect_success();
    proxy.until_workers(2);
    proxy
        .reload_with(&CONFIG.replace("count = 2", "count = 0"))
        .expect_refusal();
    proxy.write_config(CONFIG);
    for worker in proxy.workers() {
        worker.signal(Signal::KILL);
        until("the worker has died", || !worker.is_alive());
    }
    let after = until_told(&proxy, "two workers again", |told| {
        told.get("castling_worker_deaths_total", &[]) == Some(2.0)
            && told.get("castling_workers", &[]) == Some(2.0)
            && told.get(held, &of_meter).is_none()
    });
    assert_eq!(after.get("castling_generation", &[]), Some(2.0));
    assert_eq!(
        after.get("castling_reloads_total", &[("result", "ok")]),
        Some(1.0)
    );
    assert_eq!(
        after.get("castling_reloads_total", &[("result", "refused")]),
        Some(1.0)
    );
    assert_eq!(
        after.sum("castling_requests_total", &[("route", "app")]),
        27.0
    );
    assert_eq!(after.sum("castling_plugin_meter_size_sum", &[]), 80.0);

    proxy.until_workers(2);
    count(&proxy, "a", 3);
    let all = [("plugin", "meter"), ("key", "a")];
    until_told(&proxy, "10 in all", |told| {
        told.get(COUNTER, &all) == Some(10.0)
    });
    assert_eq!(told(&proxy).sum("castling_upstream_tries_total", &[]), 30.0);
}

#[test]
fn a_refused_reload_leaves_what_metrics_show() {
    let meter = "wasm = \"{guests}/meter.wasm\"";
    let config = |settings: &str| CONFIG.replace(meter, &format!("{meter}\nconfig = {settings}"));
    let mut proxy = setup(&config(r#"{ help = "zz running" }"#)).start();
    count(&proxy, "a", 3);
    until_told(&proxy, "3 requests", |told| {
        told.sum("castling_requests_total", &[("route", "app")]) == 3.0
    });
    let helps = |proxy: &Proxy| {
        let text = proxy.command("metrics", &[]).expect_success().stdout;
        let of_plugins = |line: &&str| line.starts_with("# HELP castling_plugin_");
        text.lines()
            .filter(of_plugins)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let before = helps(&proxy);
    // The meter is configured before the one that fails.
    let failing =
        "\n[plugins.zz]\nwasm = \"{guests}/meter.wasm\"\nconfig = { counter = \"a b\" }\n";
    for settings in [r#"{ help = "refused" }"#, r#"{ counter = "never_total" }"#] {
        let refused = format!("{}{failing}", config(settings));
        let told = proxy.reload_with(&refused).expect_refusal().stderr;
        assert!(told.contains("plugin zz"), "{told}");
        assert_eq!(helps(&proxy), before);
    }
    assert_eq!(
        told(&proxy).get(COUNTER, &[("plugin", "meter"), ("key", "a")]),
        Some(3.0)
    );

    let reloaded = config(r#"{ help = "aa serving" }"#);
    proxy.reload_with(&reloaded).expect_success();
    let text = proxy.command("metrics", &[]).expect_success().stdout;
    assert!(
        text.contains(&format!("# HELP {COUNTER} aa serving\n")),
        "{text}"
    );
    assert_eq!(told(&proxy).get("castling_generation", &[]), Some(2.0));
}

#[test]
fn beyond_the_limit_all_is_counted_as_other() {
    let proxy = metered();
    for prefix in ["a", "b", "c", "d"] {
        passed(&proxy.get_with("/", &[("x-key", prefix), ("x-keys", "200")]));
    }
    let told = until_told(&proxy, "4 requests", |told| {
        told.sum("castling_requests_total", &[("route", "app")]) == 4.0
    });
    let of_meter = [("plugin", "meter")];
    assert_eq!(told.sum(COUNTER, &of_meter), 800.0, "nothing is lost");
    let series = told.count(COUNTER, &of_meter);
    assert!((90..=101).contains(&series), "{series}");
    let other = told.get(COUNTER, &[("plugin", "meter"), ("key", "other")]);
    assert_eq!(other, Some(800.0 - (series as f64 - 1.0)));
    let over = told.get("castling_plugin_series_over_limit_total", &of_meter);
    assert_eq!(over, other);
}

#[test]
fn counting_is_a_host_call() {
    let limits = "limits = { metric_series = 100";
    let few = format!("{limits}, host_calls = 1000, cpu = \"5s\"");
    let proxy = setup(&CONFIG.replace(limits, &few)).start();
    // Each key is looked up and counted.
    passed(&proxy.get_with("/", &[("x-keys", "450")]));
    assert_eq!(proxy.get_with("/", &[("x-keys", "700")]).status, 500);
    let told = proxy.until_log_has("limits.host_calls of 1000 reached");
    assert!(told.contains("plugin meter failed in access"), "{told}");
}

#[test]
fn names_that_are_not_valid_are_refused_at_load() {
    for (config, expected) in [
        (
            r#"{ counter = "a b" }"#,
            "metric a string of 3 bytes: expected a name",
        ),
        (r#"{ counter = "x{y=\"1\"} 2\n" }"#, "expected a name"),
        (r#"{ counter = "" }"#, "metric \"\": expected a name"),
        (
            r#"{ label = "plugin" }"#,
            "label a string of 6 bytes is no name, or taken",
        ),
        (r#"{ label = "a\"b" }"#, "is no name, or taken"),
        (
            r#"{ counter = "size_sum" }"#,
            "bad argument: expected names of",
        ),
        (
            r#"{ counter = "held" }"#,
            "metric a string of 4 bytes: bad argument",
        ),
    ] {
        let meter = "wasm = \"{guests}/meter.wasm\"";
        let config = CONFIG.replace(meter, &format!("{meter}\nconfig = {config}"));
        let told = setup(&config).check().outcome.expect_refusal().stderr;
        assert!(
            told.contains("plugin meter") && told.contains(expected),
            "{told}"
        );
    }
}

#[test]
fn a_hook_cannot_define_a_metric() {
    let proxy = metered();
    assert_eq!(proxy.get_with("/", &[("x-do", "define")]).status, 500);
    proxy.until_log_has("metric \"late\": not in this hook");
    assert_eq!(told(&proxy).count("castling_plugin_meter_late", &[]), 0);
}

#[test]
fn help_and_label_values_stay_in_their_place() {
    let meter = "wasm = \"{guests}/meter.wasm\"";
    let help = r#"config = { help = "two\nlines, \\ and \"quotes\"" }"#;
    let proxy = setup(&CONFIG.replace(meter, &format!("{meter}\n{help}"))).start();
    let long = "x".repeat(1000);
    for key in [r#"a"} 1 # \"#, r"\n", "ä€", "{}", &long, ""] {
        count(&proxy, key, 1);
    }
    let told = until_told(&proxy, "6 requests", |told| {
        told.sum(COUNTER, &[("plugin", "meter")]) == 6.0
    });
    for key in [r#"a"} 1 # \"#, r"\n", "ä€", "{}", &long[..128], ""] {
        let count = told.get(COUNTER, &[("plugin", "meter"), ("key", key)]);
        assert_eq!(count, Some(1.0), "{key:?}");
    }
    let text = proxy.command("metrics", &[]).expect_success().stdout;
    let help = format!("# HELP {COUNTER} two\\nlines, \\\\ and \"quotes\"\n");
    assert!(text.contains(&help), "{text}");
}

fn two_clients_panic(proxy: &Proxy) {
    for n in 1..=2 {
        let mut client = proxy.raw_from([127, 0, 0, n].into());
        client.send(format!(
            "GET /{n} HTTP/1.1\r\nHost: a\r\nX-Do: panic\r\n\r\n"
        ));
        assert_eq!(client.read_reply().status, 500);
    }
}

#[test]
fn a_plugin_in_quarantine_is_seen() {
    let proxy = setup(&CONFIG.replace("count = 2", "count = 1")).start();
    let of_meter = [("plugin", "meter")];
    let state = |told: &Exposition| told.get("castling_quarantine_state", &of_meter);
    assert_eq!(state(&told(&proxy)), Some(0.0));
    two_clients_panic(&proxy);
    assert_eq!(proxy.get("/").status, 503);
    let told = until_told(&proxy, "it is out", |told| state(told) == Some(2.0));
    let trapped = [("plugin", "meter"), ("cause", "trap")];
    assert_eq!(
        told.get("castling_hook_failures_total", &trapped),
        Some(2.0)
    );
    assert_eq!(told.get("castling_instances", &of_meter), Some(0.0));
    assert_eq!(proxy.status()["plugins"][0]["state"], "out");
}

#[test]
fn a_plugin_on_trial_that_does_well_is_in_again() {
    let config = CONFIG
        .replace("count = 2", "count = 1")
        .replace("backoff = \"1m\"", "backoff = \"10ms\"");
    let proxy = setup(&config).start();
    two_clients_panic(&proxy);
    until("it is let in again", || proxy.get("/").status == 200);
    let state = |told: &Exposition| told.get("castling_quarantine_state", &[("plugin", "meter")]);
    until_told(&proxy, "it is in", |told| state(told) == Some(0.0));
}

#[test]
fn tries_are_counted_by_their_outcome() {
    let config = CONFIG.replace("[\"{app}\"]", "[\"{refusing}\"]");
    let proxy = setup(&config).start();
    assert_eq!(proxy.get("/").status, StatusCode::BAD_GATEWAY);
    let failed = [("upstream", "app"), ("outcome", "connect_failed")];
    let told = until_told(&proxy, "a failure", |told| {
        told.sum(
            "castling_requests_total",
            &[("route", "app"), ("code", "5xx")],
        ) == 1.0
    });
    assert_eq!(
        told.get("castling_upstream_tries_total", &failed),
        Some(1.0)
    );
    assert_eq!(
        told.get(
            "castling_upstream_response_seconds_count",
            &[("upstream", "app")]
        ),
        Some(0.0)
    );
}

#[test]
fn what_has_no_route_is_counted_at_its_listener() {
    let proxy = setup(&CONFIG.replace("name = \"app\"", "path = \"/app\"")).start();
    assert_eq!(proxy.get("/elsewhere").status, StatusCode::NOT_FOUND);
    let mut raw = proxy.raw();
    assert_eq!(raw.send("nonsense\r\n\r\n").read_reply().status, 400);
    let unrouted = [("listener", "web"), ("route", ""), ("code", "4xx")];
    until_told(&proxy, "both", |told| {
        told.get("castling_requests_total", &unrouted) == Some(2.0)
    });
}

#[test]
fn the_route_takes_get_and_head_and_plugins_may_guard_it() {
    let auth = r#"
        [plugins.auth]
        wasm = "{plugins}/token_auth.wasm"
        config = { header = "x-token", tokens = ["s3cret"] }
    "#;
    let guarded = CONFIG.replace("metrics = true", "metrics = true\nplugins = [\"auth\"]");
    let proxy = setup(&format!("{guarded}{auth}")).start();
    assert_eq!(proxy.get("/metrics").status, 401);
    let send = |method: &str| {
        let request = Request::builder().method(method).uri("/metrics");
        let request = request.header("x-token", "s3cret");
        proxy.send(request.body(castling_tests::body::empty()).expect("valid"))
    };
    passed(&send("GET"));
    let head = send("HEAD");
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    let post = send("POST");
    assert_eq!(
        (post.status.as_u16(), post.header("allow")),
        (405, Some("GET, HEAD"))
    );
    assert!(
        proxy
            .check()
            .expect_success()
            .stdout
            .contains("route metrics -> metrics")
    );
}

#[test]
fn a_table_that_was_too_small_or_is_to_be_larger_begins_anew() {
    let small = |max: u32| {
        CONFIG
            .replace(
                "metric_series = 100",
                "metric_series = 100000, cpu = \"5s\"",
            )
            .replace(
                "[workers]",
                &format!("[metrics]\nmax_series = {max}\n\n[workers]"),
            )
    };
    let mut proxy = setup(&small(256)).start();
    for _ in 0..2 {
        passed(&proxy.get_with("/", &[("x-key", "k"), ("x-keys", "2000")]));
    }
    let full = until_told(&proxy, "2 requests", |told| {
        told.sum("castling_requests_total", &[("route", "app")]) == 2.0
    });
    assert!(full.get("castling_metrics_refused_total", &[]) > Some(0.0));
    assert_eq!(
        full.get("castling_metrics_series", &[]),
        full.get("castling_metrics_series_max", &[])
    );

    proxy.reload().expect_success();
    proxy.until_log_has("metrics.max_series is too small");
    let anew = told(&proxy);
    assert_eq!(anew.sum("castling_requests_total", &[]), 0.0);
    let start = "castling_start_time_seconds";
    assert_eq!(anew.get(start, &[]), full.get(start, &[]));
    assert_eq!(anew.get("castling_metrics_refused_total", &[]), Some(0.0));

    count(&proxy, "a", 1);
    proxy.reload_with(&small(1024)).expect_success();
    let larger = told(&proxy);
    assert_eq!(larger.sum("castling_requests_total", &[]), 0.0);
    assert_eq!(larger.get("castling_metrics_series_max", &[]), Some(1024.0));
    assert_eq!(larger.get("castling_generation", &[]), Some(3.0));
}

#[test]
fn rate_limit_counts_its_verdicts() {
    let proxy = setup(
        r#"
        [zones.limits]
        kind = "counter"
        size = "1MiB"

        [plugins.limit]
        wasm = "{plugins}/rate_limit.wasm"
        config = { zone = "limits", rate = "1/h", burst = 2 }
        grants = { zones = ["limits"] }

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        plugins = ["limit"]
        upstream = "app"
        "#,
    )
    .start();
    let statuses: Vec<u16> = (0..5).map(|_| proxy.get("/").status.as_u16()).collect();
    assert_eq!(statuses, [200, 200, 429, 429, 429]);
    let told = told(&proxy);
    for (verdict, expected) in [("passed", 2.0), ("limited", 3.0)] {
        let labels = [("plugin", "limit"), ("verdict", verdict)];
        let counted = told.get("castling_plugin_rate_limit_requests_total", &labels);
        assert_eq!(counted, Some(expected), "{verdict}");
    }
}
