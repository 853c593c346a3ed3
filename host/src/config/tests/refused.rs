//! Bad input: one test a kind, with the exact line that the operator gets.

use super::*;

#[test]
fn text_that_is_not_toml() {
    refused(
        "[log\nlevel = 'info'",
        "site.toml:1:5: TOML: unclosed table, expected `]`",
    );
    refused(
        "log = ",
        "site.toml:1:7: TOML: string values must be quoted, expected literal string",
    );
    let site = Site::new("").file("site.toml", b"# \xc3\xa4\n# \xff");
    assert_eq!(site.errors(), ["site.toml:2:3: not UTF-8"]);
}

#[test]
fn a_key_twice_names_both_places() {
    let config = "[plugins.a]\nwasm = 'p.wasm'\n[plugins.b]\nwasm = 'p.wasm'\n [plugins.a]\n";
    refused(config, "site.toml:5:11: already defined at site.toml:1:1");
    refused(
        "[workers]\ncount = 1\ncount = 2\n",
        "site.toml:3:1: already defined at site.toml:2:1",
    );
}

#[test]
fn unknown_keys() {
    refused(
        "[workers]\ncuont = 3",
        "site.toml:2:1: unknown key \"cuont\": did you mean \"count\"?",
    );
    refused(
        "[log]\nzebra = 3",
        "site.toml:2:1: unknown key \"zebra\": expected \"level\", \"format\" or \"file\"",
    );
    refused(
        "[wrokers]\n",
        "site.toml:1:2: unknown key \"wrokers\": did you mean \"workers\"?",
    );
    refused(
        "[plugins.a]\nwasm = 'p.wasm'\nlimits = { cpus = '1s' }",
        "site.toml:3:12: unknown key \"cpus\": did you mean \"cpu\"?",
    );
}

#[test]
fn wrong_types() {
    refused(
        "[workers]\ncount = '3'",
        "site.toml:2:9: count '3': expected \"auto\" or 1 to 512",
    );
    refused("log = 5", "site.toml:1:7: log 5: expected a table");
    refused(
        "[[plugins]]",
        "site.toml:1:1: plugins a list: expected a table",
    );
    refused(
        "[log]\nfile = true",
        "site.toml:2:8: file true: expected a path",
    );
    refused(
        "[log]\nlevel = 'loud'",
        "site.toml:2:9: level 'loud': expected \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
    );
    refused(
        "include = 'x.toml'",
        "site.toml:1:11: include 'x.toml': expected a list",
    );
    refused(
        "[plugins.a]\nwasm = 'p.wasm'\nconfig = 5",
        "site.toml:3:10: config 5: expected a table",
    );
}

#[test]
fn units_and_ranges() {
    refused(
        "[workers]\ncount = 513",
        "site.toml:2:9: count 513: expected 1 to 512",
    );
    refused(
        "[workers]\ndrain_timeout = 5",
        "site.toml:2:17: drain_timeout 5: expected a duration such as \"5s\" or \"250ms\", 1ms to 30days",
    );
    refused(
        "[workers]\nmax_draining_generations = 0",
        "site.toml:2:28: max_draining_generations 0: expected 1 to 1000",
    );
    refused(
        "[workers]\nwhen_draining_full = 'drop'",
        "site.toml:2:22: when_draining_full 'drop': expected \"wait\" or \"end_oldest\"",
    );
    refused(
        "[workers]\ndrain_timeout = '0s'",
        "site.toml:2:17: drain_timeout '0s': expected 1ms to 30days",
    );
    refused(
        "[access_log]\nflush = '2m'",
        "site.toml:2:9: flush '2m': expected 0s to 1m",
    );
    let plugin = "[plugins.a]\nwasm = 'p.wasm'\n";
    refused(
        &format!("{plugin}limits.memory = '65MiB'"),
        "site.toml:3:17: memory '65MiB': expected 64KiB to 64MiB",
    );
    refused(
        &format!("{plugin}limits.memory = 'big'"),
        "site.toml:3:17: memory 'big': expected a size such as \"16MiB\" or \"64KiB\", 64KiB to 64MiB",
    );
    refused(
        &format!("{plugin}limits.request_cpu = '2h'"),
        "site.toml:3:22: request_cpu '2h': expected 0s to 1h",
    );
    refused(
        &format!("{plugin}limits.instances = 99999999999999999999999999999999999999999"),
        "site.toml:3:20: instances 99999999999999999999999999999999999999999: expected 1 to 4096",
    );
}

