//! `[plugins.NAME]`.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use castling_abi::rules::limits as default;
use serde_json::Value as Json;

use super::file::open_regular;
use super::granted_file::granted_files;
use super::granted_hosts::granted_hosts;
use super::names::Named;
use super::table::{Table, Value};
use super::tree::{Entry, Node, NodeKind};
use super::{
    Der, Grants, Isolation, MAX_METRIC_SERIES, MAX_PLUGIN_MEMORY_BYTES, MAX_PLUGIN_TABLE_ELEMENTS,
    OnError, OwnRoutes, Plugin, PluginLimits, PluginUse, Quarantine, UseConfig,
};

/// `system_roots`: the system's authorities, which are read for the first that needs them.
pub(super) fn resolve(
    mut table: Table<'_>,
    named: (&Named<'_>, &Named<'_>, &Named<'_>),
    system_roots: &mut Vec<Der>,
) -> Plugin {
    let mut config_places = BTreeMap::new();
    let wasm = table.required("wasm", "the path of a module", module);
    let config = table.optional("config", |value| config(value, &mut config_places));
    let plugin = Plugin {
        wasm: wasm.unwrap_or_default(),
        config: config.unwrap_or_else(|| "{}".to_owned()),
        config_places,
        on_error: table.or("on_error", OnError::Deny, |value| value.choice(&ON_ERROR)),
        limits: table.or("limits", DEFAULT_LIMITS, |value| {
            Some(limits(value.table()?))
        }),
        isolation: table.or("isolation", Isolation::Call, |value| {
            value.choice(&ISOLATION)
        }),
        quarantine: table.or("quarantine", DEFAULT_QUARANTINE, |value| {
            Some(quarantine(value.table()?))
        }),
        timer: table.optional("timer", |value| {
            value.duration(Duration::from_millis(10)..=Duration::from_secs(86_400))
        }),
        grants: table.or("grants", Grants::default(), |value| {
            Some(grants(value.table()?, named, system_roots))
        }),
        place: table.place_text(),
    };
    table.finish();
    plugin
}

/// The list of a listener or a route. A plugin that is listed twice is refused.
pub(super) fn uses(list: Value<'_>, plugins: &Named<'_>) -> Option<Vec<PluginUse>> {
    let items = list.list(|item| Some((item, plugin_use(item, plugins)?)))?;
    let mut names = HashSet::with_capacity(items.len());
    let mut uses: Vec<PluginUse> = Vec::with_capacity(items.len());
    for (item, one) in items {
        match !names.insert(one.name.clone()) {
            true => drop(item.refuse::<()>(format_args!(
                "plugin \"{}\" is already in the list",
                one.name
            ))),
            false => uses.push(one),
        }
    }
    Some(uses)
}

fn plugin_use(value: Value<'_>, plugins: &Named<'_>) -> Option<PluginUse> {
    if let NodeKind::Text(_) = value.kind() {
        return Some(PluginUse {
            name: plugins.reference(value)?,
            on_error: None,
            config: None,
        });
    }
    let NodeKind::Table(_) = value.kind() else {
        return value.expected(
            "the name of a plugin or { name = \"NAME\", on_error = \"skip\", config = { … } }",
        );
    };
    let place = value.place_text();
    let mut table = value.table()?;
    let name = table.required("name", "the name of a plugin", |name| {
        plugins.reference(name)
    });
    let on_error = table.optional("on_error", |value| value.choice(&ON_ERROR));
    let mut places = BTreeMap::new();
    let text = table.optional("config", |value| config(value, &mut places));
    table.finish();
    Some(PluginUse {
        name: name?,
        on_error,
        config: text.map(|text| UseConfig {
            text,
            places,
            place,
        }),
    })
}

/// `FILE:LINE:COLUMN` for an error that a plugin's `configure` found. `key_path` is what the error names (`tokens[1]`, also with
/// `config.` in front); where that key is not in the file (because it is missing there, say), the place is that of the nearest thing
/// around it.
pub fn config_place<'a>(plugin: &'a Plugin, key_path: &str) -> &'a str {
    if let Some(place) = plugin.config_places.get(key_path) {
        return place;
    }
    let whole = matches!(key_path, "." | "config");
    let inner = key_path.strip_prefix("config.").unwrap_or(key_path);
    let mut path = if whole { "" } else { inner };
    if path.len() > MAX_KEY_PATH_BYTES {
        path = "";
    }
    loop {
        match plugin.config_places.get(path) {
            Some(place) => return place,
            None if path.is_empty() => return &plugin.place,
            None => path = &path[..path.rfind(['.', '[']).unwrap_or(0)],
        }
    }
}

/// A file that can be read; what is in it, is seen when it is compiled.
fn module(value: Value<'_>) -> Option<PathBuf> {
    let path = value.path()?;
    match open_regular(&path) {
        Ok(_) => Some(path),
        Err(error) => value.refuse(format_args!(
            "module {} cannot be read: {error}",
            path.display()
        )),
    }
}

