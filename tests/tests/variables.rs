//! Variables that plugins compute when something asks for them.

use castling_tests::{Proxy, Reply, origin};
use http::{HeaderValue, Response, StatusCode};

const CONFIG: &str = r#"
    [workers]
    count = 1

    [access_log]
    file = "{dir}/access.log"
    format = "LOGGED"
    flush = "0s"

    [plugins.computer]
    wasm = "{guests}/computer.wasm"
    grants = { upstreams = ["helper"] }

    [plugins.ask]
    wasm = "{plugins}/headers.wasm"
    config = { request = { set = { x-value = "ASKED" } } }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [upstreams.helper]
    peers = ["{helper}"]

    [[routes]]
    plugins = ["ask", "computer"]
    upstream = "app"
"#;

fn asking(asked: &str, logged: &str) -> Proxy {
    let helper = origin::answering(|seen| {
        Response::new(castling_tests::body::full(format!(
            "you asked {}",
            seen.target
        )))
    });
    Proxy::with_config(&CONFIG.replace("ASKED", asked).replace("LOGGED", logged))
        .origin("app", origin::text("hello"))
        .origin("helper", helper)
        .start()
}

#[track_caller]
fn value(proxy: &Proxy) -> String {
    let reply: Reply = proxy.get("/path");
    assert_eq!(reply.status, StatusCode::OK);
    proxy
        .origin("app")
        .last()
        .header("x-value")
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn a_variable_is_computed_once_a_request_when_it_is_asked_for() {
    let proxy = asking("$id $id", "$id");
    let mut seen = Vec::new();
    for n in 1..=2 {
        let told = value(&proxy);
        let (first, second) = told.split_once(' ').expect("two ids");
        assert_eq!(first, second);
        assert_eq!(first.len(), 16, "{told}");
        assert_eq!(proxy.until_access_lines(n)[n - 1], first);
        seen.push(first.to_owned());
    }
    assert_ne!(seen[0], seen[1]);
}

#[test]
fn the_access_log_alone_may_ask() {
    let proxy = asking("-", "$id $pair $nothing");
    value(&proxy);
    let [line] = proxy.until_access_lines(1).try_into().expect("one line");
    let parts: Vec<&str> = line.split(' ').collect();
    assert_eq!(parts[0].len(), 16, "{line}");
    assert_eq!(parts[1..], [&*format!("({id},{id})", id = parts[0]), "-"]);
}

#[test]
fn what_nothing_asks_for_is_not_computed() {
    let proxy = asking("-", "$status");
    value(&proxy);
    let status = proxy.status();
    let plugins = status["plugins"].as_array().expect("a list of plugins");
    let computer = plugins
        .iter()
        .find(|plugin| plugin["name"] == "computer")
        .expect("it is there");
    assert_eq!(computer["calls"], 0, "{status}");
}

#[test]
fn computing_may_wait_for_a_call_out() {
    let proxy = asking("$who", "$status");
    assert_eq!(value(&proxy), "you asked /path");
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn a_variable_may_ask_for_another_but_not_for_itself() {
    let proxy = asking("$pair|$circle", "$status");
    let told = value(&proxy);
    assert!(told.starts_with('(') && told.ends_with("|false"), "{told}");
}

#[test]
fn one_that_fails_has_no_value_and_is_told_once() {
    let proxy = asking("$broken-$nothing-$broken-$method", "$broken");
    assert_eq!(value(&proxy), "---GET");
    assert_eq!(proxy.until_access_lines(1), ["-"]);
    let told: Vec<String> = proxy.error_lines();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("plugin computer failed in variable: it cannot be known"),
        "{told:?}"
    );
}

#[test]
fn a_variable_that_configure_names_is_computed_and_none_is_named_later() {
    let proxy = asking("$late/$later", "$late");
    let told = value(&proxy);
    assert!(told.starts_with("variables::declare("), "{told}");
    assert!(told.contains("not in this hook"), "{told}");
    assert!(told.ends_with('/'), "{told}");
    let line = &proxy.until_access_lines(1)[0];
    assert!(line.ends_with(": not in this hook"), "{line}");
}

#[test]
fn two_plugins_of_a_route_that_compute_one_variable_are_refused() {
    let config = r#"
        [plugins.one]
        wasm = "{guests}/computer.wasm"
        grants = { upstreams = ["app"] }

        [plugins.two]
        wasm = "{guests}/computer.wasm"
        grants = { upstreams = ["app"] }

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        name = "home"
        plugins = ["one", "two"]
        upstream = "app"
    "#;
    let checked = Proxy::with_config(config)
        .origin("app", origin::text("hello"))
        .check();
    let said = checked.outcome.expect_refusal().stderr;
    assert!(
        said.contains("route home: plugins one and two both compute $id; expected one that does"),
        "{said}"
    );
}

#[test]
fn what_a_route_captures_no_plugin_computes() {
    let config = CONFIG
        .replace("ASKED", "$id")
        .replace("LOGGED", "$id")
        .replace(
            "[[routes]]\n",
            "[[routes]]\n    name = \"home\"\n    path = { regex = \"^/(?<id>.)\" }\n",
        );
    let checked = Proxy::with_config(&config)
        .origin("app", origin::text("hello"))
        .origin("helper", origin::text("hello"))
        .check();
    checked.expect_error(
        "route home: group id of a regular expression: a plugin computes $id; expected another name",
    );
}

/// The same names in a template of a plugin and in the access log.
#[test]
fn templates_and_the_log_have_the_same_variables() {
    let same = "[$request_id] $request $arg_PAGE $cookie_session $sent_http_x_origin $status $tries $peer $server_port $routed_path $tls_version $route";
    let config = r#"
        [workers]
        count = 1

        [access_log]
        file = "{dir}/access.log"
        format = "SAME"

        [plugins.headers]
        wasm = "{plugins}/headers.wasm"
        config = { response = { set = { x-same = "SAME" } } }

        [upstreams.app]
        peers = ["{app}"]

        [listeners.web]
        bind = "{listen}"

        [[routes]]
        name = "main"
        upstream = "app"
        plugins = ["headers"]
    "#;
    let app = origin::answering(|_| {
        let mut response = Response::new(castling_tests::body::full("hello".to_owned()));
        let here = HeaderValue::from_static("here");
        response.headers_mut().insert("x-origin", here);
        response
    });
    let proxy = Proxy::with_config(&config.replace("SAME", same))
        .origin("app", app)
        .start();
    let reply = proxy.get_with("/a%62?b=c&page=2%2B3", &[("cookie", "session=s1")]);
    let told = reply.header("x-same").unwrap_or_default().to_owned();
    let line = proxy.until_access_lines(1).remove(0);
    let [told, logged]: [Vec<_>; 2] = [&told, &line].map(|text| text.split(' ').collect());
    assert_eq!(logged[1..4], ["GET", "/a%62?b=c&page=2%2B3", "HTTP/1.1"]);
    assert_eq!(logged[4..9], ["2+3", "s1", "here", "200", "1"], "{line}");
    assert_eq!(logged[11..], ["/ab", "-", "main"], "{line}");
    for (idx, (told, logged)) in told.iter().zip(&logged).enumerate() {
        let missing = matches!((*told, *logged), ("", "-") | ("[]", "[-]"));
        assert!(told == logged || missing, "{idx}: {told} and {logged}");
    }
}
