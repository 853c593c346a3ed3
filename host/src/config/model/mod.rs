//! The resolved config: checked, with defaults filled in, references by name known to exist.
//!
//! The master parses it once for each generation and hands it to its workers as JSON, so that all of a generation runs
//! the same. Paths are absolute. Durations and sizes are in the unit that the type says. A `*_timeout` is 1 ms to 30
//! days. Plugins, listeners, upstreams and (where given) routes are named with 1 to 64 of `A-Z a-z 0-9 _ . -`.

mod acme;
mod balance;
mod cache;
mod granted_file;
mod granted_hosts;
mod health;
mod http2;
mod http_settings;
mod listener;
mod networks;
mod peers_url;
mod protection;
mod retry;
mod route;
mod route_match;
mod statuses;
mod tls;
mod upstream;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use acme::*;
pub use balance::*;
pub use cache::*;
pub use granted_file::*;
pub use granted_hosts::*;
pub use health::*;
pub use http_settings::*;
pub use http2::*;
pub use listener::*;
pub use networks::*;
pub use peers_url::*;
pub use protection::*;
pub use retry::*;
pub use route::*;
pub use route_match::*;
pub use statuses::*;
pub use tls::*;
pub use upstream::*;

/// Everything one load of the config says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub master: Master,
    pub workers: Workers,
    pub log: Log,
    pub access_log: AccessLog,
    pub plugins: BTreeMap<String, Plugin>,
    pub listeners: BTreeMap<String, Listener>,
    /// Authority of `tls.acme`. The master's alone: workers are not told, since it has a secret. Default none.
    #[serde(skip)]
    pub acme: Option<Acme>,
    pub upstreams: BTreeMap<String, Upstream>,
    /// Certificates of the authorities that the system trusts. Empty where nobody's TLS needs them.
    pub system_roots: Vec<Der>,
    pub zones: BTreeMap<String, Zone>,
    pub metrics: Metrics,
    /// Routes in the order of the files; matching does not depend on it except between equals, where the first wins.
    pub routes: Vec<Route>,
    /// The most instances that a plugin may have, where all would else have more together than a worker has ([`MAX_INSTANCES`]): each
    /// plugin's `limits.instances` is lowered to it. `None`: no limit was.
    pub instances_shared: Option<usize>,
}

impl Config {
    /// Files that plugins are granted, with the plugins' names.
    pub fn granted_files(&self) -> impl Iterator<Item = (&String, &GrantedFile)> {
        self.plugins.iter().flat_map(|(name, plugin)| {
            let files = plugin.grants.files.iter().flatten();
            files.map(move |file| (name, file))
        })
    }

    /// Whether an upstream or a route has bodies kept on disk.
    pub fn spills(&self) -> bool {
        let upstreams = self.upstreams.values();
        let routes = self.routes.iter();
        let of_route = |route: &Route| route.proxy.retry.as_ref()?.spill_bytes;
        upstreams
            .map(|upstream| upstream.retry.spill_bytes)
            .chain(routes.filter_map(of_route))
            .any(|bytes| bytes > 0)
    }

    /// Routes that a listener has, in the order of the config.
    pub fn routes_of(&self, listener: &str) -> Vec<&Route> {
        let has_tls = self.listeners[listener].tls.is_some();
        let is_of_it = |route: &&Route| {
            let mut named = route.listeners.iter();
            let is_named = route.listeners.is_empty() || named.any(|it| it == listener);
            // A redirect to https would lead to itself.
            is_named && (route.redirect.is_none() || !has_tls)
        };
        self.routes.iter().filter(is_of_it).collect()
    }
}

/// An absolute path, with where it stands in the config: what is wrong with it is found when it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedPath {
    pub path: PathBuf,
    /// `FILE:LINE:COLUMN`; for a default, the start of the config file.
    pub place: String,
}

