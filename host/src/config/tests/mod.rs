//! Whole configs, from files to what they become.

mod acme;
mod balancing;
mod cache;
mod effects;
mod files;
mod granted;
mod listeners;
mod names;
mod plugins;
mod refused;
mod routes;
mod spill;
mod tls;
mod zones;

use std::env::VarError;
use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A folder with `site.toml`, a module `p.wasm` and whatever else a test puts there.
struct Site {
    folder: TempDir,
    environment: Vec<(&'static str, &'static str)>,
}

impl Site {
    fn new(config: &str) -> Self {
        let site = Self {
            folder: tempfile::tempdir().unwrap(),
            environment: Vec::new(),
        };
        site.file("p.wasm", "").file("site.toml", config)
    }

    fn file(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn env(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn load(&self) -> Result<Config, ConfigErrors> {
        load_with(&self.path("site.toml"), &|name| {
            let found = self.environment.iter().find(|(known, _)| *known == name);
            found
                .map(|(_, value)| (*value).to_owned())
                .ok_or(VarError::NotPresent)
        })
    }

    /// Errors of the config, the folder's name taken out.
    fn errors(&self) -> Vec<String> {
        let folder = format!("{}/", self.folder.path().display());
        let errors = self.load().expect_err("a good config");
        errors
            .to_string()
            .lines()
            .map(|line| line.replace(&folder, ""))
            .collect()
    }
}

/// Rest that makes a config complete; tests put more in front, one line.
const REST: &str = "\n[listeners.web]\nbind = '127.0.0.1:8080'\n[upstreams.app]\npeers = ['127.0.0.1:9001']\n[[routes]]\nupstream = 'app'\n";

fn good(config: &str) -> Config {
    Site::new(&format!("{config}{REST}"))
        .load()
        .unwrap_or_else(|errors| panic!("{errors}"))
}

/// `config` completed by [`REST`] has just this error.
#[track_caller]
fn refused(config: &str, error: &str) {
    assert_eq!(Site::new(&format!("{config}{REST}")).errors(), [error]);
}

#[test]
fn whom_workers_run_as_and_where() {
    let workers = |keys: &str| good(&format!("[workers]\n{keys}\n")).workers;
    let quiet = workers("");
    assert_eq!(
        (quiet.pin, quiet.user, quiet.seccomp, quiet.max_open_files),
        (Pin::No, None, true, None)
    );
    assert_eq!(quiet.heartbeat_timeout, Some(Duration::from_secs(30)));
    assert_eq!(workers("heartbeat_timeout = '0s'").heartbeat_timeout, None);
    let identity = |keys: &str| {
        let user = workers(keys).user.unwrap();
        (user.name, user.uid, user.gid)
    };
    assert_eq!(identity("user = 'root'"), ("root".to_owned(), 0, 0));
    assert_eq!(
        identity("user = 4294967294\ngroup = 7"),
        ("4294967294".to_owned(), 4294967294, 7)
    );
    assert_eq!(identity("user = 0\ngroup = 'root'").2, 0);
    let Pin::Cores(cores) = workers("pin = true").pin else {
        panic!("not pinned");
    };
    let last = *cores.last().unwrap();
    let listed = workers(&format!("pin = [{last}]")).pin;
    assert_eq!(listed, Pin::Cores(vec![last]));
    let files = workers("max_open_files = 100").max_open_files.unwrap();
    assert!(files.count == 100 && files.place.ends_with("site.toml:2:18"));
}

#[test]
fn defaults_are_filled_in() {
    let site = Site::new(REST);
    let config = site.load().unwrap();
    assert_eq!(config.master.control.path, site.path("run/castling.sock"));
    assert_eq!(config.master.module_store.path, site.path("run/modules"));
    assert_eq!(config.master.pid_file, None);
    let zone_store = config.master.zone_store.to_str().unwrap();
    assert!(zone_store.contains("/castling-"), "{zone_store}");
    let another = good("[master]\ncontrol = 'other.sock'\n").master;
    assert_ne!(another.zone_store.path, config.master.zone_store.path);
    assert!((1..=512).contains(&config.workers.count));
    assert_eq!(config.workers.drain_timeout.as_secs(), 30);
    assert_eq!(
        config.log,
        Log {
            level: LogLevel::Info,
            format: LogFormat::Text,
            file: None
        }
    );
    assert_eq!(config.access_log.target, AccessLogTarget::Stdout);
    assert!(
        matches!(&config.access_log.format, AccessLogFormat::Text(line) if line.starts_with("$client_address - - [$time_local]"))
    );
    assert_eq!(config.metrics.max_series, 8192);
    let web = &config.listeners["web"];
    let socket = &web.socket;
    assert_eq!((socket.accept, socket.backlog), (Accept::PerWorker, 4096));
    assert_eq!((socket.ipv6_only, socket.nodelay), (true, true));
    assert_eq!(
        (socket.tcp_keepalive, socket.defer_accept_seconds),
        (None, 0)
    );
    assert!(!config.routes[0].metrics);
    assert_eq!(web.limits.max_connections, 16384);
    let Serves::Http(http) = &web.serves;
    assert_eq!((http.max_head_bytes, http.max_body_bytes), (32 << 10, 0));
    assert_eq!(http.idle_timeout.as_secs(), 75);
    let app = &config.upstreams["app"];
    assert_eq!(
        (
            app.tries,
            app.keepalive.connections,
            app.connect_timeout.as_secs()
        ),
        (3, 16384, 5)
    );
    let keepalive = &app.keepalive;
    assert_eq!(
        (keepalive.max_age.as_secs(), keepalive.max_requests),
        (3600, None)
    );
    assert_eq!((app.tcp_keepalive, app.source_address.len()), (None, 0));
    assert_eq!(
        (&app.balance, &app.host),
        (&Balance::RoundRobin, &UpstreamHost::Client)
    );
    assert_eq!(
        app.place,
        format!("{}:4:1", site.path("site.toml").display())
    );
    assert_eq!(
        (config.routes[0].name.as_str(), &config.routes[0].path),
        ("/", &PathMatch::Prefix(String::new()))
    );
}

#[test]
fn every_key_reaches_the_model() {
    let site = Site::new(
        r#"
[master]
control = "/run/c.sock"
module_store = "modules"
pid_file = "./c.pid"
zone_store = "zones"
[workers]
count = 3
drain_timeout = "1m 30s"
[log]
level = "debug"
format = "json"
file = "error.log"
[access_log]
file = "access.log"
format = { json = { z = "$status", a = "$path" } }
flush = "0s"
[plugins.auth]
wasm = "p.wasm"
config = { tokens = ["a", "b"], deep = { on = true, n = -3, f = 1.5, day = 2026-01-02 } }
on_error = "skip"
limits = { memory = "1MiB", cpu = "20ms", request_cpu = "0s", instances = 7, metric_series = 0 }
grants = { zones = ["sessions"] }
[zones.limits]
kind = "counter"
size = "64KiB"
[zones.sessions]
kind = "kv"
size = "32MiB"
[metrics]
max_series = 262144
[listeners.web]
bind = "[::1]:8080"
backlog = 10
plugins = ["auth"]
max_head = 2048
max_body = "10MB"
max_connections = 5
head_timeout = "1s"
body_timeout = "2s"
send_timeout = "3s"
idle_timeout = "4s"
accept = "shared"
ipv6_only = false
nodelay = false
tcp_keepalive = { idle = "1m", count = 3 }
defer_accept = "5s"
[listeners.local]
bind = "unix:run/app.sock"
mode = "0640"
[upstreams.app]
peers = ["App.internal:80", { address = "[::1]:81", weight = 65535 }]
balance = { plugin = "auth" }
connect_timeout = "1s"
response_timeout = "2s"
idle_timeout = "3s"
tries = 2
keepalive = { connections = 0, timeout = "9s" }
host = "api.example.com:8443"
[[routes]]
name = "api"
listeners = ["web"]
hosts = ["Example.com", "*.example.org", "[::1]"]
path = "/api/"
methods = ["GET", "PURGE"]
headers = { X-B = true, x-a = "v", x-c = false }
plugins = ["auth"]
upstream = "app"
[[routes]]
hosts = ["example.com", "*.example.org"]
path = "/x"
metrics = true
"#,
    );
    let config = site.load().unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.master.control.path, Path::new("/run/c.sock"));
    assert_eq!(
        config.master.pid_file.as_ref().unwrap().path,
        site.path("c.pid")
    );
    assert_eq!(config.master.zone_store.path, site.path("zones"));
    assert!(config.master.zone_store.place.contains("site.toml:"));
    assert_eq!(
        (config.workers.count, config.workers.drain_timeout.as_secs()),
        (3, 90)
    );
    assert!(
        matches!(&config.access_log.target, AccessLogTarget::File(file) if file.path == site.path("access.log"))
    );
    let fields = vec![
        ("z".to_owned(), "$status".to_owned()),
        ("a".to_owned(), "$path".to_owned()),
    ];
    assert_eq!(config.access_log.format, AccessLogFormat::Json(fields));
    let auth = &config.plugins["auth"];
    assert_eq!(auth.wasm, site.path("p.wasm"));
    assert_eq!(
        auth.config,
        r#"{"deep":{"day":"2026-01-02","f":1.5,"n":-3,"on":true},"tokens":["a","b"]}"#
    );
    assert_eq!(
        (
            auth.on_error,
            auth.limits.memory_bytes,
            auth.limits.instances
        ),
        (OnError::Skip, 1 << 20, 7)
    );
    assert_eq!(
        auth.grants.zones.as_deref(),
        Some(&["sessions".to_owned()][..])
    );
    let zone = |name: &str| (config.zones[name].kind, config.zones[name].size_bytes);
    assert_eq!(zone("limits"), (ZoneKind::Counter, 64 << 10));
    assert_eq!(zone("sessions"), (ZoneKind::Kv, 32 << 20));
    let millis = Duration::from_millis;
    assert_eq!(
        (auth.limits.cpu, auth.limits.request_cpu),
        (millis(20), None)
    );
    let web = &config.listeners["web"];
    assert_eq!(web.bind.to_string(), "[::1]:8080");
    let Serves::Http(http) = &web.serves;
    assert_eq!(
        (http.max_head_bytes, http.max_body_bytes),
        (2048, 10_000_000)
    );
    let socket = &web.socket;
    assert_eq!(
        (
            socket.ipv6_only,
            socket.nodelay,
            socket.defer_accept_seconds
        ),
        (false, false, 5)
    );
    let keepalive = TcpKeepalive {
        idle_seconds: 60,
        interval_seconds: 75,
        count: 3,
    };
    assert_eq!(socket.tcp_keepalive, Some(keepalive));
    let local = &config.listeners["local"];
    assert_eq!(local.bind, Bind::Unix(site.path("run/app.sock")));
    let of_local = (local.socket.accept, local.socket.mode);
    assert_eq!(of_local, (Accept::Shared, 0o640));
    assert_eq!((socket.accept, socket.mode), (Accept::Shared, 0o666));
    let app = &config.upstreams["app"];
    assert_eq!(
        (app.peers[0].address.as_str(), app.peers[0].weight.get()),
        ("app.internal:80", 1)
    );
    assert_eq!(
        (app.peers[1].address.as_str(), app.peers[1].weight.get()),
        ("[::1]:81", 65535)
    );
    assert_eq!(app.balance, Balance::Plugin("auth".to_owned()));
    assert_eq!(
        app.host,
        UpstreamHost::Fixed("api.example.com:8443".to_owned())
    );
    let api = &config.routes[0];
    assert_eq!(api.hosts[0], HostPattern::Exact("example.com".to_owned()));
    assert_eq!(api.hosts[1], HostPattern::Suffix(".example.org".to_owned()));
    assert_eq!(api.path, PathMatch::Prefix("/api".to_owned()));
    assert_eq!(
        api.headers[0],
        FieldMatch {
            name: "x-b".to_owned(),
            test: ValueTest::Present
        }
    );
    assert_eq!(api.headers[1].test, ValueTest::OneOf(vec!["v".to_owned()]));
    assert_eq!(api.headers[2].test, ValueTest::Absent);
    assert_eq!(config.routes[1].name, "example.com,*.example.org/x");
    assert_eq!(config.metrics.max_series, 262_144);
    assert_eq!(auth.limits.metric_series, 0);
    assert_eq!((api.metrics, config.routes[1].metrics), (false, true));

    let sent = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&sent).unwrap(), config);
}

