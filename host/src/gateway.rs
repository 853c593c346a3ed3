//! What one worker makes of one generation: its plugins, upstreams, listeners and routes, and the traffic under way.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use castling_abi::Hook;
use serde::{Deserialize, Serialize};

use crate::balancer::Balancer;
use crate::config::{self, Accept, Balance, Config, PathPolicy};
use crate::flow::timer;
use crate::listener::{self, Acceptor, Listener, ListeningSocket, Shedder};
use crate::log::{self, AccessLog};
use crate::metrics::Recorder;
use crate::phase::{MAX_COMPUTED, Plan, Router, UpstreamIdx};
use crate::runtime::alarm::{self, Alarms};
use crate::upstream::{self, Upstream};
pub use crate::wasm::Module;
use crate::wasm::{
    self, Capability, Engine, HookError, Manifest, Plugin, PluginStatus, Step, TimerOn,
};
use crate::worker_context::WorkerContext;
use crate::zone::{self, Zone, ZoneStatus, Zones};

pub struct Gateway {
    config: Rc<Config>,
    plugins: BTreeMap<String, Rc<Plugin>>,
    listeners: BTreeMap<String, Rc<Listener>>,
    zones: Zones,
    worker: Rc<WorkerContext>,
    shedder: Rc<Shedder>,
    /// Those that are accepted on.
    sockets: RefCell<Vec<(Rc<Listener>, Rc<ListeningSocket>)>>,
}

/// One worker's part of `castling status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStatus {
    pub connections: usize,
    pub requests_active: usize,
    pub requests_total: u64,
    pub plugins: Vec<PluginStatus>,
    pub zones: Vec<ZoneStatus>,
}

/// What a generation is built from, as far as it is built.
struct Parts {
    metrics: Recorder,
    plugins: BTreeMap<String, Rc<Plugin>>,
    upstreams: BTreeMap<String, Rc<Upstream>>,
    errors: Vec<String>,
}

impl Gateway {
    /// The engine that [`Self::build`] takes. The error is a line for a person.
    pub fn engine(config: &Config) -> Result<Engine, Vec<String>> {
        let instances = wasm::instances(config);
        Engine::for_worker(config.workers.plugin_stack_bytes, instances)
            .map_err(|e| vec![format!("the plugin engine cannot start: {e:#}")])
    }

    /// Loads the modules, instantiates and configures every plugin, resolves the upstreams' names. Must run where
    /// local tasks can be spawned, which then serve. `gateway_id` is the same in all workers, and no other gateway's. The error is every line that a person should read, with places.
    pub async fn build(
        config: Rc<Config>,
        engine: Engine,
        modules: Vec<Module>,
        zones: Zones,
        metrics: Recorder,
        gateway_id: u64,
    ) -> Result<Rc<Self>, Vec<String>> {
        let alarms = Alarms::new(alarm::FINE);
        let mut parts = Parts {
            metrics,
            plugins: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            errors: Vec::new(),
        };
        parts
            .load_plugins(&config, Rc::new(engine), modules, &zones)
            .await;
        parts.resolve_upstreams(&config, &alarms).await;
        let access_log = AccessLog::open(&config.access_log).unwrap_or_else(|error| {
            parts.errors.push(error);
            None
        });
        let routers = parts.routers(&config, access_log.as_deref());
        if !parts.errors.is_empty() {
            return Err(parts.errors);
        }
        tokio::task::spawn_local(alarms.clone().watch());
        for upstream in parts.upstreams.values() {
            tokio::task::spawn_local(Rc::clone(upstream).sweep());
        }
        let listeners = routers.into_iter().map(|(name, router)| {
            let counted = metrics.listener(&name);
            let config = &config.listeners[&name];
            let listener = Listener::new(&name, config, router, counted, gateway_id);
            (name, listener)
        });
        let upstreams = parts.upstreams.into_values().collect();
        let worker = WorkerContext::new(upstreams, alarms, access_log, metrics);
        tokio::task::spawn_local(worker.idle_alarms().clone().watch());
        Ok(Rc::new(Self {
            listeners: listeners.collect(),
            plugins: parts.plugins,
            zones,
            worker,
            config,
            shedder: Shedder::new(),
            sockets: RefCell::default(),
        }))
    }

