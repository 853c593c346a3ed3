use castling_sdk::testing::{self, Exchange};

use super::*;

fn plugin(config: &str) -> ErrorPages {
    ErrorPages::configure(testing::config(config).unwrap()).unwrap()
}

/// The response that takes an error's place.
fn replaced(plugin: &ErrorPages, exchange: Exchange) -> Option<Response> {
    let mut exchange = exchange;
    let (request, reply) = exchange.request_and_reply();
    match plugin.response_headers(request, reply) {
        Verdict::Answer(response) => Some(response),
        Verdict::Continue => None,
        verdict => panic!("{verdict:?}"),
    }
}

fn text(response: &Response) -> String {
    String::from_utf8(response.body_bytes().to_vec()).unwrap()
}

fn header(response: &Response, name: &str) -> Option<String> {
    let value = response.header_value(name)?;
    Some(value.to_string_lossy().into_owned())
}

const PAGES: &str = r#"{"pages": [
    {"status": [404], "body": "<p>$path is not here</p>"},
    {"status": ["5xx"], "accept": "application/json", "content_type": "application/problem+json", "body": "{\"status\":$status,\"path\":\"$path\"}"},
    {"status": ["5xx"], "body": "sorry", "content_type": "text/plain", "send_status": 200}
]}"#;

#[test]
fn an_error_has_the_first_page_that_is_for_it() {
    let plugin = plugin(PAGES);
    let not_found = replaced(&plugin, Exchange::get("/%3Cb%3E").response(404)).unwrap();
    assert_eq!(not_found.status_code(), 404);
    assert_eq!(text(&not_found), "<p>/%3Cb%3E is not here</p>");
    assert_eq!(
        header(&not_found, "content-type").unwrap(),
        "text/html; charset=utf-8"
    );
    assert_eq!(header(&not_found, "vary").unwrap(), "accept");
    let failed = || Exchange::get("/a\"").response(502);
    let sorry = replaced(&plugin, failed()).unwrap();
    assert_eq!(
        (sorry.status_code(), text(&sorry)),
        (200, "sorry".to_owned())
    );
    let wants_json = failed().header("accept", "text/html;q=0.5, Application/JSON;q=0.9");
    let json = replaced(&plugin, wants_json).unwrap();
    assert_eq!(text(&json), r#"{"status":502,"path":"/a\""}"#);
    for fine in [200, 204, 301, 304, 403] {
        assert_eq!(
            replaced(&plugin, Exchange::get("/").response(fine)),
            None,
            "{fine}"
        );
    }
    assert_eq!(testing::metric("replaced_total", ["404"]), Some(1.0));
    assert_eq!(testing::metric("replaced_total", ["502"]), Some(2.0));
}

#[test]
fn peers_errors_stay_unless_they_are_intercepted() {
    let pages = |intercept: &str| {
        plugin(&format!(
            r#"{{{intercept} "pages": [{{"status": ["5xx"], "body": "ours"}}, {{"status": [404], "intercept": true, "body": "none"}}]}}"#
        ))
    };
    let of_peer = |status| Exchange::get("/").response(status).peer_status(status);
    let own = pages("");
    assert_eq!(replaced(&own, of_peer(503)), None);
    assert!(replaced(&own, of_peer(404)).is_some(), "the page says so");
    // The peer has answered something else, which a plugin has made an error of.
    assert!(replaced(&own, Exchange::get("/").response(503).peer_status(200)).is_some());
    assert!(replaced(&own, Exchange::get("/").response(503)).is_some());
    let all = pages("\"intercept\": true,");
    assert!(replaced(&all, of_peer(503)).is_some());
}

#[test]
fn what_was_said_of_the_body_goes_and_the_rest_stays() {
    let plugin = plugin(r#"{"intercept": true, "pages": [{"status": ["4xx"], "body": "no"}]}"#);
    let error = |status| {
        Exchange::get("/")
            .response(status)
            .response_header("content-type", "application/json")
            .response_header("content-encoding", "gzip")
            .response_header("etag", "\"1\"")
            .response_header("last-modified", "Mon, 30 Nov 2026 00:00:00 GMT")
            .response_header("content-range", "bytes */7")
            .response_header("www-authenticate", "Basic")
            .response_header("set-cookie", "a=1")
            .response_header("set-cookie", "b=2")
            .response_header("cache-control", "no-store")
    };
    let refused = replaced(&plugin, error(401)).unwrap();
    for gone in ["content-encoding", "etag", "last-modified", "content-range"] {
        assert_eq!(header(&refused, gone), None, "{gone}");
    }
    assert_eq!(header(&refused, "www-authenticate").unwrap(), "Basic");
    assert_eq!(header(&refused, "cache-control").unwrap(), "no-store");
    assert_eq!(
        header(&refused, "content-type").unwrap(),
        "text/html; charset=utf-8"
    );
    let range = replaced(&plugin, error(416)).unwrap();
    assert_eq!(header(&range, "content-range").unwrap(), "bytes */7");
}

#[test]
fn a_page_may_be_another_of_the_own_routes() {
    let plugin = plugin(
        r#"{"pages": [
            {"status": [404, 500], "path": "/errors/$status?from=$path"},
            {"status": [403], "path": "/login", "send_status": "page"},
            {"status": [503], "path": "/busy", "send_status": 200}
        ]}"#,
    );
    let error = |status| {
        Exchange::get("/a&b")
            .header("cookie", "c=d")
            .header("x-other", "e")
            .response(status)
            .response_header("retry-after", "7")
            .response_header("etag", "\"old\"")
            .own_routes(|request| {
                assert_eq!(request.header_value("cookie").unwrap(), "c=d");
                assert_eq!(request.header_value("x-other"), None);
                match request.target() {
                    "/errors/500?from=%2Fa%26b" => Response::status(500),
                    target => Response::status(201).header("etag", "\"new\"").body(target),
                }
            })
    };
    let not_found = replaced(&plugin, error(404)).unwrap();
    assert_eq!(not_found.status_code(), 404);
    assert_eq!(text(&not_found), "/errors/404?from=%2Fa%26b");
    assert_eq!(header(&not_found, "etag").unwrap(), "\"new\"");
    assert_eq!(header(&not_found, "retry-after").unwrap(), "7");
    assert_eq!(replaced(&plugin, error(403)).unwrap().status_code(), 201);
    assert_eq!(replaced(&plugin, error(503)).unwrap().status_code(), 200);
    assert_eq!(
        replaced(&plugin, error(500)),
        None,
        "the page is an error itself"
    );
    let said = testing::take_log().pop().unwrap().1;
    assert_eq!(said, "the page /errors/500?from=%2Fa%26b has status 500");
}