#[test]
fn metrics() {
    refused(
        "[metrics]\nmax_series = 255",
        "site.toml:2:14: max_series 255: expected 256 to 262144",
    );
    refused(
        "[metrics]\nsize = '1MiB'",
        "site.toml:2:1: unknown key \"size\": expected \"max_series\"",
    );
    refused(
        "[plugins.a]\nwasm = 'p.wasm'\nlimits.metric_series = -1",
        "site.toml:3:24: metric_series -1: expected 0 to 262144",
    );
    let listener = "[listeners.web]\nbind = '127.0.0.1:8080'\n";
    let upstream = "[upstreams.app]\npeers = ['127.0.0.1:9001']\n";
    let route = |keys: &str| Site::new(&format!("[[routes]]\n{keys}\n{listener}{upstream}"));
    assert_eq!(
        route("upstream = 'app'\nmetrics = true").errors(),
        ["site.toml:3:11: metrics and an upstream: expected one of them"]
    );
    assert_eq!(
        route("metrics = 'yes'").errors(),
        ["site.toml:2:11: metrics 'yes': expected true or false"]
    );
    assert!(route("upstream = 'app'\nmetrics = false").load().is_ok());
}

#[test]
fn missing_files() {
    let site = Site::new("");
    fs::remove_file(site.path("site.toml")).unwrap();
    assert_eq!(
        site.errors(),
        ["site.toml: cannot be read: No such file or directory (os error 2)"]
    );
    refused(
        "[plugins.a]\nwasm = 'q.wasm'",
        "site.toml:2:8: module q.wasm cannot be read: No such file or directory (os error 2)",
    );
    let site = Site::new(&format!("[plugins.a]\nwasm = 'folder'{REST}")).file("folder/x", "");
    assert_eq!(
        site.errors(),
        ["site.toml:2:8: module folder cannot be read: it is not a regular file"]
    );
    refused(
        "[plugins.a]\n",
        "site.toml:1:1: missing key \"wasm\": expected the path of a module",
    );
}

#[test]
fn listeners_and_routes_must_be_there() {
    let errors = Site::new("").errors();
    assert_eq!(
        errors,
        [
            "site.toml:1:1: no listener: expected at least one [listeners.NAME]",
            "site.toml:1:1: no route: expected at least one [[routes]]"
        ]
    );
}

#[test]
fn names_are_checked() {
    refused(
        "[upstreams.'a b']\npeers = ['a:1']",
        "site.toml:1:12: upstream \"a b\": expected a name, 1 to 64 of A-Z a-z 0-9 _ . -",
    );
    refused(
        "[[routes]]\nname = ''",
        "site.toml:2:8: name '': expected 1 to 64 of A-Z a-z 0-9 _ . -",
    );
    refused(
        "[[routes]]\nname = 'a'\n[[routes]]\nname = 'a'",
        "site.toml:4:8: route \"a\" is already defined at site.toml:2:8",
    );
}

#[test]
fn unknown_names() {
    refused(
        "[[routes]]\nupstream = 'ap'",
        "site.toml:2:12: unknown upstream \"ap\": did you mean \"app\"?",
    );
    refused(
        "[[routes]]\nupstream = 'zebra'",
        "site.toml:2:12: unknown upstream \"zebra\": expected \"app\"",
    );
    refused(
        "[[routes]]\nplugins = [\n 'auth']",
        "site.toml:3:2: unknown plugin \"auth\": no plugin is defined",
    );
    refused(
        "[[routes]]\nlisteners = ['wed']",
        "site.toml:2:14: unknown listener \"wed\": did you mean \"web\"?",
    );
    refused(
        "[upstreams.b]\npeers = ['a:1']\nbalance = { plugin = 'x' }",
        "site.toml:3:22: unknown plugin \"x\": no plugin is defined",
    );
}

