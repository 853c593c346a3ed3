//! A plugin without a gateway around it, for benchmarks and fuzz targets. It is loaded, lent exchanges and called as a
//! worker does it; only the results that it waits for are invented.

pub mod cached;
pub mod components;
mod heads;
mod scripted_io;
pub mod wire;

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use castling_abi::{Action, DrawnPeer, Hook, PeerRecord};
use tokio::runtime::{LocalOptions, LocalRuntime};

use crate::config;
use crate::exchange::{Balancing, Exchange, PeerFacts, Stage};
use crate::http1::{self, HeadProgress};
use crate::message::HeadRoom;
use crate::message::{FieldName, HeadLimits};
use crate::metrics::Recorder;
use crate::process;
use crate::transport::address::ServerAddress;
use crate::wasm::compile::compile;
use crate::wasm::{Engine, HookCall, HookError, Module, PinnedInstances, Plugin, PolicyInstance};
use crate::zone::{self, Key, Zone, now_ns};
use scripted_io::ScriptedIo;

pub use crate::wasm::compile::inspect;
pub use crate::wasm::{WASI_FUNCTIONS, WASI_MODULE};
pub use castling_abi::rules::ALL as HOST_FUNCTIONS;

/// A worker's runtime and engine, one plugin in it, and one exchange.
pub struct Rig {
    plugin: Rc<Plugin>,
    pinned: PinnedInstances,
    policy: PolicyInstance,
    exchange: Box<Exchange>,
    io: ScriptedIo,
    zones: zone::Zones,
    bench: Rc<Bench>,
}

/// Engine and runtime that plugins share: reserving a worker's address space for instances takes longer than loading
/// one.
pub struct Bench {
    runtime: LocalRuntime,
    engine: Rc<Engine>,
}

impl Bench {
    pub fn new() -> Result<Rc<Self>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .map_err(|e| e.to_string())?;
        let engine = Engine::for_worker(512 << 10, config::MAX_INSTANCES as u32)
            .map_err(|e| format!("{e:#}"))?;
        Ok(Rc::new(Self {
            runtime,
            engine: Rc::new(engine),
        }))
    }
}

impl Rig {
    /// Compiles the module, and loads it as the plugin of this name in this config, with its zones. What the config
    /// says of the module's file does not matter, but it must be there.
    pub fn load(
        bench: &Rc<Bench>,
        config: &Path,
        plugin: &str,
        wasm: &[u8],
    ) -> Result<Self, String> {
        let config = config::load(config).map_err(|e| e.to_string())?;
        let zones = process::private_zones(&config).map_err(|errors| errors.join("\n"))?;
        let metrics = Recorder::alone(config.metrics.max_series).map_err(|e| e.to_string())?;
        let module = compiled(plugin, wasm)?;
        let settings = config
            .plugins
            .get(plugin)
            .ok_or("the config has no such plugin")?;
        // Alone, it meets nobody's variables but its own.
        let computes = module.manifest.computes();
        let files = process::files_for_check(&config);
        let files = bench.runtime.block_on(files)?;
        let (engine, shared) = (&bench.engine, (&zones, &files));
        let loaded = Plugin::load(engine, module, computes, settings, shared, metrics, None);
        let plugin = bench
            .runtime
            .block_on(loaded)
            .map_err(|e: HookError| e.to_string())?;
        Ok(Self {
            plugin,
            pinned: PinnedInstances::default(),
            policy: PolicyInstance::default(),
            exchange: Exchange::idle(),
            io: ScriptedIo::default(),
            zones,
            bench: Rc::clone(bench),
        })
    }

    /// Begins an exchange with this request (its head, as on the wire), a response without headers and these peers. A
    /// head that is not valid is an error.
    pub fn begin(&mut self, head: &[u8], peers: usize) -> Result<(), String> {
        let limits = HeadLimits {
            any_names: true,
            ..HeadLimits::of(1 << 20)
        };
        let mut buf = BytesMut::from(head);
        let (mut progress, mut room) = (HeadProgress::default(), HeadRoom::default());
        let parsed = http1::parse_request(&mut buf, &mut progress, &limits, &mut room)
            .map_err(|e| e.to_string())?
            .ok_or("the head is not complete")?;
        let client = SocketAddr::from(([192, 0, 2, 1], 50000)).into();
        let server = ServerAddress::Tcp(([192, 0, 2, 254], 80).into());
        self.exchange
            .begin(parsed.head, client, server, None, &Arc::from("web"));
        let facts = |peer| PeerFacts {
            address: Arc::from(format!("192.0.2.{peer}:80")),
            ..PeerFacts::new("app.test:80", &["a".to_owned(), format!("peer-{peer}")])
        };
        let record = PeerRecord {
            weight: 1,
            active: 0,
            flags: 0,
            reserved: 0,
        };
        // The last two, whoever they are.
        let drawn = |back: usize| {
            let index = u32::try_from(peers.checked_sub(back)?).ok()?;
            Some(DrawnPeer { index, record })
        };
        self.exchange.context_mut().balancing = Balancing {
            peers: vec![record; peers],
            drawn: [drawn(1), drawn(2)],
            facts: (0..peers).map(facts).collect(),
        };
        Ok(())
    }