#[test]
fn nothing_granted_is_another_thing_than_nothing_said() {
    let site = Site::new(&format!(
        "[plugins.said]\nwasm = 'p.wasm'\ngrants = {{ zones = [] }}\n[plugins.silent]\nwasm = 'p.wasm'\n{REST}"
    ));
    let config = site.load().unwrap();
    let said = Grants {
        upstreams: None,
        zones: Some(Vec::new()),
        hosts: None,
        files: None,
        own_routes: OwnRoutes::Refused,
    };
    assert_eq!(config.plugins["said"].grants, said);
    assert_eq!(config.plugins["silent"].grants, Grants::default());
    // Workers are sent the difference, too.
    let sent = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&sent).unwrap(), config);
}

#[test]
fn a_place_is_found_for_what_configure_refuses() {
    let site = Site::new(&format!(
        "[plugins.auth]\nwasm = 'p.wasm'\nconfig.tokens = ['a',\n  5]\n[plugins.auth.config.deep]\nx = 1\n[plugins.bare]\nwasm = 'p.wasm'\n{REST}"
    ));
    let config = site.load().unwrap();
    let place = |plugin: &str, path: &str| {
        let place = config_place(&config.plugins[plugin], path);
        let (_, place) = place.rsplit_once('/').unwrap();
        Some(place.to_owned())
    };
    assert_eq!(place("auth", "tokens[1]").as_deref(), Some("site.toml:4:3"));
    assert_eq!(
        place("auth", "config.tokens[1]").as_deref(),
        Some("site.toml:4:3")
    );
    assert_eq!(place("auth", "deep.x").as_deref(), Some("site.toml:6:5"));
    assert_eq!(
        place("auth", "deep.missing[3]").as_deref(),
        Some("site.toml:5:1")
    );
    assert_eq!(place("auth", "config"), place("auth", ""));
    assert_eq!(place("auth", "."), place("auth", ""));
    assert_eq!(place("bare", "tokens").as_deref(), Some("site.toml:7:1"));
    assert_eq!(
        place("bare", &".".repeat(100_000)).as_deref(),
        Some("site.toml:7:1")
    );
}