impl Deref for PlacedPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Master {
    /// The control socket. Default `run/castling.sock` beside the config file.
    pub control: PlacedPath,
    /// Folder of compiled plugins. Its files are trusted native code: only the master's user may write to
    /// it. Default `run/modules` beside the config file.
    pub module_store: PlacedPath,
    /// Written at start, removed at the end. Default none (nginx `pid`).
    pub pid_file: Option<PlacedPath>,
    /// Folder of kv zones, for one gateway only and for nothing else; should be in memory. Made when it is missing,
    /// removed at the end. Default, by a hash of `control`: `castling-zones-HASH` in the first of these that there is
    /// and that is in memory: the service's runtime folder (systemd's `RUNTIME_DIRECTORY`), `/run` for root,
    /// `XDG_RUNTIME_DIR` for others; else `/dev/shm/castling-USER-HASH`, by user id.
    pub zone_store: PlacedPath,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workers {
    /// 1 to 512. Default `"auto"`: as many as there are cores the process may run on (nginx `worker_processes`).
    pub count: usize,
    /// How long an old generation may finish its requests after a reload or a graceful stop; what is left then is
    /// closed. Default 30 s (nginx `worker_shutdown_timeout`).
    pub drain_timeout: Duration,
    /// 1 to 1000. So many old generations may drain at a time. Default 16. Each has workers of its own, and its memory.
    pub max_draining_generations: usize,
    /// Behaviour of a reload when so many drain. Default `wait`.
    pub when_draining_full: WhenDrainingFull,
    /// Deepest stack of a guest's calls, bytes; beyond it the hook is ended. 64 KiB to 8 MiB. Default 512 KiB. Each
    /// instance has one (address space; only what was used is memory).
    pub plugin_stack_bytes: usize,
    /// A worker that serves or drains and does not answer the master for so long is killed and replaced: it hangs, is
    /// stopped or traced. 100 ms to 1 h; in the file 0 turns it off (`None`). Default 30 s.
    pub heartbeat_timeout: Option<Duration>,
    /// Default `No` (nginx `worker_cpu_affinity`).
    pub pin: Pin,
    /// Whom workers, and the helpers that compile plugins, run as. Default none: as the master (nginx `user`).
    pub user: Option<Identity>,
    /// Whether workers give up the system calls that they do not need. Default true. Linux on x86-64 and aarch64 only.
    pub seccomp: bool,
    /// Whether a worker that crashes may leave a core file, and processes of its user (a debugger) look into it.
    /// Default false: there are secrets in its memory.
    pub core_dumps: bool,
    /// Files that a worker may have open, connections included. 64 to 1 073 741 816. Default none: as many as the hard
    /// limit allows (nginx `worker_rlimit_nofile`).
    pub max_open_files: Option<OpenFiles>,
    /// Disk for requests' bodies that are kept to be sent again (`retry.spill`). Default none.
    pub spill: Option<Spill>,
    /// Largest file that is granted to a plugin, bytes: all workers have one copy of each in memory. 1 KiB to 64 GiB. Default 1 GiB.
    pub max_granted_file_bytes: u64,
}

/// Disk for requests' bodies. In the file `spill_dir` and `spill_limit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spill {
    /// Folder in which each worker has a file, without a name.
    pub dir: PlacedPath,
    /// The most that one worker has in its file, bytes. 1 MiB to 1 TiB. Default 1 GiB.
    pub limit_bytes: u64,
}

/// Which core each worker runs on. In the file `false`, `true` or a list of cores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pin {
    /// Any, as the kernel sees fit.
    No,
    /// Worker `i` on the `i`-th of these, and with more workers than cores from the first on again. `true` is all that
    /// the master may run on.
    Cores(Vec<usize>),
}