fn grants(
    mut table: Table<'_>,
    (upstreams, zones, listeners): (&Named<'_>, &Named<'_>, &Named<'_>),
    system_roots: &mut Vec<Der>,
) -> Grants {
    let grants = Grants {
        upstreams: table.optional("upstreams", |value| {
            value.set(|name| upstreams.reference(name))
        }),
        zones: table.optional("zones", |value| value.set(|name| zones.reference(name))),
        hosts: table.optional("hosts", |value| granted_hosts(value, system_roots)),
        files: table.optional("files", granted_files),
        own_routes: table.or("own_routes", OwnRoutes::Refused, |value| {
            own_routes(value, listeners)
        }),
    };
    table.finish();
    grants
}

fn own_routes(value: Value<'_>, listeners: &Named<'_>) -> Option<OwnRoutes> {
    match value.kind() {
        NodeKind::Text(_) => listeners.reference(value).map(OwnRoutes::Of),
        NodeKind::Boolean(true) => Some(OwnRoutes::Granted),
        NodeKind::Boolean(false) => Some(OwnRoutes::Refused),
        _ => value.expected("true, false or the name of a listener"),
    }
}

fn quarantine(mut table: Table<'_>) -> Quarantine {
    let quarantine = Quarantine {
        traps: table.or("traps", DEFAULT_QUARANTINE.traps, |value| {
            value.integer(0..=10_000)
        }),
        within: table.or("within", DEFAULT_QUARANTINE.within, |value| {
            value.duration(Duration::from_millis(100)..=Duration::from_secs(3600))
        }),
        backoff: table.or("backoff", DEFAULT_QUARANTINE.backoff, |value| {
            value.duration(Duration::from_millis(10)..=Duration::from_secs(60))
        }),
    };
    table.finish();
    quarantine
}

fn limits(mut table: Table<'_>) -> PluginLimits {
    let usual = DEFAULT_LIMITS;
    let limits = PluginLimits {
        memory_bytes: table.or("memory", usual.memory_bytes, |value| {
            value.size(64 << 10..=MAX_PLUGIN_MEMORY_BYTES as u64)
        }),
        cpu: table.or("cpu", usual.cpu, up_to_a_minute),
        configure_cpu: table.or("configure_cpu", usual.configure_cpu, up_to_a_minute),
        request_cpu: table.or("request_cpu", usual.request_cpu, |value| {
            let limit = value.duration(Duration::ZERO..=Duration::from_secs(3600))?;
            Some((!limit.is_zero()).then_some(limit))
        }),
        instances: table.or("instances", usual.instances, |value| {
            value.integer(1..=4096)
        }),
        instance_reserve: table.or("instance_reserve", usual.instance_reserve, |value| {
            value.integer(0..=100)
        }),
        body_bytes: table.or("body", usual.body_bytes, |value| {
            value.size(1 << 10..=64 << 20)
        }),
        instance_calls: table.or("instance_calls", usual.instance_calls, |value| {
            value.integer(0..=u64::from(u32::MAX))
        }),
        calls: table.or("calls", usual.calls, |value| value.integer(0..=1000)),
        instance_queue: table.or("instance_queue", usual.instance_queue, |value| {
            value.integer(0..=100_000)
        }),
        instance_wait: table.or("instance_wait", usual.instance_wait, up_to_a_minute),
        table_elements: table.or("table", usual.table_elements, |value| {
            value.integer(1..=MAX_PLUGIN_TABLE_ELEMENTS as u64)
        }),
        host_calls: table.or("host_calls", usual.host_calls, |value| {
            value.integer(100..=1_000_000_000)
        }),
        log_lines: table.or("log_lines", usual.log_lines, |value| {
            value.integer(1..=1_000_000)
        }),
        headers: table.or("headers", usual.headers, |value| value.integer(1..=10_000)),
        header_bytes: table.or("header_bytes", usual.header_bytes, |value| {
            value.size(256..=1 << 20)
        }),
        variables: table.or("variables", usual.variables, |value| {
            value.integer(1..=10_000)
        }),
        variable_bytes: table.or("variable_bytes", usual.variable_bytes, |value| {
            value.size(256..=1 << 20)
        }),
        state_bytes: table.or("state", usual.state_bytes, |value| value.size(0..=16 << 20)),
        permits: table.or("permits", usual.permits, |value| value.integer(0..=1000)),
        emit_bytes: table.or("emit", usual.emit_bytes, |value| {
            value.size(1 << 10..=1 << 40)
        }),
        after_response: table.or("after_response", usual.after_response, |value| {
            value.duration(Duration::from_millis(1)..=Duration::from_secs(3600))
        }),
        after_response_active: table.or(
            "after_response_active",
            usual.after_response_active,
            |value| value.integer(1..=4096),
        ),
        after_response_queue: table.or(
            "after_response_queue",
            usual.after_response_queue,
            |value| value.integer(0..=100_000),
        ),
        metric_series: table.or("metric_series", usual.metric_series, |value| {
            value.integer(0..=u64::from(MAX_METRIC_SERIES))
        }),
    };
    table.finish();
    limits
}

/// A time-out of 1 ms to 1 min.
fn up_to_a_minute(value: Value<'_>) -> Option<Duration> {
    value.duration(Duration::from_millis(1)..=Duration::from_secs(60))
}

/// The config as JSON text; in `places` where each of its values stands.
fn config(value: Value<'_>, places: &mut BTreeMap<String, String>) -> Option<String> {
    value.table()?;
    let json = json(value, value.node(), "", places)?;
    Some(json.to_string())
}

/// Value as JSON. `None`: something in it was refused.
fn json(
    config: Value<'_>,
    node: &Node,
    path: &str,
    places: &mut BTreeMap<String, String>,
) -> Option<Json> {
    let value = config.within(node);
    places.insert(path.to_owned(), value.place_text());
    match &node.kind {
        NodeKind::Text(text) => Some(Json::from(text.as_str())),
        NodeKind::Integer(integer) => json_integer(value, *integer),
        NodeKind::Float(float) => {
            let number = float.and_then(serde_json::Number::from_f64).map(Json::from);
            number.or_else(|| {
                value.refuse(format_args!(
                    "{}: expected a finite number, plugins get their config as JSON",
                    value.key()
                ))
            })
        }
        NodeKind::Boolean(boolean) => Some(Json::from(*boolean)),
        NodeKind::Datetime(datetime) => Some(Json::from(datetime.as_str())),
        NodeKind::List(items) => {
            let item =
                |(idx, item): (usize, &Node)| json(config, item, &format!("{path}[{idx}]"), places);
            // All items are read, so that each wrong one is reported.
            let items: Vec<_> = items.iter().enumerate().map(item).collect();
            let items: Option<Vec<_>> = items.into_iter().collect();
            items.map(Json::from)
        }
        NodeKind::Table(entries) => {
            let dot = if path.is_empty() { "" } else { "." };
            let entry = |Entry { key, value, .. }: &Entry| {
                let value = json(config, value, &format!("{path}{dot}{key}"), places)?;
                Some((key.clone(), value))
            };
            let entries: Vec<_> = entries.iter().map(entry).collect();
            let entries: Option<serde_json::Map<_, _>> = entries.into_iter().collect();
            entries.map(Json::from)
        }
        NodeKind::Refused => None,
    }
}

fn json_integer(value: Value<'_>, integer: Option<i128>) -> Option<Json> {
    let signed = integer.and_then(|integer| i64::try_from(integer).ok());
    let unsigned = integer.and_then(|integer| u64::try_from(integer).ok());
    match (signed, unsigned) {
        (Some(signed), _) => Some(Json::from(signed)),
        (None, Some(unsigned)) => Some(Json::from(unsigned)),
        (None, None) => value.refuse(format_args!(
            "{}: expected an integer of at most 64 bits",
            value.key()
        )),
    }
}

impl Default for PluginLimits {
    fn default() -> Self {
        DEFAULT_LIMITS
    }
}

const DEFAULT_LIMITS: PluginLimits = PluginLimits {
    memory_bytes: 16 << 20,
    cpu: Duration::from_millis(50),
    configure_cpu: Duration::from_secs(5),
    request_cpu: Some(Duration::from_secs(10)),
    instances: 256,
    instance_reserve: 4,
    body_bytes: default::BODY_BYTES,
    calls: default::CALLS,
    instance_calls: 1_000_000,
    instance_queue: 1000,
    instance_wait: Duration::from_secs(1),
    table_elements: 10_000,
    host_calls: default::HOST_CALLS,
    log_lines: 1000,
    headers: default::HEADERS,
    header_bytes: default::HEADER_BYTES,
    variables: default::VARIABLES,
    variable_bytes: default::VARIABLE_BYTES,
    state_bytes: default::STATE_BYTES,
    permits: default::PERMITS,
    emit_bytes: default::EMIT_BYTES,
    after_response: Duration::from_secs(30),
    after_response_active: 32,
    after_response_queue: 1000,
    metric_series: 1000,
};

const DEFAULT_QUARANTINE: Quarantine = Quarantine {
    traps: 20,
    within: Duration::from_secs(10),
    backoff: Duration::from_secs(1),
};

const ISOLATION: [(&str, Isolation); 2] =
    [("call", Isolation::Call), ("request", Isolation::Request)];

const ON_ERROR: [(&str, OnError); 2] = [("deny", OnError::Deny), ("skip", OnError::Skip)];

/// A guest names the path; a longer one is not looked for.
const MAX_KEY_PATH_BYTES: usize = 1024;
