//! Routes that are found, and what is known of the request then.

use proptest::prelude::*;

use super::*;
use crate::config::{FieldMatch, Pattern, ValueTest};
use crate::message::{Headers, KnownHeader, RequestHead, Target};
use crate::phase::{Order, Outcome};

fn route(name: &str, hosts: &[&str], path: &str) -> config::Route {
    let pattern = |host: &&str| match host.strip_prefix('*') {
        Some(suffix) => HostPattern::Suffix(suffix.to_owned()),
        None => HostPattern::Exact((*host).to_owned()),
    };
    config::Route {
        name: name.to_owned(),
        listeners: Vec::new(),
        hosts: hosts.iter().map(pattern).collect(),
        path: PathMatch::Prefix(path.to_owned()),
        methods: Vec::new(),
        headers: Vec::new(),
        query: Vec::new(),
        cookies: Vec::new(),
        clients: None,
        priority: 0,
        plugins: Vec::new(),
        upstreams: Vec::new(),
        split_by: None,
        metrics: false,
        client_certificate: false,
        redirect: None,
        paths: None,
        tunnel: None,
        cache: None,
        proxy: config::RouteProxy::default(),
        place: String::new(),
    }
}

fn exact(name: &str, path: &str) -> config::Route {
    config::Route {
        path: PathMatch::Exact(path.to_owned()),
        ..route(name, &[], "")
    }
}

fn regex(name: &str, pattern: &str) -> config::Route {
    config::Route {
        path: PathMatch::Regex(Pattern::new(pattern).unwrap()),
        ..route(name, &[], "")
    }
}

fn field(name: &str, test: ValueTest) -> FieldMatch {
    FieldMatch {
        name: name.to_owned(),
        test,
    }
}

fn one_of(values: &[&str]) -> ValueTest {
    ValueTest::OneOf(values.iter().map(|it| (*it).to_owned()).collect())
}

fn router(routes: &[config::Route]) -> Router {
    router_with(PathPolicy::Normal, PathCase::Sensitive, routes)
}

fn router_with(paths: PathPolicy, case: PathCase, routes: &[config::Route]) -> Router {
    let plans = routes.iter().map(|route| {
        (
            route,
            Rc::new(Plan {
                route: Some(route.name.as_str().into()),
                paths: route.paths.unwrap_or(paths),
                ..Plan::default()
            }),
        )
    });
    let plans = plans.collect();
    Router::new(Box::default(), Rc::default(), (paths, case), plans)
}

/// The route and the path that is sent on, or why it is refused.
fn routed(router: &Router, path: &str) -> Result<(String, String), String> {
    let mut exchange = Exchange::idle();
    exchange.request_mut().target = Target::new(path, None);
    let plan = router
        .route(&mut exchange)
        .map_err(|error| error.to_string())?;
    let name = plan.route.as_deref().unwrap_or_default().to_owned();
    Ok((name, exchange.request().target.path().to_owned()))
}

#[test]
fn what_is_decided_by_is_what_is_sent() {
    let routes = [route("admin", &[], "/admin"), route("open", &[], "")];
    let normal = router(&routes);
    for (path, name, sent) in [
        ("/admin/..", "open", "/"),
        ("/x/../admin", "admin", "/admin"),
        ("//x/admin/x", "open", "/x/admin/x"),
        ("/%61dmin/x", "admin", "/%61dmin/x"),
        ("/admin\\x", "open", "/admin%5Cx"),
        ("/admin%2fx", "open", "/admin%2fx"),
        ("/ADMIN/x", "open", "/ADMIN/x"),
    ] {
        let expected = Ok((name.to_owned(), sent.to_owned()));
        assert_eq!(routed(&normal, path), expected, "{path}");
    }
    for path in [
        "/admin/..%2fpublic",
        "/%zz",
        "/%00",
        "/..",
        "/%2e%2e/secret",
    ] {
        assert!(routed(&normal, path).is_err(), "{path}");
    }
}

