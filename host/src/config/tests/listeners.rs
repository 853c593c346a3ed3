//! Refusals of `[listeners.NAME]`.

use super::*;

#[test]
fn listeners_have_an_address_of_their_own() {
    refused(
        "[listeners.a]\n",
        "site.toml:1:1: missing key \"bind\": expected ADDRESS:PORT such as \"127.0.0.1:8080\" or \"[::]:8080\", or \"unix:PATH\"",
    );
    refused(
        "[listeners.a]\nbind = 'localhost:80'",
        "site.toml:2:8: bind 'localhost:80': expected ADDRESS:PORT such as \"127.0.0.1:8080\" or \"[::]:8080\", or \"unix:PATH\"",
    );
    refused(
        "[listeners.a]\nbind = '127.0.0.1:8080'",
        "site.toml:4:8: bind \"127.0.0.1:8080\" is already bound at site.toml:2:8",
    );
    refused(
        "[listeners.a]\nbind = '[::ffff:127.0.0.1]:8080'",
        "site.toml:4:8: bind \"127.0.0.1:8080\" is already bound at site.toml:2:8",
    );
    refused(
        "[listeners.a]\nbind = '127.0.0.1:1'\naccept = 'mine'",
        "site.toml:3:10: accept 'mine': expected \"per_worker\" or \"shared\"",
    );
}

#[test]
fn socket_options() {
    let tcp = |line: &str| format!("[listeners.a]\nbind = '127.0.0.1:1'\n{line}");
    let unix = |line: &str| format!("[listeners.a]\nbind = 'unix:/a'\n{line}");
    for (config, error) in [
        (
            tcp("ipv6_only = false"),
            "3:13: ipv6_only is for bind = an IPv6 address: expected none here",
        ),
        (
            unix("nodelay = false"),
            "3:11: nodelay is for bind = TCP: expected none here",
        ),
        (
            unix("tcp_keepalive = true"),
            "3:17: tcp_keepalive is for bind = TCP: expected none here",
        ),
        (
            unix("defer_accept = '1s'"),
            "3:16: defer_accept is for bind = TCP: expected none here",
        ),
        (
            unix("max_connections_per_address = 1"),
            "3:31: max_connections_per_address is for bind = TCP: expected none here",
        ),
        (
            tcp("max_connections_per_address = 0"),
            "3:31: max_connections_per_address 0: expected 1 to 1000000",
        ),
        (
            tcp("nodelay = 1"),
            "3:11: nodelay 1: expected true or false",
        ),
        (
            tcp("tcp_keepalive = '60s'"),
            "3:17: tcp_keepalive '60s': expected true, false or { idle = \"60s\", interval = \"10s\", count = 5 }",
        ),
        (
            tcp("tcp_keepalive = { idle = '1500ms' }"),
            "3:26: idle '1500ms': expected whole seconds",
        ),
        (
            tcp("tcp_keepalive = { idle = '10h' }"),
            "3:26: idle '10h': expected 1s to 9h 6m 7s",
        ),
        (
            tcp("tcp_keepalive = { count = 128 }"),
            "3:27: count 128: expected 1 to 127",
        ),
        (
            tcp("tcp_keepalive = { every = '1s' }"),
            "3:19: unknown key \"every\": expected \"idle\", \"interval\" or \"count\"",
        ),
        (
            tcp("defer_accept = '6m'"),
            "3:16: defer_accept '6m': expected 0s to 5m",
        ),
        (
            "[listeners.a]\nbind = '[::]:1'\nipv6_only = false\n[listeners.b]\nbind = '0.0.0.0:1'"
                .to_owned(),
            "5:8: bind \"0.0.0.0:1\" is already bound by \"[::]:1\" with ipv6_only = false",
        ),
    ] {
        refused(&config, &format!("site.toml:{error}"));
    }
}