#[test]
fn a_redirect_leads_elsewhere() {
    let plugin = plugin(
        r#"{"pages": [
            {"status": [404], "redirect": "https://example.org/search?for=$path"},
            {"status": [410], "redirect": "/", "send_status": 301}
        ]}"#,
    );
    let found = replaced(&plugin, Exchange::get("/a?b").response(404)).unwrap();
    assert_eq!(found.status_code(), 302);
    assert_eq!(
        header(&found, "location").unwrap(),
        "https://example.org/search?for=%2Fa"
    );
    let gone = replaced(&plugin, Exchange::get("/").response(410)).unwrap();
    assert_eq!(gone.status_code(), 301);
}

#[test]
fn a_redirect_says_what_the_error_says_but_for_its_place_and_its_challenge() {
    let plugin = plugin(
        r#"{"pages": [{"status": ["401-403", "3xx"], "redirect": "$http_x/login?from=$path&q=$query#$http_x"}]}"#,
    );
    let error = Exchange::get("/a&b?c=d e&f")
        .header("x", "/x")
        .response(302)
        .response_header("location", "/elsewhere")
        .response_header("www-authenticate", "Basic")
        .response_header("content-type", "text/html")
        .response_header("retry-after", "7")
        .response_header("cache-control", "no-store")
        .response_header("set-cookie", "a=1")
        .response_header("set-cookie", "b=2");
    let to = replaced(&plugin, error).unwrap();
    assert_eq!(
        header(&to, "location").unwrap(),
        "/x/login?from=%2Fa%26b&q=c%3Dd%20e%26f#%2Fx"
    );
    for (name, expected) in [
        ("retry-after", Some("7")),
        ("cache-control", Some("no-store")),
        ("set-cookie", Some("a=1")),
        ("www-authenticate", None),
        ("content-type", None),
    ] {
        assert_eq!(header(&to, name).as_deref(), expected, "{name}");
    }
    let nowhere = plugin_of_page(r#""redirect": "$http_x""#);
    assert_eq!(replaced(&nowhere, Exchange::get("/").response(404)), None);
}

fn plugin_of_page(more: &str) -> ErrorPages {
    plugin(&format!(r#"{{"pages": [{{"status": [404], {more}}}]}}"#))
}

#[test]
fn a_page_at_a_path_that_leads_elsewhere_is_taken_with_its_status_alone() {
    let moved = |plugin: &ErrorPages| {
        let error = Exchange::get("/")
            .response(404)
            .own_routes(|_| Response::status(302).header("location", "/login"));
        replaced(plugin, error)
    };
    assert_eq!(moved(&plugin_of_page(r#""path": "/moved""#)), None);
    let said = testing::take_log().pop().unwrap().1;
    assert_eq!(said, "the page /moved has status 302");
    assert_eq!(
        moved(&plugin_of_page(r#""path": "/moved", "send_status": 404"#)),
        None
    );
    let page = moved(&plugin_of_page(
        r#""path": "/moved", "send_status": "page""#,
    ))
    .unwrap();
    assert_eq!(
        (page.status_code(), header(&page, "location").unwrap()),
        (302, "/login".to_owned())
    );
}

#[test]
fn vary_is_of_the_error_of_the_page_and_of_the_choice() {
    let plugin = plugin(
        r#"{"pages": [
            {"status": [404], "path": "/page"},
            {"status": [500], "accept": "application/json", "content_type": "application/json", "body": "{}"}
        ]}"#,
    );
    let error = |status| {
        Exchange::get("/")
            .response(status)
            .response_header("vary", "Origin")
            .own_routes(|_| Response::status(200).header("vary", "accept-encoding, origin"))
    };
    let page = replaced(&plugin, error(404)).unwrap();
    assert_eq!(
        header(&page, "vary").unwrap(),
        "Origin, accept-encoding, accept"
    );
    let json = replaced(&plugin, error(500).header("accept", "application/json")).unwrap();
    assert_eq!(header(&json, "vary").unwrap(), "Origin, accept");
    // An error that stays because of what the client takes says so, and no other.
    for (status, expected) in [(500, "Origin, accept"), (502, "Origin")] {
        let mut exchange = error(status);
        let (request, reply) = exchange.request_and_reply();
        let verdict = plugin.response_headers(request, reply);
        assert!(matches!(verdict, Verdict::Continue));
        assert_eq!(reply.header("vary").unwrap(), expected, "{status}");
    }
}

#[test]
fn a_type_that_the_client_refuses_is_not_one_that_it_takes() {
    let plugin = plugin_of_page(r#""accept": "application/json", "body": "{}""#);
    for (accept, expected) in [
        ("application/json", true),
        ("text/html, application/json;v=1;q=0.1", true),
        ("application/json;q=0", false),
        ("application/json ; Q = 0.000, */*", false),
        ("*/*", false),
    ] {
        let error = Exchange::get("/").response(404).header("accept", accept);
        assert_eq!(replaced(&plugin, error).is_some(), expected, "{accept}");
    }
}

#[test]
fn values_in_scripts_end_nothing() {
    let page = |content_type: &str| {
        let plugin = plugin_of_page(&format!(
            r#""content_type": "{content_type}", "body": "say(\"$http_x\")""#
        ));
        let error = Exchange::get("/").response(404).header("x", "</script>\"'");
        text(&replaced(&plugin, error).unwrap())
    };
    let script = r#"say("\u003c/script\u003e\"\u0027")"#;
    for content_type in ["text/javascript; charset=utf-8", "application/ecmascript"] {
        assert_eq!(page(content_type), script);
    }
    assert_eq!(page("text/plain"), r#"say("</script>"'")"#);
}

#[test]
fn files_are_followed_with_variables_or_without() {
    testing::set_file("50x.html", "<p>$status\n</p>");
    let plugin = plugin(
        r#"{"pages": [
            {"status": [500], "file": "50x.html"},
            {"status": [502], "file": "50x.html", "variables": true}
        ]}"#,
    );
    let page = |status| text(&replaced(&plugin, Exchange::get("/").response(status)).unwrap());
    assert_eq!(
        (page(500), page(502)),
        ("<p>$status\n</p>".into(), "<p>502\n</p>".into())
    );
    testing::set_file("50x.html", "other $$");
    assert_eq!(
        (page(500), page(502)),
        ("other $$".into(), "other $".into())
    );
}

#[test]
fn calls_of_grpc_and_sub_requests_keep_their_errors() {
    let plugin = plugin(r#"{"pages": [{"status": ["4xx"], "body": "no"}]}"#);
    let error = || Exchange::get("/").response(404);
    let call = error().header("content-type", "application/grpc+proto");
    assert_eq!(replaced(&plugin, call), None);
    assert_eq!(
        replaced(&plugin, error().var("subrequest_of", "other")),
        None
    );
}

#[test]
fn a_config_without_sense_is_refused() {
    let page = |more: &str| format!(r#"{{"pages": [{{"status": [404], {more}}}]}}"#);
    for (config, error) in [
        (
            r#"{"pages": []}"#.to_owned(),
            "config.pages: expected at least one",
        ),
        (
            r#"{"pages": [{"status": [], "body": ""}]}"#.to_owned(),
            "config.pages[0]: status: expected at least one",
        ),
        (
            r#"{"pages": [{"status": ["2xx"], "body": ""}]}"#.to_owned(),
            "config.pages[0]: status `2xx`: expected one of 300 to 599 but 304",
        ),
        (
            page(r#""intercept": true"#),
            "config.pages[0]: expected one of `body`, `file`, `path` and `redirect`",
        ),
        (
            page(r#""body": "", "path": "/""#),
            "config.pages[0]: expected one of `body`, `file`, `path` and `redirect`",
        ),
        (
            page(r#""body": "", "send_status": "page""#),
            "config.pages[0]: send_status: \"page\" is for `path`",
        ),
        (
            page(r#""body": "", "send_status": 204"#),
            "config.pages[0]: send_status: 204: a response with that status has no body",
        ),
        (
            page(r#""body": "", "send_status": 100"#),
            "config.pages[0]: send_status: 100: expected 200 to 599",
        ),
        (
            page(r#""redirect": "/", "send_status": 200"#),
            "config.pages[0]: send_status: 200: expected 301",
        ),
        (
            page(r#""redirect": "/", "content_type": "a/b""#),
            "config.pages[0]: `content_type` and `escape` are for",
        ),
        (
            page(r#""body": "", "accept": "json""#),
            "config.pages[0]: accept: `json`: expected a media type",
        ),
        (
            page(r#""body": "", "content_type": "json""#),
            "config.pages[0]: content_type: `json`: expected a media type",
        ),
        (
            page(r#""path": "errors/404""#),
            "config.pages[0]: path: `errors/404`: expected a path of this gateway",
        ),
        (page(r#""path": "/$""#), "config.pages[0]: path: "),
        (
            page(r#""redirect": """#),
            "config.pages[0]: redirect: expected a path or a URL",
        ),
        (page(r#""file": "none""#), "config.pages[0]: file: "),
        (page(r#""body": "$""#), "config.pages[0].body: "),
    ] {
        let refused = testing::config(&config)
            .and_then(ErrorPages::configure)
            .err();
        let refused = refused.map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.starts_with(error), "{config}: {refused}");
    }
}
