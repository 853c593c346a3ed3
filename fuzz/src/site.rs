//! A config with one plugin that is granted something of everything.

use std::fs;
use std::path::Path;
use std::rc::Rc;

use castling::rig::{Bench, Rig};

/// A folder with the config. One that cannot be made is a broken target, not a finding.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    bench: Rc<Bench>,
}

/// The name of the plugin, of the counter zone and of the upstream that it is granted.
pub(crate) const NAME: &str = "x";

/// Name of the kv zone that the plugin is granted.
pub(crate) const KV_NAME: &str = "y";

/// Name of the gauge zone that the plugin is granted.
pub(crate) const GAUGE_NAME: &str = "z";

/// Name of the topic that the plugin is granted.
pub(crate) const TOPIC_NAME: &str = "t";

impl Site {
    /// The config of this module, with more lines for the plugin.
    pub(crate) fn new(plugin: &str) -> Self {
        Self::with_config(&CONFIG.replace("PLUGIN", plugin))
    }

    /// A config with a plugin of this module's name.
    pub(crate) fn with_config(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).expect("its files can be written");
        };
        // The rig loads its module from elsewhere, but a config names files that are there.
        write("x.wasm", "");
        write("castling.toml", config);
        Self {
            folder,
            bench: Bench::new().expect("the engine starts"),
        }
    }

    pub(crate) fn load(&self, wasm: &[u8]) -> Result<Rig, String> {
        Rig::load(&self.bench, &self.config(), NAME, wasm)
    }

    fn config(&self) -> std::path::PathBuf {
        Path::join(self.folder.path(), "castling.toml")
    }
}

// A plugin that traps must stay in service, or the next input would find it out.
const CONFIG: &str = r#"
[plugins.x]
wasm = "x.wasm"
config = { text = "some", number = 7 }
grants = { upstreams = ["x"], zones = ["x", "y", "z", "t"], own_routes = true }
quarantine = { traps = 0 }
PLUGIN

[zones.x]
kind = "counter"
size = "64KiB"

[zones.y]
kind = "kv"
size = "1MiB"

[zones.z]
kind = "gauge"
size = "4KiB"

[zones.t]
kind = "topic"
size = "64KiB"

[upstreams.x]
peers = ["192.0.2.1:80"]

[listeners.web]
bind = "127.0.0.1:8080"

[[routes]]
upstream = "x"
"#;
