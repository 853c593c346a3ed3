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
            "site.toml:3:11: balance 'target': expected another policy beside `peers_file`, which would say whom clients reach",
        ),
    ] {
        refused(&upstream(keys), error);
    }
}