#[test]
fn paths_may_be_strict_or_sent_as_they_came() {
    let mut odd = route("odd", &[], "/odd");
    odd.paths = Some(PathPolicy::AsSent);
    let routes = [route("admin", &[], "/admin"), odd, route("open", &[], "")];
    let strict = router_with(PathPolicy::Strict, PathCase::Sensitive, &routes);
    for path in ["/a//b", "/a/../b", "/a%2fb", "/a\\b", "/a%5cb", "/%zz"] {
        assert!(routed(&strict, path).is_err(), "{path}");
        let odd = format!("/odd{path}");
        assert_eq!(routed(&strict, &odd), Ok(("odd".to_owned(), odd.clone())));
    }
    assert!(routed(&strict, "/a%20b/").is_ok());
    let as_sent = router_with(PathPolicy::AsSent, PathCase::Sensitive, &routes);
    for (path, name) in [
        ("/admin%2fx", "admin"),
        ("/x/%2e%2e/admin", "admin"),
        ("/%zz", "open"),
        ("/admin/..", "open"),
    ] {
        let expected = Ok((name.to_owned(), path.to_owned()));
        assert_eq!(routed(&as_sent, path), expected, "{path}");
    }
    let insensitive = router_with(PathPolicy::Normal, PathCase::Insensitive, &routes);
    for path in ["/ADMIN/x", "/Admin", "/%41dmin"] {
        let expected = Ok(("admin".to_owned(), path.to_owned()));
        assert_eq!(routed(&insensitive, path), expected);
    }
}

#[test]
fn a_path_in_the_config_is_read_as_those_of_requests() {
    let routes = [
        route("space", &[], "/a%20b"),
        route("scope", &[], "/@s%2fp"),
    ];
    let router = router(&routes);
    let name = |path| routed(&router, path).ok().map(|(name, _)| name);
    assert_eq!(name("/a%20b").as_deref(), Some("space"));
    assert_eq!(name("/a%2520b"), None);
    assert_eq!(name("/@s%2Fp/x").as_deref(), Some("scope"));
    assert_eq!(name("/@s/p"), None);
}

fn find(router: &Router, host: &str, path: &str) -> Option<String> {
    let mut headers = Headers::new();
    headers.add(KnownHeader::Host, host.as_bytes());
    let request = RequestHead {
        target: Target::new(path, None),
        headers,
        ..RequestHead::default()
    };
    let mut exchange = Exchange::idle();
    *exchange.request_mut() = request;
    router
        .route(&mut exchange)
        .ok()?
        .route
        .as_deref()
        .map(str::to_owned)
}

#[test]
fn paths_match_by_segments_and_the_longest_wins() {
    let router = router(&[
        route("root", &[], ""),
        route("api", &[], "/api"),
        route("v1", &[], "/api/v1"),
    ]);
    for (path, expected) in [
        ("/", "root"),
        ("/api", "api"),
        ("/api/", "api"),
        ("/apix", "root"),
        ("/api/v1", "v1"),
        ("/api/v1/x", "v1"),
        ("/api/v10", "api"),
        ("/x/../api", "api"),
        ("/%61pi", "api"),
    ] {
        assert_eq!(
            find(&router, "h", path).as_deref(),
            Some(expected),
            "{path}"
        );
    }
}

#[test]
fn the_most_specific_host_wins() {
    let router = router(&[
        route("any", &[], ""),
        route("suffix", &["*.example.com"], ""),
        route("deep", &["*.eu.example.com"], ""),
        route("exact", &["a.example.com"], ""),
    ]);
    for (host, expected) in [
        ("a.example.com", "exact"),
        ("A.Example.com:8080", "exact"),
        ("b.example.com", "suffix"),
        ("x.eu.example.com", "deep"),
        ("example.com", "any"),
        ("notexample.com", "any"),
        ("[::1]:80", "any"),
    ] {
        assert_eq!(
            find(&router, host, "/").as_deref(),
            Some(expected),
            "{host}"
        );
    }
}

#[test]
fn a_host_without_the_path_leaves_it_to_less_specific_ones() {
    let router = router(&[
        route("api", &["example.com"], "/api"),
        route("any", &[], ""),
    ]);
    assert_eq!(
        find(&router, "example.com", "/other").as_deref(),
        Some("any")
    );
}

#[test]
fn methods_and_headers_pass_a_route_over() {
    let mut posts = route("posts", &[], "/api");
    posts.methods = vec!["POST".to_owned()];
    let mut beta = route("beta", &[], "/api");
    beta.headers = vec![field("x-beta", ValueTest::Present)];
    let router = router(&[posts, beta, route("root", &[], "")]);
    assert_eq!(find(&router, "h", "/api").as_deref(), Some("root"));
}