#[test]
fn upstreams() {
    let upstream = |rest: &str| format!("[upstreams.b]\n{rest}");
    refused(
        &upstream(""),
        "site.toml:1:1: missing key \"peers\": expected a list of HOST:PORT",
    );
    refused(
        &upstream("peers = []"),
        "site.toml:2:9: peers is empty: expected at least one HOST:PORT",
    );
    refused(
        &upstream("peers = [{ address = 'a:1', weight = 0 }]"),
        "site.toml:2:38: weight 0: expected 1 to 65535",
    );
    refused(
        &upstream("peers = [{ address = 'a:1', weight = 65536 }]"),
        "site.toml:2:38: weight 65536: expected 1 to 65535",
    );
    refused(
        &upstream("peers = [{ weight = 1 }]"),
        "site.toml:2:10: missing key \"address\": expected HOST:PORT",
    );
    refused(
        &upstream("peers = ['a:1', 'A:1']"),
        "site.toml:2:17: peer \"a:1\" is already in the list: expected one with a weight",
    );
    refused(
        &upstream("peers = ['a:1']\nbalance = 'rundom'"),
        "site.toml:3:11: balance 'rundom': expected \"round_robin\", \"least_conn\", \"least_time\", \"random\", \"ewma\", \"ip_hash\", \"target\", { hash = \"$http_x_user\" } or { plugin = \"NAME\" }",
    );
    refused(
        &upstream("peers = ['a:1']\nhost = 'a b'"),
        "site.toml:3:8: host 'a b': expected \"client\", \"peer\" or a host name",
    );
    for bad in [
        "a",
        "a:",
        "a:0",
        "a:65536",
        "a:+1",
        ":80",
        "::1:80",
        "[::1]",
        "[a]:80",
        "a b:80",
        "http://a:80",
        "1.2.3:80",
        "ä:80",
        "-a:80",
        "unix:",
    ] {
        let rule = "HOST:PORT such as \"10.0.0.1:8080\", \"app.internal:80\" or \"[::1]:8080\", or \"unix:PATH\"";
        refused(
            &upstream(&format!("peers = ['{bad}']")),
            &format!("site.toml:2:10: peers '{bad}': expected {rule}"),
        );
    }
}

#[test]
fn connections_to_peers() {
    let upstream = |rest: &str| format!("[upstreams.b]\npeers = ['10.0.0.1:1']\n{rest}");
    let rule = "an address of this host such as \"10.0.0.5\", or a list of one for each family";
    for (given, shown) in [
        ("'a'", "'a'"),
        ("'10.0.0.5:80'", "'10.0.0.5:80'"),
        ("'0.0.0.0'", "'0.0.0.0'"),
        ("'ff02::1'", "'ff02::1'"),
        ("[]", "a list"),
        ("5", "5"),
    ] {
        refused(
            &upstream(&format!("source_address = {given}")),
            &format!("site.toml:3:18: source_address {shown}: expected {rule}"),
        );
    }
    for (given, why) in [
        (
            "['10.0.0.5', '10.0.0.6']",
            "source_address has 2 addresses of IPv4: expected one",
        ),
        (
            "'2001:db8::5'",
            "source_address has no address of IPv4, which peer \"10.0.0.1:1\" is of",
        ),
    ] {
        refused(
            &upstream(&format!("source_address = {given}")),
            &format!("site.toml:3:18: {why}"),
        );
    }
    for (key, column) in [
        ("source_address = '10.0.0.5'", 18),
        ("tcp_keepalive = true", 17),
    ] {
        refused(
            &format!("[upstreams.b]\npeers = ['unix:/a']\n{key}"),
            &format!(
                "site.toml:3:{column}: peers are all Unix sockets: expected no options of TCP"
            ),
        );
    }
    for (given, why) in [
        (
            "max_requests = 0",
            "30: max_requests 0: expected 1 to 4294967295",
        ),
        ("min_idle = 1025", "26: min_idle 1025: expected 0 to 1024"),
        (
            "connections = 3, min_idle = 4",
            "43: min_idle 4: expected as many for 1 peers as fit into connections = 3",
        ),
        ("max_age = '0s'", "25: max_age '0s': expected 1ms to 30days"),
    ] {
        refused(
            &upstream(&format!("keepalive = {{ {given} }}")),
            &format!("site.toml:3:{why}"),
        );
    }
}

