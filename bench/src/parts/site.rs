//! The config and the modules that are measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use castling::rig::{Bench, Rig};

/// A folder with a config that has all plugins.
pub(super) struct Site {
    folder: tempfile::TempDir,
    guests: PathBuf,
    plugins: PathBuf,
    bench: Rc<Bench>,
}

impl Site {
    pub(super) fn new(guests: &Path, plugins: &Path) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        // The rig loads the module that it is given, but a config names files that are there.
        fs::write(folder.path().join("x.wasm"), "").map_err(|e| e.to_string())?;
        fs::write(folder.path().join("castling.toml"), CONFIG).map_err(|e| e.to_string())?;
        Ok(Self {
            folder,
            guests: guests.to_owned(),
            plugins: plugins.to_owned(),
            bench: Bench::new()?,
        })
    }

    /// A test guest, as the plugin of this name in the config.
    pub(super) fn guest(&self, plugin: &str, module: &str) -> Result<Rig, String> {
        self.load(plugin, &self.guests.join(module))
    }

    /// The test guest was built: where the standard library of its target could be had.
    pub(super) fn has(&self, module: &str) -> bool {
        self.guests.join(module).exists()
    }

    /// A shipped plugin.
    pub(super) fn shipped(&self, plugin: &str, module: &str) -> Result<Rig, String> {
        self.load(plugin, &self.plugins.join(module))
    }

    fn load(&self, plugin: &str, module: &Path) -> Result<Rig, String> {
        let about = |error: String| format!("{}: {error}", module.display());
        let wasm = fs::read(module).map_err(|e| about(e.to_string()))?;
        self.load_bytes(plugin, &wasm).map_err(about)
    }

    pub(super) fn load_bytes(&self, plugin: &str, wasm: &[u8]) -> Result<Rig, String> {
        let config = self.folder.path().join("castling.toml");
        let mut rig = Rig::load(&self.bench, &config, plugin, wasm)?;
        rig.begin(REQUEST, PEERS)?;
        Ok(rig)
    }

    /// A rig whose request has the peers of a very large service to choose from.
    pub(super) fn with_many_peers(&self, mut rig: Rig) -> Result<Rig, String> {
        rig.begin(REQUEST, MANY_PEERS)?;
        Ok(rig)
    }
}

const CONFIG: &str = r#"
[plugins.measured]
wasm = "x.wasm"
grants = { zones = ["counts"] }

[plugins.primitives]
wasm = "x.wasm"
grants = { zones = ["permits", "values"] }
config = { permits = "permits", values = "values" }

[plugins.marks]
wasm = "x.wasm"

[plugins.measured-fresh]
wasm = "x.wasm"
isolation = "request"
grants = { zones = ["counts"] }

[plugins.bare]
wasm = "x.wasm"

[plugins.bare-fresh]
wasm = "x.wasm"
isolation = "request"

[plugins.token-auth]
wasm = "x.wasm"
config = { header = "x-token", tokens = ["s3cret"] }

[plugins.token-auth-fresh]
wasm = "x.wasm"
isolation = "request"
config = { header = "x-token", tokens = ["s3cret"] }

[plugins.substitute]
wasm = "x.wasm"
config = { replace = [{ from = "http://internal.example", to = "http://internal.example" }] }

[plugins.substitute-five]
wasm = "x.wasm"

[plugins.substitute-five.config]
replace = [
    { from = "http://internal.example", to = "http://internal.example" },
    { from = "</body>", to = "<script></script></body>" },
    { from = "some words of a site", to = "a" },
    { from = "<title>", to = "b" },
    { from = "wordless", to = "c" },
]

[plugins.ewma]
wasm = "x.wasm"

[zones.counts]
kind = "counter"
size = "1MiB"

[zones.permits]
kind = "gauge"
size = "1MiB"

[zones.values]
kind = "kv"
size = "1MiB"

[upstreams.app]
peers = ["192.0.2.1:80"]

[listeners.web]
bind = "127.0.0.1:8080"

[[routes]]
upstream = "app"
"#;

/// Head that a browser sends, less its cookies.
const REQUEST: &[u8] = b"GET /api/orders?page=2 HTTP/1.1\r\n\
    host: example.com\r\n\
    user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    accept-language: en-US,en;q=0.5\r\n\
    accept-encoding: gzip, deflate, br\r\n\
    x-token: s3cret\r\n\
    referer: https://example.com/\r\n\
    sec-fetch-mode: navigate\r\n\r\n";

/// Number of peers that the goal for `balance` speaks of.
const PEERS: usize = 8;

const MANY_PEERS: usize = 1000;