#[test]
fn the_control_socket_is_found_in_a_broken_config() {
    let site = Site::new("[master]\ncontrol = 'c.sock'\n[listeners\nnonsense");
    assert_eq!(
        control_socket(&site.path("site.toml")).unwrap(),
        site.path("c.sock")
    );
    let site = Site::new("= = =");
    assert_eq!(
        control_socket(&site.path("site.toml")).unwrap(),
        site.path("run/castling.sock")
    );
    assert!(control_socket(&site.path("none.toml")).is_err());
}

fn assert_one_line_each(site: &Site) {
    if let Err(errors) = site.load() {
        assert_eq!(errors.to_string().lines().count(), errors.iter().count());
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        assert_one_line_each(&Site::new(&text));
    }

    #[test]
    fn no_mix_of_known_words_panics(words in prop::collection::vec(prop::sample::select(WORDS), 0..40)) {
        assert_one_line_each(&Site::new(&words.concat()));
    }
}

const WORDS: &[&str] = &[
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "\n",
    "=",
    ",",
    ".",
    "'",
    "\"",
    "# ",
    "include",
    "plugins",
    "listeners",
    "routes",
    "[[routes]]\n",
    "upstreams",
    "workers",
    "log",
    "access_log",
    "format",
    "json",
    "wasm",
    "config",
    "bind",
    "peers",
    "weight",
    "path",
    "hosts",
    "name",
    "a",
    "'a'",
    "'*'",
    "'/'",
    "0",
    "-1",
    "1e400",
    "nan",
    "0xff",
    "true",
    "\"\\n\"",
    "2026-01-02",
    "'5s'",
    "'1MiB'",
    "from_env",
    "from_file",
    "default",
    "ä",
    "\r",
];

