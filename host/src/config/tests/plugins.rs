//! Plugins in the config: their limits, and how lists name them.

use std::time::Duration;

use super::*;

const PLUGIN: &str = "[plugins.a]\nwasm = 'p.wasm'\n";

#[test]
fn every_limit_is_read() {
    let keys = "
        memory = '1MiB'
        cpu = '20ms'
        instances = 7
        instance_reserve = 2
        configure_cpu = '4s'
        instance_calls = 8
        instance_queue = 0
        instance_wait = '2s'
        table = 9
        body = '2KiB'
        calls = 3
        host_calls = 1000
        request_cpu = '3s'
        headers = 4
        header_bytes = 300
        variables = 5
        variable_bytes = 400
        state = 100
        permits = 8
        emit = 3000
        after_response = '9s'
        after_response_active = 10
        after_response_queue = 0
        log_lines = 6
        metric_series = 7
    ";
    let config = good(&format!("{PLUGIN}[plugins.a.limits]{keys}"));
    let limits = PluginLimits {
        memory_bytes: 1 << 20,
        cpu: Duration::from_millis(20),
        request_cpu: Some(Duration::from_secs(3)),
        instances: 7,
        instance_reserve: 2,
        configure_cpu: Duration::from_secs(4),
        instance_calls: 8,
        instance_queue: 0,
        instance_wait: Duration::from_secs(2),
        table_elements: 9,
        body_bytes: 2048,
        calls: 3,
        host_calls: 1000,
        headers: 4,
        header_bytes: 300,
        variables: 5,
        variable_bytes: 400,
        state_bytes: 100,
        permits: 8,
        emit_bytes: 3000,
        after_response: Duration::from_secs(9),
        after_response_active: 10,
        after_response_queue: 0,
        log_lines: 6,
        metric_series: 7,
    };
    assert_eq!(config.plugins["a"].limits, limits);
}

#[test]
fn a_limit_beyond_its_range_is_refused() {
    for (line, error) in [
        (
            "host_calls = 10",
            "host_calls 10: expected 100 to 1000000000",
        ),
        (
            "instance_reserve = 101",
            "instance_reserve 101: expected 0 to 100",
        ),
        (
            "configure_cpu = '0s'",
            "configure_cpu '0s': expected 1ms to 1m",
        ),
        (
            "after_response = '2h'",
            "after_response '2h': expected 1ms to 1h",
        ),
        (
            "after_response_active = 0",
            "after_response_active 0: expected 1 to 4096",
        ),
        (
            "after_response_queue = 100001",
            "after_response_queue 100001: expected 0 to 100000",
        ),
        ("emit = 1023", "emit 1023: expected 1KiB to 1TiB"),
        ("log_lines = 0", "log_lines 0: expected 1 to 1000000"),
        ("headers = 0", "headers 0: expected 1 to 10000"),
        (
            "header_bytes = '2MiB'",
            "header_bytes '2MiB': expected 256 to 1MiB",
        ),
        ("variables = 0", "variables 0: expected 1 to 10000"),
        ("table = 100001", "table 100001: expected 1 to 100000"),
        (
            "instance_wait = '0s'",
            "instance_wait '0s': expected 1ms to 1m",
        ),
        (
            "instance_queue = 100001",
            "instance_queue 100001: expected 0 to 100000",
        ),
    ] {
        let config = format!("{PLUGIN}[plugins.a.limits]\n{line}\n");
        let column = line.find(" = ").unwrap() + 4;
        refused(&config, &format!("site.toml:4:{column}: {error}"));
    }
    refused(
        "[workers]\nplugin_stack = '16KiB'\n",
        "site.toml:2:16: plugin_stack '16KiB': expected 64KiB to 8MiB",
    );
}