    /// Sets a variable, of any length.
    pub fn set_var(&mut self, name: &str, value: Vec<u8>) {
        self.exchange.context_mut().vars.set(name, &value);
    }

    /// The chunk of a body that `request_body` and `response_body` see.
    pub fn set_chunk(&mut self, chunk: Vec<u8>) {
        self.exchange.body_mut().chunk = Bytes::from(chunk);
    }

    /// Adds a header to the response. False: it is not valid.
    pub fn add_reply_header(&mut self, name: &str, value: &str) -> bool {
        let name = FieldName::new(name.as_bytes());
        let headers = &mut self.exchange.reply_mut().headers;
        name.map(|name| headers.add(name, value.as_bytes()))
            .is_some()
    }

    /// Value of a key in a kv zone of the config. `None`: there is none.
    pub fn kv(&self, zone: &str, key: &[u8]) -> Option<Vec<u8>> {
        let Zone::Kv(zone) = &**self.zones.get(zone)? else {
            return None;
        };
        let key = Key::new(key).ok()?;
        zone.read(&key, now_ns(), <[u8]>::to_vec).ok()?
    }

    /// Sets the results that the plugin waits for: a byte decides each, in this order; then it may not wait.
    pub fn set_supplies(&mut self, script: &[u8]) {
        self.io = ScriptedIo::new(script);
    }

    /// Gives whatever the plugin waits for at once: an emitted part is taken, a flight is this request's to fetch.
    pub fn supply_all(&mut self) {
        self.io = ScriptedIo::repeated(2);
    }

    pub fn implements(&self, hook: Hook) -> bool {
        self.plugin.implements(hook)
    }

    /// Calls the hook so many times, in the stage that it belongs to, and says what it returned last. An instance that
    /// is kept for a request ends with each call.
    pub fn call(&mut self, hook: Hook, args: (u32, u32, u32), times: u64) -> Result<i32, String> {
        self.exchange.enter_out_of_order(Stage::of(Some(hook)));
        let bench = Rc::clone(&self.bench);
        bench.runtime.block_on(async {
            let mut last = 0;
            for _ in 0..times {
                last = match hook {
                    Hook::Balance | Hook::PeerDone => self
                        .plugin
                        .call_policy(
                            &mut self.policy,
                            HookCall::with(hook, args),
                            &mut self.exchange,
                        )
                        .finish()
                        .await
                        .map(|raw| raw as i32)
                        .map_err(|e| e.to_string())?,
                    _ => self.call_once(hook, args).await? as i32,
                };
            }
            Ok(last)
        })
    }

    /// Runs a request's life as this plugin sees it, so many times: `hooks` one after the other on the instances that
    /// the plugin's `isolation` asks for, then the end of the request.
    pub fn requests(&mut self, hooks: &[Hook], times: u64) -> Result<(), String> {
        let bench = Rc::clone(&self.bench);
        bench.runtime.block_on(async {
            for _ in 0..times {
                for &hook in hooks {
                    self.exchange.enter_out_of_order(Stage::of(Some(hook)));
                    self.plugin
                        .call(
                            HookCall::plain(hook),
                            &mut self.exchange,
                            &mut self.pinned,
                            &mut self.io,
                        )
                        .await
                        .map_err(|e| e.to_string())?;
                }
                self.pinned.release().await;
            }
            Ok(())
        })
    }

    /// Panics when what plugins have left in the exchange could not go out, or would be read differently from how it
    /// was meant.
    pub fn check_exchange(&self) {
        heads::check(&self.exchange);
    }

    async fn call_once(&mut self, hook: Hook, args: (u32, u32, u32)) -> Result<Action, String> {
        let result = self
            .plugin
            .call(
                HookCall::with(hook, args),
                &mut self.exchange,
                &mut self.pinned,
                &mut self.io,
            )
            .await;
        self.pinned.release().await;
        result.map_err(|e| e.to_string())
    }
}

/// Through a file in memory, as the compile helper's product comes through one on disk.
fn compiled(plugin: &str, wasm: &[u8]) -> Result<Module, String> {
    let (manifest, code) = compile(wasm).map_err(|e| e.to_string())?;
    let file = rustix::fs::memfd_create("module", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|e| e.to_string())?;
    let mut artefact = File::from(file);
    artefact.write_all(&code).map_err(|e| e.to_string())?;
    Ok(Module {
        plugin: plugin.to_owned(),
        manifest,
        artefact,
    })
}