/// A user and a group of the system. In the file by name or number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Name or number as the config has it, for messages.
    pub name: String,
    pub uid: u32,
    /// Default the user's own. It is the only group that workers are in.
    pub gid: u32,
    /// `FILE:LINE:COLUMN` of `user`.
    pub place: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFiles {
    pub count: u64,
    /// `FILE:LINE:COLUMN`.
    pub place: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenDrainingFull {
    /// Reload waits until one of them has ended, at the latest when its `drain_timeout` is over.
    Wait,
    /// Reload ends the oldest, with the connections that it has.
    EndOldest,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Log {
    /// Default `info`.
    pub level: LogLevel,
    /// Default `text`.
    pub format: LogFormat,
    /// Default none: standard error.
    pub file: Option<PlacedPath>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccessLog {
    /// Default `stdout`.
    pub target: AccessLogTarget,
    /// Default `combined`.
    pub format: AccessLogFormat,
    /// Lines wait at most this long in the worker's buffer. 0 writes each at once. 0 to 60 s. Default 100 ms
    /// (nginx `access_log ... flush`).
    pub flush: Duration,
}

/// Target of the access log. In the file: `"stdout"`, `"off"` or a path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AccessLogTarget {
    Off,
    Stdout,
    File(PlacedPath),
}

/// Lines of the access log. In the file: `"combined"`, `"json"`, a text with `$variables` in it, or `{ json = { key =
/// "$variable ..." } }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AccessLogFormat {
    /// A line of text; `combined` is resolved to one.
    Text(String),
    /// An object a line, keys in this order; `json` is resolved to one.
    Json(Vec<(String, String)>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plugin {
    /// The module's file.
    pub wasm: PathBuf,
    /// Input of the plugin's `configure`, as JSON text. `{}` where the config says nothing.
    pub config: String,
    /// Places of errors that `configure` finds: key paths of `config` (`tokens[1]`, the empty text is all of it) and
    /// where the value stands, `FILE:LINE:COLUMN`. Read by `config_place`.
    pub config_places: BTreeMap<String, String>,
    /// Default `deny`.
    pub on_error: OnError,
    pub limits: PluginLimits,
    /// Default `call`.
    pub isolation: Isolation,
    pub quarantine: Quarantine,
    /// How long after one run of its `timer` hook the next one begins, 10 ms to 1 day. Default what the plugin says.
    pub timer: Option<Duration>,
    /// Things that the plugin may reach beyond its request. Default nothing.
    pub grants: Grants,
    /// `FILE:LINE:COLUMN` of the plugin's table, for errors that are found after parsing.
    pub place: String,
}

/// How long an instance of a plugin serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Calls of any requests follow one another in an instance.
    Call,
    /// Instance serves one request: nothing that a request leaves in its memory is there for the next.
    Request,
}

/// When a plugin that keeps trapping is taken out for a while, as an unhealthy peer would be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Traps within `within` that take the plugin out of service in a worker; those of one client count for a tenth of
    /// them at most, those for one path for a quarter. 0 to 10000, 0 never. Default 20.
    pub traps: u32,
    /// 100 ms to 1 h. Default 10 s.
    pub within: Duration,
    /// The first time; each further time in a row twice as long, up to a minute. 10 ms to 1 min. Default 1 s. Then one
    /// call is let through, and if that does not trap the plugin is back.
    pub backoff: Duration,
}

/// Grants of a plugin, by the names of the config. An empty list says that it is to do without, although it could use
/// one; `None` says nothing, and a plugin that could use one is refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Grants {
    /// Upstreams that it may send calls to.
    pub upstreams: Option<Vec<String>>,
    /// Zones that it may read and change.
    pub zones: Option<Vec<String>>,
    /// Hosts that it may call by their names.
    pub hosts: Option<GrantedHosts>,
    /// Files that it may read.
    pub files: Option<Vec<GrantedFile>>,
    /// Whether the plugin may send sub-requests to the gateway's own routes, and whose these are.
    pub own_routes: OwnRoutes,
}

/// Routes of the gateway's own that a plugin may send sub-requests to: of a hook of a request, those of the listener that the request came
/// through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnRoutes {
    #[default]
    Refused,
    /// Hooks of no request have those of the gateway's only listener.
    Granted,
    /// Hooks of no request have those of this listener.
    Of(String),
}

/// Treatment of a request whose plugin's hook fails or traps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// Request is answered 500 (503 where a limit of the gateway was reached).
    Deny,
    /// Request goes on as if the plugin did not implement the hook.
    Skip,
}

/// A plugin in the list of a listener or a route, each at most once in a list. In the file: `"NAME"` or
/// `{ name = "NAME", on_error = "skip", config = { … } }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginUse {
    pub name: String,
    /// Replaces the plugin's own `on_error`, for its hooks in this list. `balance` and `peer_done` are the upstream's
    /// and keep the plugin's.
    pub on_error: Option<OnError>,
    /// Replaces the plugin's own config, whole, for its hooks in this list.
    pub config: Option<UseConfig>,
}