#[test]
fn an_exact_path_wins_then_an_expression_then_the_longest_prefix() {
    let mut first = route("first", &[], "/late");
    first.priority = 1;
    let mut last = exact("last", "/user/0");
    last.priority = -1;
    let router = router(&[
        route("root", &[], ""),
        route("user", &[], "/user/me"),
        regex("id", "^/user/[a-z0-9]+$"),
        regex("digits", "^/user/[0-9]+$"),
        exact("one", "/user/1"),
        exact("slash", "/user/1/"),
        regex("php", r"\.php$"),
        last,
        first,
    ]);
    for (path, expected) in [
        ("/user/1", "one"),
        ("/user/1/", "slash"),
        ("/user/1/x", "root"),
        ("/user/2", "id"),
        ("/user/0", "id"),
        ("/user/me", "id"),
        ("/user/me/", "user"),
        ("/%75ser/%31", "one"),
        ("/x/../user/1", "one"),
        ("/user/a.php", "php"),
        ("/late/a.php", "first"),
    ] {
        let found = find(&router, "h", path);
        assert_eq!(found.as_deref(), Some(expected), "{path}");
    }
}

/// A request's head from lines as HTTP/1 has them, without the version.
fn exchange(target: &str, fields: &[(&str, &str)]) -> Box<Exchange> {
    let mut exchange = Exchange::idle();
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let request = exchange.request_mut();
    request.target = Target::new(path, query);
    for (name, value) in fields {
        let name: http::HeaderName = name.parse().unwrap();
        request.headers.add(&name, value.as_bytes());
    }
    exchange
}