    /// Its generation serves: what its plugins have defined as metrics is shown. Before anything is accepted.
    pub fn begin_to_serve(&self) {
        self.worker.metrics().serve();
    }

    /// Starts to accept on a bound and listening socket of this listener.
    pub fn accept(&self, listener: &str, socket: OwnedFd, accept: Accept) -> io::Result<()> {
        let Some(listener) = self.listeners.get(listener) else {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no listener {listener}"),
            ));
        };
        let socket = Rc::new(ListeningSocket::new(socket, accept)?);
        let accepting = listener::accept(Rc::clone(&socket), Rc::clone(listener), self.taker());
        tokio::task::spawn_local(accepting);
        let mut sockets = self.sockets.borrow_mut();
        sockets.push((Rc::clone(listener), socket));
        Ok(())
    }

    fn taker(&self) -> Acceptor {
        Acceptor {
            worker: Rc::clone(&self.worker),
            shedder: Rc::clone(&self.shedder),
        }
    }

    /// Starts the plugins' timers, those for one worker of the generation only where this is that one.
    pub fn start_timers(&self, is_the_one: bool) {
        for (name, plugin) in &self.plugins {
            let Some(timer) = plugin.manifest.timer else {
                continue;
            };
            if timer.on == TimerOn::OneWorker && !is_the_one {
                continue;
            }
            let every = self.config.plugins[name].timer;
            let every = every.unwrap_or(Duration::from_millis(timer.every_ms));
            tokio::task::spawn_local(timer::run(
                Rc::clone(plugin),
                every,
                Rc::clone(&self.worker),
            ));
        }
    }

    /// Has this worker remove what has expired in kv zones. One worker of a generation is enough.
    pub fn sweep_zones(&self) {
        for zone in self.zones.values() {
            if let Zone::Kv(_) = **zone {
                tokio::task::spawn_local(zone::sweep(Arc::clone(zone)));
            }
        }
    }

    /// No connection is accepted any more when this returns.
    pub fn stop_accepting(&self) {
        self.worker.begin_drain();
        for (listener, socket) in self.sockets.take() {
            listener::accept_leftover(&socket, &listener, &self.taker());
        }
    }

    /// Stops accepting and lets connections finish. Returns when none is left, or after the time-out; what is left
    /// then ends with the process.
    pub async fn drain(&self, timeout: Duration) {
        self.worker.drain(timeout).await;
    }

    pub fn status(&self) -> GatewayStatus {
        GatewayStatus {
            connections: self.worker.connections(),
            requests_active: self.worker.requests_active(),
            requests_total: self.worker.requests_total(),
            plugins: self
                .plugins
                .values()
                .map(|plugin| plugin.status())
                .collect(),
            // One that cannot be looked at now is told where it is used.
            zones: self
                .zones
                .iter()
                .filter_map(|(name, zone)| zone.status(name).ok())
                .collect(),
        }
    }

    /// Resolves when much memory has been freed that the allocator may still hold.
    pub async fn memory_ebbs(&self) {
        self.worker.heap_trim.due().await;
    }

    pub fn reopen_logs(&self) {
        log::reopen(None);
        self.worker.reopen_access_log();
    }

    /// What runs here, for `castling check`: listeners with their routes and phases, plugins, upstreams.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (name, listener) in &self.listeners {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "listener {name} on {}",
                self.config.listeners[name].bind
            );
            for plan in listener.router.plans() {
                let route = plan.route.as_deref().unwrap_or_default();
                let target = match plan.upstream {
                    Some(idx) => format!("upstream {}", self.worker.upstream(idx).name),
                    None if plan.metrics => "metrics".to_owned(),
                    None => "content of its plugins".to_owned(),
                };
                let _ = writeln!(text, "  route {route} -> {target}");
                if !plan.describe().is_empty() {
                    let _ = writeln!(text, "    {}", plan.describe());
                }
            }
        }
        for warning in self.path_warnings() {
            let _ = writeln!(text, "warning: {warning}");
        }
        for (name, plugin) in &self.plugins {
            let manifest = &plugin.manifest;
            let hooks = manifest.hooks.join(", ");
            let _ = writeln!(
                text,
                "plugin {name}: {} {} ({hooks})",
                manifest.name, manifest.version
            );
        }
        for upstream in self.worker.upstreams() {
            let peers: Vec<String> = upstream
                .balancer
                .peers()
                .iter()
                .map(|peer| peer.label.to_string())
                .collect();
            let _ = writeln!(text, "upstream {}: {}", upstream.name, peers.join(", "));
        }
        text
    }
}

