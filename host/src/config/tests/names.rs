//! Names of peers, and files of peers, in the config.

use super::super::Family;
use super::*;

fn upstream(keys: &str) -> String {
    format!("[upstreams.a]\n{keys}")
}

#[test]
fn names_are_resolved_as_the_config_says() {
    let config = good(&upstream(
        "peers = ['app.test:80', { srv = '_http._tcp.App.test', backup = true }]\n\
         peers_file = 'more.peers'\n\
         [upstreams.a.resolve]\n\
         servers = ['10.0.0.2', '[fd00::2]:5353']\n\
         family = 'ipv6'\nvalid = '10s'\nrequired = false",
    ));
    let read = &config.upstreams["a"];
    let servers: Vec<String> = read
        .resolve
        .servers
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(servers, ["10.0.0.2:53", "[fd00::2]:5353"]);
    assert_eq!(read.resolve.family, Family::Ipv6);
    assert_eq!(read.resolve.valid, Some(Duration::from_secs(10)));
    assert!(!read.resolve.required);
    let service = &read.peers[1];
    assert_eq!(service.address, "_http._tcp.app.test");
    assert!(service.srv && service.backup && service.is_name());
    let file = read.peers_file.as_ref().unwrap();
    assert!(file.ends_with("more.peers") && file.is_absolute());
}

#[test]
fn names_that_cannot_be_resolved_so() {
    for (keys, error) in [
        (
            "peers = ['10.0.0.1:80']\nresolve = { family = 'ipv4' }",
            "site.toml:3:11: resolve has no effect: expected a peer that is a name",
        ),
        (
            "peers = ['a:1']\nresolve = { servers = ['dns.test'] }",
            "site.toml:3:24: servers 'dns.test': expected the address of a name server such as \"10.0.0.2\" or \"10.0.0.2:5353\"",
        ),
        (
            "peers = ['a:1']\nresolve = { servers = [] }",
            "site.toml:3:23: servers is empty: expected at least one; without the key, those of the system are asked",
        ),
        (
            "peers = ['a:1']\nresolve = { valid = '1s', max_interval = '1m' }",
            "site.toml:3:42: max_interval '1m': expected no such bound beside `valid`, which counts in the place of what answers say",
        ),
        (
            "peers = ['a:1']\nresolve = { min_interval = '1h' , max_interval = '1m' }",
            "site.toml:3:50: max_interval '1m': expected no less than `min_interval`",
        ),
        (
            "peers = [{ srv = '_http._tcp.a', weight = 2 }]",
            "site.toml:2:43: weight 2: expected none beside `srv`, whose records say it",
        ),
        (
            "peers = [{ srv = 'a b' }]",
            "site.toml:2:18: srv 'a b': expected the name of SRV records such as \"_http._tcp.app.internal\"",
        ),
        (
            "peers = [{ srv = '_http._tcp.a' }]\nbalance = 'target'",
            "site.toml:3:11: balance 'target': expected another policy beside `srv` in peers: its records say whom clients would reach",
        ),
        (
            "peers_file = 'a.peers'\nbalance = 'target'",
            "site.toml:3:11: balance 'target': expected another policy beside `peers_file` or `peers_url`, which would say whom clients reach",
        ),
    ] {
        refused(&upstream(keys), error);
    }
}

#[test]
fn peers_may_be_at_a_url() {
    let url = |text: &str| {
        let config = good(&upstream(&format!("peers_url = {text}")));
        config.upstreams["a"].peers_url.clone().unwrap()
    };
    let plain = url("'http://Registry.test?of=a'");
    assert_eq!(plain.authority, "registry.test:80");
    assert_eq!(plain.target, "/?of=a");
    assert_eq!(plain.interval, Duration::from_secs(10));
    assert_eq!(plain.timeout, Duration::from_secs(5));
    assert!(plain.tls.is_none() && plain.headers.is_empty());
    let full = url(
        "{ url = 'https://[::1]:8443/a/b', interval = '1m', timeout = '1s', \
         headers = { Authorization = 'Bearer 1' }, tls = { verify = false } }",
    );
    assert_eq!(full.authority, "[::1]:8443");
    assert_eq!(full.target, "/a/b");
    assert_eq!(full.headers[0].0, "authorization");
    assert!(!format!("{full:?}").contains("Bearer"), "never shown");
    assert!(!full.tls.unwrap().verify && full.system_roots.is_empty());
    let by_system = url("'https://registry.test/'");
    assert_eq!(by_system.authority, "registry.test:443");
    assert!(!by_system.system_roots.is_empty());
}

#[test]
fn urls_of_peers_that_are_none() {
    let rule = "expected a URL such as \"https://registry.internal/peers/app\": http or https, a host, and a port if it is another";
    for text in [
        "",
        "registry.test/a",
        "ftp://registry.test/",
        "http://registry.test:/",
        "http://registry.test:0/",
        "http://registry.test:70000/",
        "http://a b/",
        "http:///a",
        "https://*.test/",
    ] {
        let at = format!("site.toml:2:13: peers_url '{text}': {rule}");
        refused(&upstream(&format!("peers_url = '{text}'")), &at);
    }
    for (keys, error) in [
        (
            "peers_url = 'http://me:hidden@registry.test/'",
            "site.toml:2:13: peers_url: expected a URL without a user: a password goes in headers = { authorization = \"Basic …\" }",
        ),
        (
            "peers_url = 'http://registry.test/#a'",
            "site.toml:2:13: peers_url 'http://registry.test/#a': expected a URL without a fragment, which no server would see",
        ),
        (
            "peers_url = 7",
            &*format!("site.toml:2:13: peers_url 7: {rule}"),
        ),
        (
            "peers_url = {}",
            &*format!("site.toml:2:13: missing key \"url\": {rule}"),
        ),
        (
            "peers_url = { url = 'http://a/', interval = '500ms' }",
            "site.toml:2:45: interval '500ms': expected 1s to 1h",
        ),
        (
            "peers_url = { url = 'http://a/', timeout = '1m' }",
            "site.toml:2:44: timeout '1m': expected 10ms to 15s",
        ),
        (
            "peers_url = { url = 'http://a/', tls = { verify = false } }",
            "site.toml:2:40: tls a table: expected none beside an http URL: `url` is to begin with https://",
        ),
        (
            "peers_url = { url = 'http://a/', headers = { Host = 'b' } }",
            "site.toml:2:46: header \"Host\": expected a field's name",
        ),
        (
            "peers_url = { url = 'http://a/', uri = 1 }",
            "site.toml:2:34: unknown key \"uri\": did you mean \"url\"?",
        ),
        (
            "peers_url = 'http://a/'\nbalance = 'target'",
            "site.toml:3:11: balance 'target': expected another policy beside `peers_file` or `peers_url`, which would say whom clients reach",
        ),
    ] {
        refused(&upstream(keys), error);
    }
}

#[test]
fn peers_of_lists_may_have_zones_and_routes() {
    let keys = "zone = 'a'\nsticky = { route = '$cookie_route' }";
    for list in ["peers_file = 'a.peers'", "peers_url = 'http://a/'"] {
        let config = good(&upstream(&format!("{list}\n{keys}")));
        assert_eq!(config.upstreams["a"].zone.as_deref(), Some("a"));
        assert!(config.upstreams["a"].sticky.is_some());
    }
}
