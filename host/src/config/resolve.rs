//! Which tables and keys the config has, with their defaults and ranges: from trees to the model.

use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use super::place::SourceMap;
use super::sections::{MAIN_FILE, Sections, TIMEOUT, resolved};
use super::source::Sources;
use super::table::{Table, Value};
use super::tree::NodeKind;
use super::variables::SetVariables;
use super::{
    Config, Log, LogFormat, LogLevel, MAX_METRIC_SERIES, Master, Metrics, Pin, PlacedPath, Route,
    Spill, WhenDrainingFull, WhenFull, Workers, Zone, ZoneKind,
};
use super::{
    access_log, acme, instances, listener, plugin, privileges, route, upstream, zone_store,
};

/// Builds the config. Where something was refused on the way, the result is of no use.
pub(super) fn resolve(sources: &Sources) -> Config {
    let mut sections = Sections::gather(sources);
    let mut system_roots = Vec::new();
    let workers = workers(sections.workers.take());
    sections.spill_limit_bytes = workers.spill.as_ref().map(|spill| spill.limit_bytes);
    let routes = route::resolve(&sections);
    let groups = routes.iter().flat_map(Route::set_variables);
    let variables = SetVariables::new(groups, !sections.plugins.is_empty());
    let mut config = Config {
        master: master(sources.map(), sections.master.take()),
        workers,
        log: log(sections.log.take()),
        access_log: access_log::resolve(sections.access_log.take()),
        plugins: resolved(&sections.plugins, |table| {
            let named = (&sections.upstreams, &sections.zones, &sections.listeners);
            plugin::resolve(table, named, &mut system_roots)
        }),
        listeners: listener::resolve(&sections),
        acme: acme::resolve(sources.map(), sections.acme),
        upstreams: resolved(&sections.upstreams, |table| {
            upstream::resolve(table, &sections, &variables, &mut system_roots)
        }),
        system_roots,
        zones: resolved(&sections.zones, zone),
        metrics: metrics(sources.map(), sections.metrics.take()),
        routes,
        instances_shared: None,
    };
    config.instances_shared = instances::share_out(&mut config);
    config
}

/// The control socket alone, from trees that may be broken.
pub(super) fn control_socket(sources: &Sources) -> PathBuf {
    let masters = sources
        .roots()
        .filter_map(|mut root| root.optional("master", Value::table));
    let control = masters
        .filter_map(|mut master| master.optional("control", Value::path))
        .next();
    control.unwrap_or_else(|| sources.map().resolve_path(MAIN_FILE, DEFAULT_CONTROL))
}

fn master(map: &SourceMap, table: Option<Table<'_>>) -> Master {
    let by_default = |path| PlacedPath {
        path,
        place: map.place(MAIN_FILE),
    };
    let mut control = by_default(map.resolve_path(MAIN_FILE, DEFAULT_CONTROL));
    let mut module_store = by_default(map.resolve_path(MAIN_FILE, "run/modules"));
    let mut pid_file = None;
    let mut zone_store = None;
    if let Some(mut table) = table {
        zone_store = table.optional("zone_store", Value::placed_path);
        control = table.or("control", control, Value::placed_path);
        module_store = table.or("module_store", module_store, Value::placed_path);
        pid_file = table.optional("pid_file", Value::placed_path);
        table.finish();
    }
    Master {
        zone_store: zone_store.unwrap_or_else(|| by_default(zone_store::default(&control))),
        control,
        module_store,
        pid_file,
    }
}

fn workers(table: Option<Table<'_>>) -> Workers {
    let mut workers = Workers {
        count: 0,
        drain_timeout: Duration::from_secs(30),
        max_draining_generations: 16,
        when_draining_full: WhenDrainingFull::Wait,
        plugin_stack_bytes: 512 << 10,
        heartbeat_timeout: Some(Duration::from_secs(30)),
        pin: Pin::No,
        user: None,
        seccomp: true,
        core_dumps: false,
        max_open_files: None,
        spill: None,
        max_granted_file_bytes: 1 << 30,
    };
    if let Some(mut table) = table {
        workers = Workers {
            count: table.or("count", workers.count, worker_count),
            drain_timeout: table.or("drain_timeout", workers.drain_timeout, |value| {
                value.duration(TIMEOUT)
            }),
            max_draining_generations: table.or(
                "max_draining_generations",
                workers.max_draining_generations,
                |value| value.integer(1..=1000),
            ),
            when_draining_full: table.or(
                "when_draining_full",
                workers.when_draining_full,
                |value| value.choice(&WHEN_DRAINING_FULL),
            ),
            plugin_stack_bytes: table.or("plugin_stack", workers.plugin_stack_bytes, |value| {
                value.size(64 << 10..=8 << 20)
            }),
            heartbeat_timeout: table.or(
                "heartbeat_timeout",
                workers.heartbeat_timeout,
                heartbeat_timeout,
            ),
            pin: table.or("pin", workers.pin, privileges::pin),
            user: privileges::identity(&mut table),
            seccomp: table.or("seccomp", workers.seccomp, Value::boolean),
            core_dumps: table.or("core_dumps", workers.core_dumps, Value::boolean),
            max_open_files: table.optional("max_open_files", privileges::open_files),
            spill: spill(&mut table),
            max_granted_file_bytes: table.or(
                "max_granted_file",
                workers.max_granted_file_bytes,
                |value| value.size(1 << 10..=64 << 30),
            ),
        };
        table.finish();
    }
    if workers.count == 0 {
        workers.count = cores();
    }
    workers
}