#[test]
fn unix_sockets() {
    refused(
        "[listeners.a]\nbind = 'unix:'",
        "site.toml:2:8: bind 'unix:': expected ADDRESS:PORT such as \"127.0.0.1:8080\" or \"[::]:8080\", or \"unix:PATH\"",
    );
    let long = "x".repeat(120);
    refused(
        &format!("[listeners.a]\nbind = 'unix:/{long}'"),
        &format!(
            "site.toml:2:8: bind: the path /{long} has 121 bytes: expected 107 at most for a Unix socket"
        ),
    );
    refused(
        "[listeners.a]\nbind = 'unix:/a'\n[listeners.b]\nbind = 'unix:/./a'",
        "site.toml:4:8: bind \"unix:/a\" is already bound at site.toml:2:8",
    );
    refused(
        "[listeners.a]\nbind = 'unix:/a'\naccept = 'per_worker'",
        "site.toml:3:10: accept 'per_worker': expected \"shared\": a Unix socket is one for all workers",
    );
    refused(
        "[listeners.a]\nbind = 'unix:/a'\nmode = '0o660'",
        "site.toml:3:8: mode '0o660': expected permissions in octal such as \"0660\"",
    );
    refused(
        "[listeners.a]\nbind = 'unix:/a'\nmode = 660",
        "site.toml:3:8: mode 660: expected permissions in octal such as \"0660\"",
    );
    refused(
        "[listeners.a]\nbind = '127.0.0.1:1'\nmode = '0660'",
        "site.toml:3:8: mode is for bind = \"unix:PATH\": expected none here",
    );
}

#[test]
fn proxies_in_front_are_networks() {
    let with =
        |value: &str| format!("[listeners.a]\nbind = '127.0.0.1:1'\nproxy_protocol = {value}");
    let rule = "expected a network such as \"10.0.0.0/8\", an address, or \"unix\"";
    for (value, error) in [
        (
            "true",
            "3:18: proxy_protocol true: expected { from = [\"10.0.0.0/8\"] }".to_owned(),
        ),
        (
            "{}",
            "3:18: missing key \"from\": expected a list of networks".to_owned(),
        ),
        (
            "{ from = [] }",
            "3:27: from a list: expected at least one network".to_owned(),
        ),
        (
            "{ from = ['10.0.0.0/33'] }",
            format!("3:28: from '10.0.0.0/33': {rule}"),
        ),
        (
            "{ from = ['10.0.0.1/8'] }",
            "3:28: from '10.0.0.1/8': expected \"10.0.0.0/8\", which are the same addresses"
                .to_owned(),
        ),
        (
            "{ from = ['unix', 'unix'] }",
            "3:36: from 'unix' is already in the list".to_owned(),
        ),
        (
            "{ from = ['::1'], others = 'ask' }",
            "3:45: others 'ask': expected \"refuse\" or \"serve\"".to_owned(),
        ),
    ] {
        refused(&with(value), &format!("site.toml:{error}"));
    }
    let config = good(&with("{ from = ['::1', 'unix'] }"));
    let proxies = config.listeners["a"].proxy_protocol.as_ref().unwrap();
    assert!(proxies.from.contain(None) && proxies.from.contain("::1".parse().ok()));
    // Clients of a Unix socket have addresses then.
    good(
        "[listeners.a]\nbind = 'unix:/a'\nproxy_protocol = { from = ['unix'] }\nmax_connections_per_address = 1",
    );
}

#[test]
fn trusted_proxies_and_what_goes_with_them() {
    let with = |lines: &str| format!("[listeners.a]\nbind = '127.0.0.1:1'\n{lines}");
    for (lines, error) in [
        (
            "trusted_proxies = ['10.0.0.1/8']",
            "3:20: trusted_proxies '10.0.0.1/8': expected \"10.0.0.0/8\", which are the same addresses",
        ),
        (
            "client_from = 'forwarded'",
            "3:15: client_from is for listeners with trusted_proxies: expected none here",
        ),
        (
            "trusted_proxies = ['unix']\nclient_from = 'x'",
            "4:15: client_from 'x': expected \"x-forwarded-for\", \"forwarded\" or \"x-real-ip\"",
        ),
        (
            "x_forwarded_for = 'drop'",
            "3:19: x_forwarded_for 'drop': expected \"append\" or \"replace\"",
        ),
        (
            "request_id = 'keep'",
            "3:14: request_id 'keep': expected \"none\" or \"make\" without trusted_proxies",
        ),
        (
            "max_age = '500ms'",
            "3:11: max_age '500ms': expected \"0s\" for none, or 1 s to 30 days",
        ),
        (
            "max_requests = -1",
            "3:16: max_requests -1: expected 0 to 4294967295",
        ),
        (
            "alt_svc = 'é'",
            "3:11: alt_svc 'é': expected a text in ASCII such as 'h3=\":443\"; ma=86400'",
        ),
    ] {
        refused(&with(lines), &format!("site.toml:{error}"));
    }
    good(&with(
        "trusted_proxies = ['unix', '::/0']\nrequest_id = 'keep'\nmax_requests = 0\nmax_age = '1h'",
    ));
}
