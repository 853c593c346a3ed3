//! Settings of upstreams that could have no effect, or surely not the one that is meant.

use super::*;

/// Errors of a config whose upstream has these keys, from line 2 on; routes and what else follows are `rest`.
fn errors(keys: &str, rest: &str) -> Vec<String> {
    let listener = "[listeners.web]\nbind = '127.0.0.1:8080'\n[[routes]]\nupstream = 'app'\n";
    Site::new(&format!("[upstreams.app]\n{keys}\n{listener}{rest}")).errors()
}

#[track_caller]
fn is_refused(keys: &str, error: &str) {
    assert_eq!(errors(keys, ""), [format!("site.toml:{error}")]);
}

/// The keys are all right.
#[track_caller]
fn is_good(keys: &str, rest: &str) {
    let listener = "[listeners.web]\nbind = '127.0.0.1:8080'\n[[routes]]\nupstream = 'app'\n";
    let site = Site::new(&format!("[upstreams.app]\n{keys}\n{listener}{rest}"));
    if let Err(errors) = site.load() {
        panic!("{keys}: {errors}");
    }
}

#[test]
fn a_queue_is_for_peers_that_may_be_full() {
    let no_bound = "3:9: queue without effect, as peers may have any number of requests: expected max_active of the upstream or of peers";
    is_refused("peers = ['a:1']\nqueue = { size = 10 }", no_bound);
    is_refused(
        "peers = ['a:1']\nqueue = { size = 10 }\nconcurrency = {}\nbreaker = { active = 5 }",
        no_bound,
    );
    is_refused(
        "peers = ['a:1']\nqueue = { timeout = '5s' }\nmax_active = 2",
        "3:21: timeout without effect, as no request waits: expected a size of the queue",
    );
    for keys in [
        "peers = ['a:1']\nqueue = { size = 0, timeout = '1s' }",
        "peers = ['a:1']\nqueue = { size = 10 }\nmax_active = 3",
        "peers = ['a:1', { address = 'b:1', max_active = 3 }]\nqueue = { size = 10 }",
        "peers_file = 'app.peers'\nqueue = { size = 10 }",
    ] {
        is_good(keys, "");
    }
}

#[test]
fn a_check_can_be_passed_and_is_where_it_is_said_to_be() {
    is_refused(
        "peers = ['a:1']\ncheck = { statuses = [] }",
        "3:22: statuses is empty, so that no peer could pass a check: expected at least one, such as \"200-399\"",
    );
    is_good("peers = ['a:1']\npassive = { statuses = [] }", "");
    is_refused(
        "peers = ['unix:/a', 'unix:/b']\ncheck = { port = 81 }",
        "3:18: port without effect, as peers are all Unix sockets: expected none",
    );
    is_good("peers = ['unix:/a', 'b:1']\ncheck = { port = 81 }", "");
    is_good(
        "peers = ['unix:/a']\npeers_file = 'app.peers'\ncheck = { port = 81 }",
        "",
    );
}

#[test]
fn peers_are_apart() {
    let routes = "peers = [{ address = 'a:1', route = 'x' }, { address = 'b:1', route = 'x' }]";
    is_refused(
        &format!("{routes}\nsticky = {{ route = '$cookie_route' }}"),
        "2:71: route \"x\" is that of peer \"a:1\" already: expected another one",
    );
    for (first, second) in [
        ("[::1]:80", "[0:0::1]:80"),
        ("127.0.0.1:80", "127.0.0.1:0080"),
        ("app:80", "APP:080"),
    ] {
        let column = 14 + first.len();
        is_refused(
            &format!("peers = ['{first}', '{second}']"),
            &format!(
                "2:{column}: peer \"{first}\" is already in the list: expected one with a weight"
            ),
        );
    }
    for peer in [
        "0.0.0.0:80",
        "[::]:80",
        "224.0.0.1:80",
        "[ff02::1]:80",
        "255.255.255.255:80",
        "[::ffff:0.0.0.0]:80",
    ] {
        is_refused(
            &format!("peers = ['{peer}']"),
            &format!(
                "2:10: peers '{peer}': expected the address of one host: this one is nobody's, or that of many"
            ),
        );
    }
}

#[test]
fn variables_of_texts_are_there() {
    let hash = "peers = ['a:1']\nbalance = { hash = '$nope' }";
    let unset = |place: &str, key: &str| {
        format!(
            "{place}: {key} $nope: no plugin is there to set it: expected a variable of the request, or a group of a route's regular expression"
        )
    };
    is_refused(hash, &unset("3:20", "hash"));
    let route =
        "peers = [{ address = 'a:1', route = 'x' }]\nsticky = { route = ['$arg_r', '${nope}'] }";
    is_refused(route, &unset("3:20", "route"));
    let group = "[[routes]]\npath = { regex = '^/(?P<nope>[a-z]+)' }\nupstream = 'app'";
    let plugin = "[plugins.any]\nwasm = 'p.wasm'";
    for rest in [group, plugin] {
        is_good(hash, rest);
        is_good(route, rest);
    }
    is_good(
        "peers = ['a:1']\nbalance = { hash = '$client_address$tls_server_name$cookie_a$http_b' }",
        "",
    );
    let split = "[upstreams.other]\npeers = ['b:1']\n[[routes]]\npath = '/x'\nupstream = { app = 1, other = 1 }\nsplit_by = '$nope'";
    let number = "peers = ['a:1']\nbalance = { hash = '$1' }";
    let path = "[[routes]]\npath = { regex = '^/([a-z]+)' }\nupstream = 'app'";
    is_good(number, path);
    is_refused(number, &unset("3:20", "hash").replace("nope", "1"));
    let place = format!("site.toml:{}", unset("12:12", "split_by"));
    assert_eq!(errors("peers = ['a:1']", split), [place]);
    is_good("peers = ['a:1']", &format!("{split}\n{plugin}"));
}