impl Gateway {
    /// Routes whose plugins a client could get around, where a peer reads a path otherwise than the gateway.
    fn path_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (listener, of_listener) in &self.listeners {
            let plans = of_listener.router.plans();
            for (idx, plan) in plans.iter().enumerate() {
                let other = plans[..idx].iter().find(|other| {
                    let is_as_sent = [plan, other]
                        .iter()
                        .any(|plan| plan.paths == PathPolicy::AsSent);
                    let is_same = plan.upstream.is_some() && plan.upstream == other.upstream;
                    is_as_sent && is_same && plan.describe() != other.describe()
                });
                let Some(other) = other else { continue };
                let name = |plan: &Plan| plan.route.as_deref().unwrap_or_default().to_owned();
                warnings.push(format!(
                    "listener {listener}: routes {} and {} differ in plugins and share an upstream, and with paths = \
                     \"as_sent\" a client may reach one by a path of the other",
                    name(other),
                    name(plan)
                ));
            }
        }
        warnings
    }
}

impl Parts {
    async fn load_plugins(
        &mut self,
        config: &Config,
        engine: Rc<Engine>,
        modules: Vec<Module>,
        zones: &Zones,
    ) {
        let meets_computed = beside_computing(config, &modules);
        for module in modules {
            let name = module.plugin.clone();
            let Some(plugin_config) = config.plugins.get(&name) else {
                self.errors.push(format!(
                    "a module came for plugin {name}, which the config does not have"
                ));
                continue;
            };
            let ungranted = ungranted(&module.manifest, plugin_config, zones);
            if !ungranted.is_empty() {
                let (place, wasm) = (&plugin_config.place, plugin_config.wasm.display());
                let line = |what| format!("{place}: plugin {name}: {wasm} {what}");
                self.errors.extend(ungranted.into_iter().map(line));
                continue;
            }
            let metrics = self.metrics;
            let meets = meets_computed.contains(&name);
            match Plugin::load(&engine, module, meets, plugin_config, zones, metrics).await {
                Ok(plugin) => {
                    self.plugins.insert(name, plugin);
                }
                Err(error) => self.errors.push(configure_error(config, &name, &error)),
            }
        }
    }

    async fn resolve_upstreams(&mut self, config: &Config, alarms: &Alarms) {
        for (name, upstream) in &config.upstreams {
            let peers = match upstream::resolve(&upstream.peers).await {
                Ok(peers) => peers,
                Err(error) => {
                    self.errors
                        .push(format!("{}: upstream {name}: {error}", upstream.place));
                    continue;
                }
            };
            let balancer = match &upstream.balance {
                Balance::RoundRobin => Balancer::round_robin(peers),
                Balance::LeastConn => Balancer::least_conn(peers),
                Balance::Plugin(plugin) => match self.plugins.get(plugin) {
                    Some(plugin) if plugin.implements(Hook::Balance) => {
                        Balancer::plugin(peers, Rc::clone(plugin))
                    }
                    Some(_) => {
                        let place = &upstream.place;
                        self.errors.push(format!(
                            "{place}: upstream {name}: plugin {plugin} has no `balance` hook"
                        ));
                        continue;
                    }
                    // Its own error is told already.
                    None => continue,
                },
            };
            self.upstreams.insert(
                name.clone(),
                Upstream::new(
                    name,
                    upstream,
                    balancer,
                    alarms,
                    self.metrics.upstream(name),
                ),
            );
        }
    }