/// `spill_dir` and `spill_limit`.
fn spill(table: &mut Table<'_>) -> Option<Spill> {
    let dir = table.get("spill_dir");
    let limit = table.optional("spill_limit", |value| match dir {
        Some(_) => value.size(1 << 20..=1 << 40),
        None => value.refuse("spill_limit without `spill_dir` has no effect: expected `spill_dir`"),
    });
    Some(Spill {
        dir: dir?.placed_path()?,
        limit_bytes: limit.unwrap_or(DEFAULT_SPILL_LIMIT_BYTES),
    })
}

const DEFAULT_SPILL_LIMIT_BYTES: u64 = 1 << 30;

/// `None` for 0, which turns it off.
fn heartbeat_timeout(value: Value<'_>) -> Option<Option<Duration>> {
    let timeout = value.duration(Duration::ZERO..=Duration::from_secs(3600))?;
    if timeout.is_zero() {
        Some(None)
    } else if timeout < SHORTEST_HEARTBEAT {
        value.expected("\"0s\" for none, or 100 ms to 1 h")
    } else {
        Some(Some(timeout))
    }
}

/// Shortest heartbeat time-out: below it a busy machine would look like a worker that hangs.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(100);

const WHEN_DRAINING_FULL: [(&str, WhenDrainingFull); 2] = [
    ("wait", WhenDrainingFull::Wait),
    ("end_oldest", WhenDrainingFull::EndOldest),
];

/// 0 for `"auto"`.
fn worker_count(value: Value<'_>) -> Option<usize> {
    if let NodeKind::Integer(_) = value.kind() {
        return value.integer(1..=MAX_WORKERS as u64);
    }
    let auto = matches!(value.kind(), NodeKind::Text(text) if text == "auto");
    if auto {
        Some(0)
    } else {
        value.expected(format_args!("\"auto\" or 1 to {MAX_WORKERS}"))
    }
}

fn cores() -> usize {
    std::thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(MAX_WORKERS)
}

fn log(table: Option<Table<'_>>) -> Log {
    let mut log = Log {
        level: LogLevel::Info,
        format: LogFormat::Text,
        file: None,
    };
    if let Some(mut table) = table {
        log = Log {
            level: table.or("level", log.level, |value| value.choice(&LOG_LEVELS)),
            format: table.or("format", log.format, |value| value.choice(&LOG_FORMATS)),
            file: table.optional("file", Value::placed_path),
        };
        table.finish();
    }
    log
}

fn zone(mut table: Table<'_>) -> Zone {
    let kind = table.required(
        "kind",
        "\"counter\", \"kv\", \"gauge\", \"topic\" or \"cache\"",
        |value| value.choice(&ZONE_KINDS),
    );
    let given = kind;
    let kind = kind.unwrap_or(ZoneKind::Counter);
    let size = table.required("size", "a size such as \"1MiB\"", |value| {
        value.size(match kind {
            ZoneKind::Counter => 64 << 10..=64 << 30,
            ZoneKind::Kv | ZoneKind::Cache => 1 << 20..=64 << 30,
            ZoneKind::Gauge => 4 << 10..=4 << 20,
            ZoneKind::Topic => 64 << 10..=64 << 20,
        })
    });
    let when_full = table.or("when_full", WhenFull::Refuse, |value| {
        match given {
            Some(ZoneKind::Counter) => value.refuse(
                "when_full is for zones of kind \"kv\": expected none in a counter zone, in which the key that expires first \
                 makes room",
            ),
            Some(ZoneKind::Gauge) => value.refuse(
                "when_full is for zones of kind \"kv\": expected none in a gauge zone, in which a permit that has no room is \
                 refused",
            ),
            Some(ZoneKind::Topic) => value.refuse(
                "when_full is for zones of kind \"kv\": expected none in a topic, in which the oldest message makes room",
            ),
            Some(ZoneKind::Cache) => value.refuse(
                "when_full is for zones of kind \"kv\": expected none in a cache, in which what was not asked for the longest makes \
                 room",
            ),
            Some(ZoneKind::Kv) | None => value.choice(&WHEN_FULL),
        }
    });
    let zone = Zone {
        kind,
        size_bytes: size.unwrap_or_default(),
        when_full,
        place: table.place_text(),
    };
    table.finish();
    zone
}

fn metrics(map: &SourceMap, table: Option<Table<'_>>) -> Metrics {
    let mut metrics = Metrics {
        max_series: 8192,
        place: map.place(MAIN_FILE),
    };
    if let Some(mut table) = table {
        metrics.max_series = table.or("max_series", metrics.max_series, |value| {
            metrics.place = value.place_text();
            value.integer(256..=u64::from(MAX_METRIC_SERIES))
        });
        table.finish();
    }
    metrics
}

const DEFAULT_CONTROL: &str = "run/castling.sock";

const MAX_WORKERS: usize = 512;

const LOG_LEVELS: [(&str, LogLevel); 5] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

const ZONE_KINDS: [(&str, ZoneKind); 5] = [
    ("counter", ZoneKind::Counter),
    ("kv", ZoneKind::Kv),
    ("gauge", ZoneKind::Gauge),
    ("topic", ZoneKind::Topic),
    ("cache", ZoneKind::Cache),
];

const WHEN_FULL: [(&str, WhenFull); 2] = [("refuse", WhenFull::Refuse), ("evict", WhenFull::Evict)];

const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