#[test]
fn cookies_are_such_as_browsers_keep() {
    let secret = "secret = '0123456789abcdef'";
    let sticky = |keys: &str| format!("peers = ['a:1']\n[upstreams.app.sticky]\n{secret}\n{keys}");
    for (keys, error) in [
        (
            "cookie = 'r'\nsame_site = 'none'",
            "6:13: same_site \"none\": expected secure = true, without which browsers drop the cookie",
        ),
        (
            "cookie = '__Secure-r'",
            "5:10: cookie \"__Secure-r\": expected secure = true, without which browsers drop it",
        ),
        (
            "cookie = '__host-r'",
            "5:10: cookie \"__host-r\": expected secure = true, without which browsers drop it",
        ),
        (
            "cookie = '__Host-r'\nsecure = true\ndomain = 'a.test'",
            "7:10: domain beside a cookie \"__Host-...\": expected none, with which browsers drop it",
        ),
        (
            "cookie = '__Host-r'\nsecure = true\npath = '/app'",
            "7:8: path of a cookie \"__Host-...\": expected \"/\", without which browsers drop it",
        ),
        (
            "cookie = 'r'\nroute = '$cookie_r'",
            "6:9: route beside cookie: expected one of them, by which sessions are known",
        ),
    ] {
        is_refused(&sticky(keys), error);
    }
    for keys in [
        "cookie = 'r'\nsame_site = 'none'\nsecure = true",
        "cookie = '__Host-r'\nsecure = true\npath = '/'",
        "cookie = '__Secure-r'\nsecure = true\ndomain = 'a.test'\npath = '/app'",
        "cookie = '__Other-r'",
    ] {
        is_good(&sticky(keys), "");
    }
}

#[test]
fn each_key_is_named_once_where_another_is_unknown() {
    let errors = errors("peers = ['a:1']\nzebra = 1", "");
    assert_eq!(errors.len(), 1);
    let (_, known) = errors[0].split_once("expected ").unwrap();
    let mut keys: Vec<&str> = known
        .split([',', ' '])
        .filter(|it| it.starts_with('"'))
        .collect();
    let count = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), count, "{known}");
    assert!(known.contains("\"sticky\""), "{known}");
}

#[test]
fn statuses_are_written_alike_wherever_they_stand() {
    let text = "[503, '504', '5xx', '500-504', 429]";
    let config = Site::new(&format!(
        "[upstreams.app]\npeers = ['a:1']\nretry.on = {text}\npassive.statuses = {text}\ncheck.statuses = {text}\n\
         [listeners.web]\nbind = '127.0.0.1:8080'\n[[routes]]\nupstream = 'app'\nretry = {{ on = {text} }}\n"
    ));
    let config = config.load().unwrap_or_else(|errors| panic!("{errors}"));
    let app = &config.upstreams["app"];
    let expected: StatusSet = [429..=429, 500..=599].into_iter().collect();
    let Some(CheckKind::Http(check)) = app.check.as_ref().map(|check| &check.kind) else {
        panic!("another check");
    };
    let of_route = config.routes[0].proxy.retry.as_ref();
    let of_route = of_route.and_then(|retry| Some(retry.on?.statuses));
    assert_eq!(app.retry.on.statuses, expected);
    assert_eq!((app.passive.statuses, check.statuses), (expected, expected));
    assert_eq!(of_route, Some(expected));
    let rule = "expected \"connect\", \"reset\", \"timeout\", \"invalid_header\" or statuses of 400 to 599 such as 503, \"5xx\" or \"500-504\"";
    for (item, shown) in [
        ("'2xx'", "'2xx'"),
        ("200", "200"),
        ("'399-503'", "'399-503'"),
        ("true", "true"),
    ] {
        is_refused(
            &format!("peers = ['a:1']\nretry.on = [{item}]"),
            &format!("3:13: on {shown}: {rule}"),
        );
        if item != "true" {
            is_good(&format!("peers = ['a:1']\npassive.statuses = [{item}]"), "");
        }
    }
    is_refused(
        "peers = ['a:1']\npassive.statuses = [600]",
        "3:21: statuses 600: expected a status such as 503, \"5xx\" or \"200-299\"",
    );
}