#[test]
fn the_documented_limits_are_the_defaults() {
    let documented = include_str!("../../../../conf/castling.toml");
    let (_, table) = documented
        .split_once("#[plugins.token-auth.limits]")
        .unwrap();
    let keys: String = table
        .lines()
        .skip(1)
        .map_while(|line| line.strip_prefix('#'))
        .map(|line| format!("{line}\n"))
        .collect();
    let config = good(&format!("{PLUGIN}[plugins.a.limits]\n{keys}"));
    assert_eq!(config.plugins["a"].limits, PluginLimits::default());
    // None was left out.
    let fields = serde_json::to_value(PluginLimits::default()).unwrap();
    let settings = keys.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(settings.count(), fields.as_object().unwrap().len());
}

#[test]
fn a_list_may_say_on_error_for_itself() {
    let route = "[[routes]]\nplugins = ['a', { name = 'b', on_error = 'skip' }, { name = 'c' }]\n";
    let plugins: String = ["a", "b", "c"]
        .map(|name| format!("[plugins.{name}]\nwasm = 'p.wasm'\n"))
        .concat();
    let listed = |name: &str, on_error| PluginUse {
        name: name.to_owned(),
        on_error,
        config: None,
    };
    let config = good(&format!("{plugins}{route}"));
    assert_eq!(
        config.routes[0].plugins,
        [
            listed("a", None),
            listed("b", Some(OnError::Skip)),
            listed("c", None)
        ]
    );
    for (list, error) in [
        (
            "['a', 5]",
            "4:17: plugins 5: expected the name of a plugin or { name = \"NAME\", on_error = \"skip\", config = { … } }",
        ),
        (
            "[{ on_error = 'skip' }]",
            "4:12: missing key \"name\": expected the name of a plugin",
        ),
        (
            "[{ name = 'a', on_error = 'stop' }]",
            "4:37: on_error 'stop': expected \"deny\" or \"skip\"",
        ),
        (
            "[{ name = 'a', onerror = 'skip' }]",
            "4:26: unknown key \"onerror\": did you mean \"on_error\"?",
        ),
        (
            "['a', { name = 'a', on_error = 'skip' }]",
            "4:17: plugin \"a\" is already in the list",
        ),
        (
            "[{ name = 'nobody' }]",
            "4:21: unknown plugin \"nobody\": expected \"a\"",
        ),
    ] {
        let config = format!("{PLUGIN}[[routes]]\nplugins = {list}\n");
        refused(&config, &format!("site.toml:{error}"));
    }
}

#[test]
fn a_list_may_have_a_config_of_its_own() {
    let text = "[plugins.a]\nwasm = 'p.wasm'\nconfig = { x = 1 }\n[[routes]]\nplugins = ['a']\n[[routes]]\npath = '/b'\n\
                plugins = [{ name = 'a', config = { y = [2,\n 'z'] } }]\n[[routes]]\npath = '/c'\n\
                plugins = [{ name = 'a', config = { y = [2, 'z'] }, on_error = 'skip' }]\n";
    let config = good(text);
    assert_eq!(config.routes[0].plugins[0].config, None);
    let of_use = config.routes[1].plugins[0].config.as_ref().unwrap();
    assert_eq!(of_use.text, r#"{"y":[2,"z"]}"#);
    assert!(of_use.place.ends_with(":8:12"), "{}", of_use.place);
    assert!(of_use.places["y[1]"].ends_with(":9:2"));
    // Pools are told apart by their configs: the same twice is one.
    assert_eq!(config.configs_of_uses("a").len(), 1);
    assert!(config.uses_own_config("a"));
    let alone = good(&text.replace("plugins = ['a']", "plugins = []"));
    assert!(!alone.uses_own_config("a"));
    let with_it = alone.plugins["a"].with_config(of_use);
    let place = config_place(&with_it, "config.y[0]");
    assert!(place.ends_with(":8:42"), "{place}");
    for (list, error) in [
        (
            "[{ name = 'a', config = 5 }]",
            "site.toml:4:35: config 5: expected a table",
        ),
        (
            "[{ name = 'a', confg = {} }]",
            "site.toml:4:26: unknown key \"confg\": did you mean \"config\"?",
        ),
    ] {
        let text = format!("[plugins.a]\nwasm = 'p.wasm'\n[[routes]]\nplugins = {list}\n");
        refused(&text, error);
    }
}
