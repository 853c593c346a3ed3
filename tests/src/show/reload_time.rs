//! How long a reload takes with ten plugins that stay as they are.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Progress, Report};
use crate::{Proxy, control, origin};

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub reloads: usize,
    /// Longest time that is promised. None: nothing, on a machine that does other things.
    pub goal: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reloads: 20,
            goal: Some(Duration::from_millis(100)),
        }
    }
}

/// Runs it.
pub fn run(options: &Options, progress: &mut Progress) -> Report {
    let proxy = Proxy::with_config(CONFIG)
        .origin("app", origin::text("hello"))
        .start();
    let mut report = Report::new(format!(
        "Reload time: {} reloads of a gateway with 10 plugins, none of them changed",
        options.reloads
    ));
    let mut failures = Vec::new();
    // Reloads as a person makes them: a process that starts, asks, waits and ends.
    let mut by_command = times(options, progress, || {
        let mut command = Command::new(crate::castling_bin());
        let config = proxy.path("castling.toml");
        command.arg("reload").arg("--config").arg(config);
        let output = command.stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        if !output.status.success() {
            failures.push(String::from_utf8_lossy(&output.stderr).into_owned());
        }
    });
    let mut by_socket = times(options, progress, || {
        failures.extend(control::reload(&proxy.path("castling.sock")).err());
    });
    let served = proxy.get("/").text();
    let reloads = 2 * options.reloads;
    report.claim(
        "every reload is done and the gateway serves",
        format!("{} of {reloads}, {served:?}", reloads - failures.len()),
        failures.is_empty() && served == "hello",
    );
    let told = told(&mut by_command);
    match options.goal {
        None => report.figure("from `castling reload` to the new generation serving", told),
        Some(goal) => {
            let median = by_command[by_command.len() / 2];
            let worst = by_command.last().copied().unwrap_or_default();
            let what = |which| format!("`castling reload` takes at most {goal:?}, {which}");
            report.claim(what("median"), &told, median <= goal);
            report.claim(what("worst"), &told, worst <= goal);
        }
    }
    report.figure(
        "the same asked over the control socket",
        self::told(&mut by_socket),
    );
    report.details(failures);
    report
}

fn times(options: &Options, progress: &mut Progress, mut reload: impl FnMut()) -> Vec<Duration> {
    let mut times = Vec::new();
    // The first one is not counted: it may find files that the kernel has yet to read.
    for number in 0..=options.reloads {
        progress.tell(|| format!("{number} reloads"));
        let begun = Instant::now();
        reload();
        if number > 0 {
            times.push(begun.elapsed());
        }
        // Workers of the old generation have ended before the next one begins.
        std::thread::sleep(PAUSE);
    }
    times
}

/// Sorts them.
fn told(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let worst = times.last().copied().unwrap_or_default();
    format!("median {median:.1?}, worst {worst:.1?} of {}", times.len())
}

const PAUSE: Duration = Duration::from_millis(150);

const CONFIG: &str = r#"
    [plugins.token-auth]
    wasm = "{plugins}/token_auth.wasm"
    config = { header = "x-token", tokens = ["s3cret"] }

    [plugins.jwt]
    wasm = "{plugins}/jwt.wasm"
    grants = { upstreams = [], zones = [] }

    [plugins.jwt.config]
    issuers = ["https://idp.example"]
    keys = [{ secret = "0123456789abcdef0123456789abcdef" }]

    [plugins.external-auth]
    wasm = "{plugins}/external_auth.wasm"
    config = { upstream = "app", path = "/verify" }
    grants = { upstreams = ["app"] }

    [plugins.hmac-body]
    wasm = "{plugins}/hmac_body.wasm"
    config = { header = "x-signature", secrets = ["0123456789abcdef"] }

    [plugins.rate-limit]
    wasm = "{plugins}/rate_limit.wasm"
    config = { zone = "limits", rate = "10/s", burst = 20 }
    grants = { zones = ["limits"] }

    [plugins.cors]
    wasm = "{plugins}/cors.wasm"
    config = { origins = ["https://app.example.com"] }

    [plugins.canary]
    wasm = "{plugins}/canary.wasm"
    config = { variants = { stable = 95, canary = 5 } }

    [plugins.headers]
    wasm = "{plugins}/headers.wasm"
    config = { response = { set = { x-served-by = "$upstream" } } }

    [plugins.substitute]
    wasm = "{plugins}/substitute.wasm"
    config = { replace = [{ from = "nothing", to = "something" }] }

    [plugins.ewma]
    wasm = "{plugins}/ewma.wasm"

    [zones.limits]
    kind = "counter"
    size = "1MiB"

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]
    balance = { plugin = "ewma" }

    [[routes]]
    path = "/api"
    plugins = ["cors", "canary", "rate-limit", "token-auth", "jwt", "external-auth", "hmac-body"]
    upstream = "app"

    [[routes]]
    plugins = ["headers", "substitute"]
    upstream = "app"
"#;