    /// Flattens the phases of each listener's routes.
    fn routers(
        &mut self,
        config: &Config,
        access_log: Option<&AccessLog>,
    ) -> BTreeMap<String, Router> {
        let is_logged = |name: &str| access_log.is_some_and(|log| log.shows(name));
        let mut routers = BTreeMap::new();
        for (name, listener) in &config.listeners {
            let own = self.named(&listener.plugins);
            let unrouted = Plan {
                requests: self.metrics.requests(name, ""),
                ..Plan::new(None, None, &own, is_logged)
            };
            if let Some(variable) = unrouted.variables.first() {
                let place = &config.plugins[&*variable.step.plugin.name].place;
                self.check_variables(place, &format!("listener {name}"), &unrouted);
            }
            let of_listener = |route: &&config::Route| {
                route.listeners.is_empty() || route.listeners.contains(name)
            };
            let mut plans = Vec::new();
            for route in config.routes.iter().filter(of_listener) {
                let of_route = self.named(&route.plugins);
                let plugins: Vec<Step> = own.iter().chain(&of_route).cloned().collect();
                let upstream = route
                    .upstream
                    .as_ref()
                    .and_then(|name| self.upstream_idx(name));
                let plan = Plan {
                    metrics: route.metrics,
                    paths: route.paths.unwrap_or(listener.paths),
                    requests: self.metrics.requests(name, &route.name),
                    ..Plan::new(
                        Some(route.name.as_str().into()),
                        upstream,
                        &plugins,
                        is_logged,
                    )
                };
                self.check_route(route, &of_route, &plan);
                self.check_variables(&route.place, &format!("route {}", route.name), &plan);
                plans.push((route, Rc::new(plan)));
            }
            let post_read = Step::list(&own, Hook::PostRead);
            let compared = (listener.paths, listener.case);
            let router = Router::new(post_read, Rc::new(unrouted), compared, plans);
            routers.insert(name.clone(), router);
        }
        // A route of several listeners has its faults once.
        self.errors.dedup();
        routers
    }

    fn check_route(&mut self, route: &config::Route, of_route: &[Step], plan: &Plan) {
        let (place, name) = (&route.place, &route.name);
        let all_loaded = route.plugins.len() == of_route.len();
        // A plugin may answer whatever comes already in `rewrite`, or send it to another route.
        let may_answer = !plan.content.is_empty() || !plan.rewrite.is_empty();
        let unanswered = route.upstream.is_none() && !route.metrics && !may_answer;
        if unanswered && all_loaded {
            self.errors.push(format!(
                "{place}: route {name}: expected `upstream` or a plugin with a `content` or \
                 `rewrite` hook"
            ));
        }
        for Step { plugin, .. } in of_route
            .iter()
            .filter(|step| step.plugin.implements(Hook::PostRead))
        {
            let plugin = &plugin.name;
            self.errors.push(format!(
                "{place}: route {name}: plugin {plugin} has a `post_read` hook, which runs before routing; list it in \
                 `plugins` of a listener"
            ));
        }
    }

    /// Each variable has one plugin that computes it.
    fn check_variables(&mut self, place: &str, what: &str, plan: &Plan) {
        let names = plan.computable.as_deref().unwrap_or_default();
        if names.len() > MAX_COMPUTED {
            let count = names.len();
            self.errors.push(format!(
                "{place}: {what}: its plugins compute {count} variables; expected at most {MAX_COMPUTED}"
            ));
        }
        for (idx, variable) in names.iter().enumerate() {
            if let Some(other) = names[..idx].iter().position(|earlier| earlier == variable) {
                let by = |idx: usize| &plan.variables[idx].step.plugin.name;
                let (first, second) = (by(other), by(idx));
                self.errors.push(format!(
                    "{place}: {what}: plugins {first} and {second} both compute ${variable}; expected one that does"
                ));
            }
        }
    }