/// CPU time of this thread for a load: what others do on the machine does not count. The least of some.
fn load_time(site: &Site) -> Duration {
    let cpu_time = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(now).unwrap()
    };
    let once = || {
        let begun = cpu_time();
        let _ = site.load();
        cpu_time() - begun
    };
    (0..3).map(|_| once()).min().unwrap()
}

/// Loads `config` of some and of eight times as many: the work grows about eightfold, where one that looks at all for each would
/// take 64 times as much. No figure of time is asserted, but which of the two it is.
#[track_caller]
fn linear(config: impl Fn(usize) -> String) {
    let [once, eightfold] =
        [4_000, 32_000].map(|n| load_time(&Site::new(&format!("{}{REST}", config(n)))));
    let between = once * 24 + Duration::from_millis(20);
    assert!(eightfold <= between, "{once:?}, then {eightfold:?}");
}

#[test]
fn what_a_load_takes_grows_with_the_config_and_no_faster() {
    let list =
        |n: usize, item: &dyn Fn(usize) -> String| (0..n).map(item).collect::<Vec<_>>().join(",");
    linear(|n| {
        let peers = list(n, &|i| format!("'10.{}.{}.1:80'", i / 250, i % 250));
        format!("[upstreams.many]\npeers = [{peers}]\n")
    });
    linear(|n| {
        let tokens = list(n, &|i| format!("'{i}'"));
        format!("[plugins.a]\nwasm = 'p.wasm'\nconfig = {{ tokens = [{tokens}] }}\n")
    });
    linear(|n| {
        let routes = (0..n).map(|i| format!("[[routes]]\nname = 'r{i}'\nupstream = 'app'\n"));
        routes.collect()
    });
    linear(|n| {
        let hosts = list(n, &|i| format!("'h{i}.example'"));
        format!("[[routes]]\nhosts = [{hosts}]\nupstream = 'app'\n")
    });
    linear(|n| {
        (0..n)
            .map(|i| format!("[[routes]]\nupstream = 'none{i}'\n"))
            .collect()
    });
}