/// Config of a plugin in one list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UseConfig {
    /// Input of `configure`, as JSON text.
    pub text: String,
    /// Places of errors, as [`Plugin::config_places`].
    pub places: BTreeMap<String, String>,
    /// `FILE:LINE:COLUMN` of the use.
    pub place: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginLimits {
    /// Linear memory of one instance, bytes. 64 KiB to 64 MiB. Default 16 MiB.
    pub memory_bytes: usize,
    /// CPU time of one hook call. 1 ms to 60 s. Default 50 ms.
    pub cpu: Duration,
    /// CPU time of `configure`, which runs when an instance is made. 1 ms to 60 s. Default 5 s.
    pub configure_cpu: Duration,
    /// CPU time of all hook calls of the plugin for one request. Up to 1 h, 0 means no limit (`None`). Default 10 s,
    /// which is far above what hooks on heads may take, for a filter works on every chunk of a long body.
    pub request_cpu: Option<Duration>,
    /// Instances of the plugin in one worker. 1 to 1000. Default 256. One with per-request state is taken for as long
    /// as its request takes, the response's way to a slow client included.
    pub instances: usize,
    /// Instances in one worker beyond `instances` that only later hooks get: so many for hooks of sub-requests and for
    /// variables, so many more for hooks on responses, and so many more for `log`. 0 to 100. Default 4.
    pub instance_reserve: usize,
    /// A body that `read_body`, a call out, an answer of its own or a chunk in the place of another may hold at once,
    /// bytes. 1 KiB to 64 MiB. Default 1 MiB.
    pub body_bytes: usize,
    /// Calls out during one request. 0 to 1000. Default 32.
    pub calls: u32,
    /// An instance is replaced after so many calls of its hooks; 0 never. Default 1000000. It is also replaced when it
    /// has grown to three quarters of `memory`.
    pub instance_calls: u64,
    /// Calls that may wait at once in one worker when all `instances` are busy; beyond it one fails at once. 0 to
    /// 100000. Default 1000.
    pub instance_queue: usize,
    /// How long each of them waits. 1 ms to 60 s. Default 1 s.
    pub instance_wait: Duration,
    /// Elements of an instance's table: functions whose address the plugin takes. 1 to 100000. Default 10000.
    pub table_elements: usize,
    /// Host calls of one hook call. 100 to 1 000 000 000. Default 100000.
    pub host_calls: u32,
    /// Lines a second that it may write into the log, in one worker; the rest is dropped and counted. 1 to 1000000.
    /// Default 1000. As many again for the gateway's lines about its failures.
    pub log_lines: u32,
    /// Header fields that it may add to one head, less those it has taken away. 1 to 10000. Default 128.
    pub headers: usize,
    /// Bytes of their names and values. 256 to 1 MiB. Default 64 KiB. No path, query or host that it sets is longer
    /// either.
    pub header_bytes: usize,
    /// Variables that it may set in one request. 1 to 10000. Default 64.
    pub variables: usize,
    /// Bytes of their names and values. 256 to 1 MiB. Default 64 KiB.
    pub variable_bytes: usize,
    /// State that it may keep for a request between hooks, bytes. 0 to 16 MiB. Default 64 KiB.
    pub state_bytes: usize,
    /// Permits of gauge zones that it may hold for one request. 0 to 1000. Default 16.
    pub permits: usize,
    /// Bytes that one call of a hook on a body may send on before it returns. 1 KiB to 1 TiB. Default 128 MiB, twice what deflate can
    /// make of a chunk of 64 KiB.
    pub emit_bytes: usize,
    /// Time of one call of `after_response`, waiting included. 1 ms to 1 h. Default 30 s.
    pub after_response: Duration,
    /// Calls of it that run at a time in one worker; more than half of `instances` never do. 1 to 4096. Default 32.
    pub after_response_active: usize,
    /// Calls of it that may wait for that in one worker; beyond it one is lost. 0 to 100000. Default 1000.
    pub after_response_queue: usize,
    /// Series of its metrics, over all workers; a histogram counts as its buckets and two more. 0 to 262144. Default
    /// 1000. Further label values are counted as `other`.
    pub metric_series: u32,
}

/// Memory that all workers share. It keeps its contents over a reload that leaves name, kind and size as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    pub kind: ZoneKind,
    /// All of it is taken at once. A counter zone: 64 KiB to 64 GiB, a key takes 24 bytes. A kv zone: 1 MiB to 64 GiB. A gauge
    /// zone: 4 KiB to 4 MiB, a key takes 16 bytes, and 8 more for each worker. A topic: 64 KiB to 64 MiB, a message takes 4120 bytes. A cache: 1 MiB to 64 GiB.
    pub size_bytes: u64,
    /// Behaviour of a write to a kv zone that has no room for it. Default `Refuse`. A reload that changes it keeps the
    /// contents.
    pub when_full: WhenFull,
    /// `FILE:LINE:COLUMN` of the zone's table.
    pub place: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZoneKind {
    /// Numbers by key that expire: rate limits.
    Counter,
    /// Values by key, which may expire: sessions, fetched documents.
    Kv,
    /// Permits by key that requests hold: limits of concurrency.
    Gauge,
    /// Messages to all workers.
    Topic,
    /// Responses of routes with `cache`.
    Cache,
}

/// Behaviour of a write to a full kv zone, when what has expired is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// It is refused.
    Refuse,
    /// Entries that would expire first make room; those without a time to live never do.
    Evict,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// Series that there may be, a histogram counting as its buckets and two more. 256 to 262144. Default 8192. Takes
    /// 208 to 224 bytes for each, and 8 more in each worker. What was counted so far is kept over a reload that leaves
    /// it as it is.
    pub max_series: u32,
    /// `FILE:LINE:COLUMN` of `max_series`; for the default, the start of the config file.
    pub place: String,
}

/// Instances of all plugins together in one worker, at most. Each reserves some 4 GiB of address space (not memory), which lets wasmtime
/// leave out bounds checks.
pub const MAX_INSTANCES: usize = 4096;

/// The most that `limits.memory` may say: each instance reserves address space for it in the pool.
pub const MAX_PLUGIN_MEMORY_BYTES: usize = 64 << 20;

/// The most that `limits.table` may say, likewise.
pub const MAX_PLUGIN_TABLE_ELEMENTS: usize = 100_000;
/// The most that `metrics.max_series` may say.
pub const MAX_METRIC_SERIES: u32 = 256 * 1024;