#[test]
fn no_connection_is_ready_for_anybody_behind_proxy_headers() {
    refused(
        "[upstreams.b]\npeers = ['a:1']\nproxy_protocol = 'v1'\nkeepalive.min_idle = 2",
        "site.toml:4:22: min_idle 2: expected 0: with `proxy_protocol`, a connection is for one client alone",
    );
}

#[test]
fn unix_sockets_as_peers() {
    let upstream = |rest: &str| format!("[upstreams.b]\n{rest}");
    let long = "x".repeat(107);
    refused(
        &upstream(&format!("peers = ['unix:/{long}']")),
        &format!(
            "site.toml:2:10: peers: the path /{long} has 108 bytes: expected 107 at most for a Unix socket"
        ),
    );
    refused(
        &upstream("peers = ['unix:/a', 'unix:/./a']"),
        "site.toml:2:21: peer \"unix:/a\" is already in the list: expected one with a weight",
    );
    refused(
        &upstream("peers = ['a:1', 'unix:/a']\nbalance = 'target'"),
        "site.toml:3:11: balance 'target': expected another policy beside \"unix:PATH\" in peers, which no request's host names",
    );
}

#[test]
fn routes() {
    for bad in [
        "", "api", "/a?b", "/a#b", "/a//b", "//", "/./a", "/a/..", "/a b", "/ä",
    ] {
        let rule =
            "a path that begins with /, without ?, #, spaces and empty, \".\" or \"..\" segments";
        refused(
            &format!("[[routes]]\npath = '{bad}'"),
            &format!("site.toml:2:8: path '{bad}': expected {rule}"),
        );
    }
    for bad in [
        "*",
        "*.",
        "a.*.b",
        "a:80",
        "a..b",
        ".a",
        "::1",
        "",
        "bücher.example",
    ] {
        let rule = "a host such as \"example.com\" or \"*.example.com\", without a port";
        refused(
            &format!("[[routes]]\nhosts = ['{bad}']"),
            &format!("site.toml:2:10: hosts '{bad}': expected {rule}"),
        );
    }
    refused(
        "[[routes]]\nhosts = ['a', 'A']",
        "site.toml:2:15: hosts 'A' is already in the list",
    );
    refused(
        "[[routes]]\npath = '/api/*'",
        "site.toml:2:8: path \"/api/*\": * is no wildcard here: a path is a prefix of whole segments, \"/api\" matches \"/api/x\" (%2A means the character)",
    );
    assert_eq!(
        good("[[routes]]\npath = '/%2A'\n").routes[0].path,
        PathMatch::Prefix("/%2A".to_owned())
    );
    refused(
        "[[routes]]\nmethods = ['get']",
        "site.toml:2:12: methods 'get': expected \"GET\", methods are case-sensitive",
    );
    refused(
        "[[routes]]\nmethods = ['G T']",
        "site.toml:2:12: methods 'G T': expected a method such as \"GET\"",
    );
    refused(
        "[[routes]]\nheaders = { 'a b' = true }",
        "site.toml:2:13: header \"a b\": expected a header's name",
    );
    refused(
        "[[routes]]\nheaders = { a = 5 }",
        "site.toml:2:17: a 5: expected a header's value, a list of such, { regex = \"...\" }, or true (present) or false (absent)",
    );
    refused(
        "[[routes]]\nheaders = { a = 'x', A = 'y' }",
        "site.toml:2:22: header \"a\" is already in the table",
    );
}

