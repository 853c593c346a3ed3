//! Measures the time from `castling reload` to a new generation that serves, with ten plugins that have not changed.
//!
//! Two workers, ten of the shipped plugins' modules. What the command says is the master's part; the whole is what a caller
//! waits for: the command's start, the reload, its end.
//!
//! ```sh
//! cargo xtask build && cargo run --release -p castling-tests --example reload_time -- [ROUNDS]
//! ```

use std::time::{Duration, Instant};

use castling_tests::{Proxy, origin};

const CONFIG: &str = r#"
    [workers]
    count = 2

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [zones.limits]
    kind = "counter"
    size = "64KiB"

    [plugins.a]
    wasm = "{plugins}/headers.wasm"
    config = { request = { set = { x-a = "1" } } }
    [plugins.b]
    wasm = "{plugins}/headers.wasm"
    config = { request = { set = { x-b = "1" } } }
    [plugins.c]
    wasm = "{plugins}/token_auth.wasm"
    config = { header = "x-token", tokens = ["t"] }
    [plugins.d]
    wasm = "{plugins}/token_auth.wasm"
    config = { header = "x-other", tokens = ["t"] }
    [plugins.e]
    wasm = "{plugins}/hello.wasm"
    [plugins.f]
    wasm = "{plugins}/ewma.wasm"
    [plugins.g]
    wasm = "{plugins}/cors.wasm"
    config = { origins = ["https://example.org"] }
    [plugins.h]
    wasm = "{plugins}/headers.wasm"
    config = { response = { set = { x-h = "1" } } }
    [plugins.i]
    wasm = "{plugins}/hello.wasm"
    [plugins.j]
    wasm = "{plugins}/token_auth.wasm"
    config = { header = "x-third", tokens = ["t"] }

    [[routes]]
    plugins = ["a", "b", "g", "h"]
    upstream = "app"
"#;

const DEFAULT_ROUNDS: usize = 20;

fn main() {
    let rounds = std::env::args()
        .nth(1)
        .map_or(DEFAULT_ROUNDS, |n| n.parse().expect("a number"));
    let proxy = Proxy::with_config(CONFIG)
        .origin("app", origin::text("hi"))
        .start();
    let mut whole: Vec<Duration> = Vec::new();
    let mut own: Vec<f64> = Vec::new();
    for _ in 0..rounds {
        let begun = Instant::now();
        let said = proxy.reload().expect_success().stdout;
        whole.push(begun.elapsed());
        let seconds = said
            .trim()
            .rsplit(' ')
            .nth(1)
            .and_then(|number| number.parse().ok());
        own.push(seconds.unwrap_or_else(|| panic!("{said}")));
        proxy.until_workers(2);
    }
    whole.sort();
    own.sort_by(f64::total_cmp);
    println!(
        "{rounds} reloads, 10 plugins unchanged, 2 workers: median {:?} for the caller, {} s in the master; longest {:?}, {} s",
        whole[rounds / 2],
        own[rounds / 2],
        whole[rounds - 1],
        own[rounds - 1],
    );
}