    /// Those that could be loaded; the others' errors are told already.
    fn named(&self, uses: &[config::PluginUse]) -> Vec<Step> {
        let step = |one: &config::PluginUse| {
            let plugin = self.plugins.get(&one.name)?;
            Some(Step::new(plugin, one.on_error))
        };
        uses.iter().filter_map(step).collect()
    }

    fn upstream_idx(&self, name: &str) -> Option<UpstreamIdx> {
        self.upstreams
            .keys()
            .position(|other| other == name)
            .map(UpstreamIdx)
    }
}

/// The plugins whose hooks run in a plan with one that computes variables: those of a route and of its listener.
fn beside_computing(config: &Config, modules: &[Module]) -> BTreeSet<String> {
    let computes = |one: &&config::PluginUse| {
        let module = modules.iter().find(|module| module.plugin == one.name);
        module.is_some_and(|module| !module.manifest.variables.is_empty())
    };
    let mut beside = BTreeSet::new();
    let mut add = |plan: &[&config::PluginUse]| {
        if plan.iter().any(computes) {
            beside.extend(plan.iter().map(|one| one.name.clone()));
        }
    };
    for (name, listener) in &config.listeners {
        let own: Vec<_> = listener.plugins.iter().collect();
        add(&own);
        for route in &config.routes {
            if route.listeners.is_empty() || route.listeners.contains(name) {
                let of_route = route.plugins.iter();
                add(&own.iter().copied().chain(of_route).collect::<Vec<_>>());
            }
        }
    }
    beside
}

/// What the module uses and the config says nothing of.
fn ungranted(manifest: &Manifest, config: &config::Plugin, zones: &Zones) -> Vec<&'static str> {
    let grants = &config.grants;
    // An empty list is meant so.
    let lacks_kind = |is_kind: fn(&Zone) -> bool| match grants.zones.as_deref() {
        None | Some([]) => false,
        Some(names) => !names
            .iter()
            .filter_map(|name| zones.get(name))
            .any(|zone| is_kind(zone)),
    };
    let missing = manifest
        .uses
        .iter()
        .filter_map(|capability| match capability {
            Capability::Upstreams if grants.upstreams.is_none() && !grants.own_routes => Some(
                "makes calls out, which nothing grants; expected `grants = { upstreams = [...] }`, where [] is for none, or \
                 `own_routes = true`",
            ),
            Capability::CounterZones | Capability::KvZones if grants.zones.is_none() => Some(
                "uses a zone, which nothing grants; expected `grants = { zones = [...] }`, where [] is for none",
            ),
            Capability::CounterZones if lacks_kind(|zone| matches!(zone, Zone::Counter(_))) => {
                Some("uses a counter zone; expected one in `grants.zones`, where no zone is of that kind")
            }
            Capability::KvZones if lacks_kind(|zone| matches!(zone, Zone::Kv(_))) => {
                Some("uses a kv zone; expected one in `grants.zones`, where no zone is of that kind")
            }
            Capability::Upstreams | Capability::CounterZones | Capability::KvZones => None,
        });
    let mut missing: Vec<_> = missing.collect();
    missing.dedup();
    missing
}

/// Points at the key of the plugin's config that its error begins with (`config.tokens[1]: ...`), else at the plugin.
fn configure_error(config: &Config, name: &str, error: &HookError) -> String {
    let said = error.to_string();
    let key = said
        .split_once(": ")
        .map(|(path, _)| path)
        .filter(|path| path.starts_with("config"));
    let place = key.and_then(|path| config::place_in_plugin_config(config, name, path));
    let place = place.unwrap_or_else(|| config.plugins[name].place.clone());
    format!("{place}: plugin {name}: {said}")
}