#[test]
fn access_log_formats() {
    let rule =
        "\"combined\", \"json\", one line with $variables or { json = { key = \"$variable\" } }";
    refused(
        "[access_log]\nformat = 'jsno'",
        &format!("site.toml:2:10: format 'jsno': expected {rule}"),
    );
    refused(
        "[access_log]\nformat = \"$a\\n\"",
        &format!("site.toml:2:10: format \"$a\\n\": expected {rule}"),
    );
    refused(
        "[access_log]\nformat = { json = {} }",
        "site.toml:2:19: json a table: expected at least one key",
    );
    let config = good("[access_log]\nfile = 'off'\nformat = '$status'\n");
    assert_eq!(config.access_log.target, AccessLogTarget::Off);
    assert_eq!(
        config.access_log.format,
        AccessLogFormat::Text("$status".to_owned())
    );
    assert!(
        matches!(good("[access_log]\nformat = 'json'\n").access_log.format, AccessLogFormat::Json(fields) if fields.len() == 17)
    );
}

#[test]
fn plugin_configs_that_json_cannot_hold() {
    let plugin =
        |config: &str| format!("[plugins.a]\nwasm = 'p.wasm'\nconfig = {{ x = [{config}] }}");
    refused(
        &plugin("nan"),
        "site.toml:3:17: config: expected a finite number, plugins get their config as JSON",
    );
    refused(
        &plugin("18446744073709551616"),
        "site.toml:3:17: config: expected an integer of at most 64 bits",
    );
    assert_eq!(
        good(&plugin("18446744073709551615, 0x10")).plugins["a"].config,
        r#"{"x":[18446744073709551615,16]}"#
    );
    let deep = format!("{}{}", "[".repeat(70), "]".repeat(70));
    let error =
        "site.toml:3:77: nested too deep: expected at most 64 tables and lists within one another";
    refused(&plugin(&deep), error);
}

#[test]
fn all_errors_come_at_once_in_the_order_of_the_file() {
    let config = "[workers]\ncount = 0\nnone = 1\n[plugins.a]\n[[routes]]\nupstream = 'b'\nplugins = ['c', 'a']\npath = ''\n";
    let errors = Site::new(&format!("{config}{REST}")).errors();
    let places: Vec<_> = errors
        .iter()
        .map(|error| error.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        places,
        [
            "site.toml:2:9",
            "site.toml:3:1",
            "site.toml:4:1",
            "site.toml:6:12",
            "site.toml:7:12",
            "site.toml:8:8"
        ]
    );
}

#[test]
fn what_workers_cannot_be() {
    let workers = |keys: &str, error: &str| refused(&format!("[workers]\n{keys}\n"), error);
    workers(
        "user = 'nobody-of-this-name'",
        "site.toml:2:8: user 'nobody-of-this-name': expected a user of this system",
    );
    workers(
        "user = []",
        "site.toml:2:8: user a list: expected a user's name or number",
    );
    workers(
        "user = 4294967295",
        "site.toml:2:8: user 4294967295: expected 0 to 4294967294",
    );
    workers(
        "user = 4294967294",
        "site.toml:2:8: user 4294967294: this number is no user of this system: expected `group` beside it",
    );
    workers(
        "user = 0\ngroup = 'no-such-group'",
        "site.toml:3:9: group 'no-such-group': expected a group of this system",
    );
    workers(
        "group = 0",
        "site.toml:2:9: group 0: expected a `user` beside it: the group is that of the workers' user",
    );
    workers(
        "pin = 'all'",
        "site.toml:2:7: pin 'all': expected true, false or a list of cores such as [0, 2]",
    );
    workers(
        "pin = [1024]",
        "site.toml:2:8: pin 1024: expected 0 to 1023",
    );
    workers(
        "seccomp = 1",
        "site.toml:2:11: seccomp 1: expected true or false",
    );
    workers(
        "max_open_files = 63",
        "site.toml:2:18: max_open_files 63: expected 64 to 1073741816",
    );
    workers(
        "heartbeat_timeout = '99ms'",
        "site.toml:2:21: heartbeat_timeout '99ms': expected \"0s\" for none, or 100 ms to 1 h",
    );
    workers(
        "heartbeat_timeout = '2h'",
        "site.toml:2:21: heartbeat_timeout '2h': expected 0s to 1h",
    );
}
