//! Gateways with the plugin that breaks every rule when a request asks for it (`tests/guests/hostile`).

use crate::origin::{self, Origin};
use crate::{Proxy, Setup};

/// A gateway with one worker and the hostile plugin, with these lines in its table; the origin answers "hello".
#[track_caller]
pub fn hostile(more: &str) -> Proxy {
    hostile_before(origin::text("hello"), more)
}

/// Starts [`setup`] before another origin.
#[track_caller]
pub fn hostile_before(app: Origin, more: &str) -> Proxy {
    setup("", more).origin("app", app).start()
}

/// Setup of such a gateway, not started, with these lines in `[workers]`; the origin is to be called `app`.
pub fn setup(workers: &str, more: &str) -> Setup {
    let config = r#"
        [workers]
        count = 1
        WORKERS

        [plugins.hostile]
        wasm = "{guests}/hostile.wasm"
        MORE

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]
        balance = { plugin = "hostile" }

        [[routes]]
        plugins = ["hostile"]
        upstream = "app"
    "#;
    Proxy::with_config(&config.replace("WORKERS", workers).replace("MORE", more))
}