#[test]
fn fields_query_cookies_and_clients_are_conditions() {
    let pattern = |text| ValueTest::Regex(Pattern::new(text).unwrap());
    let mut all = route("all", &[], "/x");
    all.headers = vec![
        field("x-tier", one_of(&["gold", "silver"])),
        field("x-off", ValueTest::Absent),
        field("accept", pattern("json")),
    ];
    all.query = vec![
        field("v", one_of(&["a b"])),
        field("flag", ValueTest::Present),
    ];
    all.cookies = vec![field("beta", pattern("^[0-9]$"))];
    let networks = || config::Networks {
        cidrs: vec!["10.0.0.0/8".parse().unwrap()],
        unix: true,
    };
    all.clients = Some(networks());
    let routes = [all];
    let router = router(&routes);
    let order = Order::new(
        &routes.iter().collect::<Vec<_>>(),
        (PathPolicy::Normal, PathCase::Sensitive),
    );
    let good = [
        ("x-tier", "bronze"),
        ("x-tier", "silver"),
        ("accept", "text/json"),
        ("cookie", "a=b; beta=x; beta=7"),
    ];
    let target = "/x?v=1&v=a+b&flag";
    let ask = |target: &str, fields: &[(&str, &str)], client: &str| {
        let mut exchange = exchange(target, fields);
        exchange
            .context_mut()
            .client
            .set_ip(client.parse().unwrap());
        let outcome = order.ask(&exchange)[0].1.clone();
        assert_eq!(
            router.route(&mut exchange).is_ok(),
            outcome == Outcome::Takes
        );
        match outcome {
            Outcome::Takes => "takes".to_owned(),
            Outcome::OtherHost => "host".to_owned(),
            Outcome::OtherPath => "path".to_owned(),
            Outcome::Fails(condition) => condition,
        }
    };
    assert_eq!(ask(target, &good, "10.1.2.3"), "takes");
    assert_eq!(ask(target, &good, "11.1.2.3"), "client in 10.0.0.0/8, unix");
    assert_eq!(ask("/y", &good, "10.1.2.3"), "path");
    assert_eq!(
        ask(target, &good[2..], "10.1.2.3"),
        r#"header x-tier in ["gold", "silver"]"#
    );
    let off = [&good[..], &[("x-off", "")]].concat();
    assert_eq!(ask(target, &off, "10.1.2.3"), "header x-off absent");
    assert_eq!(ask("/x?v=a%20b", &good, "10.1.2.3"), "query flag present");
    assert_eq!(ask("/x?v=a&flag", &good, "10.1.2.3"), r#"query v = "a b""#);
    assert_eq!(ask(target, &good[..3], "10.1.2.3"), "cookie beta ~ ^[0-9]$");
}

#[test]
fn groups_become_variables() {
    let mut user = regex("user", "^/user/(?<id>[^/]+)(/(?<rest>.*))?$");
    user.headers = vec![field(
        "x-version",
        ValueTest::Regex(Pattern::new("^v(?<major>[0-9]+)").unwrap()),
    )];
    let router = router_with(PathPolicy::Normal, PathCase::Insensitive, &[user]);
    let vars = |target: &str| {
        let mut exchange = exchange(target, &[("x-version", "x"), ("x-version", "v12")]);
        router.route(&mut exchange).ok()?;
        let vars = &exchange.context().vars;
        let value = |name| {
            let value = vars.get(name)?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        let names = ["1", "id", "2", "3", "rest", "major"];
        let all = names.map(|name| value(name).unwrap_or_else(|| "-".to_owned()));
        Some(all.join(" "))
    };
    assert_eq!(vars("/user/7").as_deref(), Some("7 7 - - - 12"));
    assert_eq!(vars("/USER/Ab/C").as_deref(), Some("Ab Ab /C C C 12"));
    assert_eq!(
        vars("/x/../user/%61%20%2f").as_deref(),
        Some("a%20%2F a%20%2F - - - 12")
    );
    assert_eq!(vars("/users"), None);
}

/// Routes of every kind over few words, so that they often meet.
fn any_route() -> impl Strategy<Value = config::Route> {
    let host = prop::sample::select(vec!["a.x", "*.x", "*.a.x", "b.y"]);
    let hosts = prop::collection::vec(host, 0..2);
    let path = prop_oneof![
        "(/[ab]){0,3}".prop_map(PathMatch::Prefix),
        "/([ab]/){0,2}[ab]?".prop_map(PathMatch::Exact),
        prop::sample::select(vec!["^/a", "b$", "/a/", "^/(a|b)/b"])
            .prop_map(|text| PathMatch::Regex(Pattern::new(text).unwrap())),
    ];
    let methods = prop::sample::subsequence(vec!["GET", "POST"], 0..=1);
    let header = prop::option::of(prop::sample::select(vec![
        ValueTest::Present,
        ValueTest::Absent,
        one_of(&["1"]),
    ]));
    let all = (hosts, path, methods, header, -1..=1);
    all.prop_map(|(hosts, path, methods, header, priority)| config::Route {
        path,
        methods: methods.into_iter().map(str::to_owned).collect(),
        headers: header.map(|test| field("x-a", test)).into_iter().collect(),
        priority,
        ..route("", &hosts, "")
    })
}

proptest! {
    /// Equal to asking one after the other; and no request comes to a route that is told to be shadowed.
    #[test]
    fn the_router_finds_what_a_walk_over_all_finds(
        mut routes in prop::collection::vec(any_route(), 0..8),
        requests in prop::collection::vec(
            ("(a|b|a\\.a)\\.(x|y)", "/([ab]/){0,3}[ab]?", any::<bool>(), prop::option::of("[12]")),
            0..12,
        ),
    ) {
        for (idx, route) in routes.iter_mut().enumerate() {
            route.name = idx.to_string();
        }
        let router = router(&routes);
        let of_listener: Vec<_> = routes.iter().collect();
        let order = Order::new(&of_listener, (PathPolicy::Normal, PathCase::Sensitive));
        let shadowed: Vec<_> = order.shadowed().iter().map(|(turn, _)| turn.idx).collect();
        for (host, path, is_post, header) in &requests {
            let mut fields = vec![("host", host.as_str())];
            fields.extend(header.as_deref().map(|value| ("x-a", value)));
            let mut exchange = exchange(path, &fields);
            if *is_post {
                exchange.request_mut().method = http::Method::POST;
            }
            let asked = order.ask(&exchange);
            let takes = asked.iter().find(|(_, outcome)| *outcome == Outcome::Takes);
            let expected = takes.map(|(turn, _)| turn.route.name.clone());
            prop_assert!(takes.is_none_or(|(turn, _)| !shadowed.contains(&turn.idx)));
            let found = router.route(&mut exchange).ok();
            let found = found.and_then(|plan| plan.route.as_deref().map(str::to_owned));
            prop_assert_eq!(found, expected);
        }
    }
}
