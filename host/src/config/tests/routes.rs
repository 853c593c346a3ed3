//! What routes ask for and where they go.

use super::*;

fn route(keys: &str) -> Route {
    let mut config = good(&format!("[[routes]]\n{keys}\n"));
    config.routes.remove(0)
}

#[track_caller]
fn refused_route(keys: &str, error: &str) {
    refused(
        &format!("[[routes]]\n{keys}\n"),
        &format!("site.toml:{error}"),
    );
}

#[test]
fn paths_are_prefixes_exact_or_expressions() {
    let path = |text: &str| route(&format!("path = {text}"));
    let exact = path("{ exact = '/x/' }");
    assert_eq!(exact.path, PathMatch::Exact("/x/".to_owned()));
    assert_eq!(exact.name, "=/x/");
    let expression = path(r"{ regex = '^/user/(?<id>\d+)$' }");
    assert_eq!(expression.name, r"~^/user/(?<id>\d+)$");
    assert_eq!(expression.group_names(), ["id"]);
    let rule = "expected one of { exact = \"/x\" } and { regex = \"^/x\" }";
    refused_route("path = {}", &format!("2:8: path a table: {rule}"));
    refused_route(
        "path = { exact = '/x', regex = 'x' }",
        &format!("2:8: path a table: {rule}"),
    );
    refused_route(
        "path = { exact = 'x' }",
        "2:18: exact 'x': expected a path that begins with /, without ?, #, spaces and empty, \".\" or \"..\" segments",
    );
    refused_route(
        "path = { regex = '^user' }",
        "2:18: regex '^user': expected / behind ^: it is what paths begin with",
    );
    refused_route(
        "path = { regex = '^/(a' }",
        "2:18: regex '^/(a': unclosed group, at its character 3",
    );
    refused_route(
        "path = { regex = '' }",
        "2:18: regex '': expected a regular expression",
    );
}

#[test]
fn values_are_tested_in_five_ways() {
    let route = route(
        "headers = { x-a = ['1', '2'], x-b = { regex = '^v' } }\nquery = { 'a b' = 'c d', e = true }\n\
         cookies = { s = false }\nclients = ['10.0.0.0/8', 'unix']\npriority = -5",
    );
    let values =
        |values: &[&str]| ValueTest::OneOf(values.iter().map(|it| (*it).to_owned()).collect());
    assert_eq!(route.headers[0].test, values(&["1", "2"]));
    assert_eq!(route.headers[1].pattern().unwrap().as_str(), "^v");
    assert_eq!(
        (route.query[0].name.as_str(), &route.query[0].test),
        ("a b", &values(&["c d"]))
    );
    assert_eq!(route.query[1].test, ValueTest::Present);
    assert_eq!(route.cookies[0].test, ValueTest::Absent);
    assert!(route.clients.unwrap().unix);
    assert_eq!(route.priority, -5);
    let rest = "a list of such, { regex = \"...\" }, or true (present) or false (absent)";
    for (keys, error) in [
        (
            "query = { '' = true }",
            "2:11: query \"\": expected a parameter's name".to_owned(),
        ),
        (
            "query = { a = [] }",
            format!("2:15: a a list: expected a parameter's value, {rest}"),
        ),
        (
            "cookies = { 'a b' = '1' }",
            "2:13: cookie \"a b\": expected a cookie's name".to_owned(),
        ),
        (
            "cookies = { a = 'x;y' }",
            format!("2:17: a 'x;y': expected a cookie's value, {rest}"),
        ),
        (
            "headers = { a = ['1', '1'] }",
            "2:23: a '1' is already in the list".to_owned(),
        ),
        (
            "headers = { a = { regex = '(' } }",
            "2:27: regex '(': unclosed group, at its character 1".to_owned(),
        ),
        (
            "clients = []",
            "2:11: clients a list: expected at least one network".to_owned(),
        ),
        (
            "priority = 1001",
            "2:12: priority 1001: expected an integer, -1000 to 1000".to_owned(),
        ),
        (
            "priority = 'high'",
            "2:12: priority 'high': expected an integer, -1000 to 1000".to_owned(),
        ),
    ] {
        refused_route(keys, &error);
    }
}

#[test]
fn groups_have_names_that_variables_may_have() {
    let rule =
        "expected a variable's name, 1 to 64 of a-z 0-9 _, that is none of the gateway's own";
    for name in [
        "Id",
        "host",
        "http_a",
        "arg_a",
        "cookie_a",
        "status",
        "tls_version",
    ] {
        refused_route(
            &format!("path = {{ regex = '(?<{name}>x)' }}"),
            &format!("2:8: path: group {name:?}: {rule}"),
        );
    }
    refused_route(
        "path = { regex = '(?<a>x)' }\nheaders = { b = { regex = '(?<a>x)' } }",
        "3:11: headers: group \"a\" is already in another expression of the route",
    );
}

#[test]
fn upstreams_have_shares() {
    let app = "[upstreams.b]\npeers = ['b:1']\n";
    let one = |keys: &str| good(&format!("{app}[[routes]]\n{keys}\n")).routes.remove(0);
    let shares = one("upstream = { app = 90, b = 0 }\nsplit_by = '$cookie_user-$path'");
    let names: Vec<_> = shares
        .upstreams
        .iter()
        .map(|it| (it.name.as_str(), it.weight))
        .collect();
    assert_eq!(names, [("app", 90), ("b", 0)]);
    assert_eq!(shares.split_by.as_deref(), Some("$cookie_user-$path"));
    let rule = "a text with variables of the request, such as \"$cookie_session\"";
    for (keys, error) in [
        ("upstream = { app = 1, bb = 1 }", "4:23: unknown upstream \"bb\": did you mean \"b\"?".to_owned()),
        ("upstream = { app = 1 }", "4:12: upstream a table: expected a name, or two upstreams and more with their weights".to_owned()),
        ("upstream = {}", "4:12: upstream a table: expected a name, or two upstreams and more with their weights".to_owned()),
        ("upstream = { app = 0, b = 0 }", "4:12: upstream: all weights are 0: expected one that is not".to_owned()),
        ("upstream = { app = 1, b = 65536 }", "4:27: b 65536: expected 0 to 65535".to_owned()),
        ("upstream = { app = 1, b = 1 }\nsplit_by = 'x'", format!("5:12: split_by 'x': expected {rule}")),
        ("upstream = { app = 1, b = 1 }\nsplit_by = '$status'", format!("5:12: split_by: $status has no value when a request is routed: expected {rule}")),
        ("upstream = { app = 1, b = 1 }\nsplit_by = '$'", "5:12: split_by: `$` is no variable's name".to_owned()),
        ("upstream = 'app'\nsplit_by = '$host'", "5:12: split_by without several upstreams has no effect: expected upstream = { a = 90, b = 10 }".to_owned()),
        ("upstream = { app = 1, b = 1 }\nmetrics = true", "5:11: metrics and an upstream: expected one of them".to_owned()),
    ] {
        refused(&format!("{app}[[routes]]\n{keys}"), &format!("site.toml:{error}"));
    }
}
