//! A gateway before one upstream, with the plugins that are policies.

use crate::Proxy;

/// Starts a gateway of [`config`].
#[track_caller]
pub(super) fn start(workers: usize, upstream: &str) -> Proxy {
    Proxy::with_config(&config(workers, upstream)).start()
}

/// Config of a gateway with so many workers and these lines of its upstream.
pub(super) fn config(workers: usize, upstream: &str) -> String {
    CONFIG
        .replace("WORKERS", &workers.to_string())
        .replace("UPSTREAM", upstream)
}

/// Workers in words.
pub(super) fn workers(count: usize) -> String {
    match count {
        1 => "1 worker".to_owned(),
        _ => format!("{count} workers"),
    }
}

const CONFIG: &str = r#"
[workers]
count = WORKERS
drain_timeout = "5s"

[access_log]
file = "off"

[plugins.ewma]
wasm = "{plugins}/ewma.wasm"

[plugins.hash-ring]
wasm = "{plugins}/hash_ring.wasm"
config = { key = "$http_x_user" }

[plugins.hash-ring-bounded]
wasm = "{plugins}/hash_ring.wasm"
config = { key = "$http_x_user", balance_factor = 125 }

[listeners.web]
bind = "{listen}"

[upstreams.app]
UPSTREAM

[[routes]]
upstream = "app"
"#;
