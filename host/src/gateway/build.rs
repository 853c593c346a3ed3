//! Builds a gateway: loads plugins, makes upstreams, flattens the phases of routes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use castling_abi::Hook;

use super::check::ungranted;
use super::services::{own_routes, services};
use super::{Gateway, SharedMemory};
use crate::balancer::{self, Balancer, Rules, SessionStore};
use crate::config::{self, Balance, Bind, Config, PeerProtocol, Redirect, Serves};
use crate::connection::{Serving, StreamPool};
use crate::downstream::SpillFile;
use crate::exchange::Template;
use crate::gateway::Identity;
use crate::listener::{Acceptor, Shedder};
use crate::log::AccessLog;
use crate::metrics::Recorder;
use crate::phase::{
    Check, Native, Plan, PluginStep, RoutePlan, Router, Split, Step, UpstreamIdx, Upstreams,
};
use crate::runtime::alarm::{self, Alarms};
use crate::transport::tls::{ClientTls, HandshakeTurns, ServerTls, SystemRoots, TicketChain};
use crate::upstream::{KeepAlive, Mirror, PeerFactory, PeerList, PeerStates, Upstream};
use crate::wasm::{self, Capability, Engine, GrantedFiles, HookError, Module, Plugin};
use crate::worker_context::WorkerContext;
use crate::zone::{Zone, Zones};

/// Parts of a gateway, as far as they are built.
pub(super) struct Parts {
    pub(super) metrics: Recorder,
    /// Plugins with their own config; of one that runs only with configs of routes, the first of these.
    plugins: BTreeMap<String, Rc<Plugin>>,
    /// Plugins with a config of a listener or a route, by name and config.
    pools: BTreeMap<(String, String), Rc<Plugin>>,
    upstreams: BTreeMap<String, Rc<Upstream>>,
    pub(super) errors: Vec<String>,
}

impl Gateway {
    /// The engine that [`Self::build`] takes. The error is a line for a person.
    pub fn engine(config: &Config) -> Result<Engine, Vec<String>> {
        let instances = wasm::instances(config);
        Engine::for_worker(config.workers.plugin_stack_bytes, instances)
            .map_err(|e| vec![format!("the plugin engine cannot start: {e:#}")])
    }

    /// Loads the modules, instantiates and configures every plugin, makes the peers of each upstream as they are listed. Must
    /// run where local tasks can be spawned, which then serve. The error is every line that a person should read, with places.
    pub async fn build(
        config: Rc<Config>,
        engine: Engine,
        modules: Vec<Module>,
        memory: SharedMemory,
        lists: &BTreeMap<String, PeerList>,
        identity: &Identity,
    ) -> Result<Rc<Self>, Vec<String>> {
        let SharedMemory {
            zones,
            metrics,
            peers,
            flights,
            spill_file,
            files,
        } = memory;
        let alarms = Alarms::new(alarm::FINE);
        let mut parts = Parts {
            metrics,
            plugins: BTreeMap::new(),
            pools: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            errors: Vec::new(),
        };
        parts
            .load_plugins(&config, Rc::new(engine), modules, (&zones, &files))
            .await;
        let turns = Rc::new(HandshakeTurns::default());
        parts.make_upstreams(&config, (lists, &peers, &zones), &turns, &alarms);
        let access_log = AccessLog::open(&config.access_log).unwrap_or_else(|error| {
            parts.errors.push(error);
            None
        });
        let routers = parts.routers(&config, &zones, access_log.as_deref());
        let mut tls = parts.tls(&config, &identity.ticket_chain, &turns);
        let host_calls = parts.host_calls(&config, &turns);
        if !parts.errors.is_empty() {
            return Err(parts.errors);
        }
        tokio::task::spawn_local(alarms.clone().watch());
        for upstream in parts.upstreams.values() {
            tokio::task::spawn_local(Rc::clone(upstream).sweep());
            if config.upstreams[&*upstream.name].keepalive.min_idle > 0 {
                tokio::task::spawn_local(Rc::clone(upstream).keep_warm());
            }
        }
        let upstreams = parts.upstreams.into_values().collect();
        if config.spills() {
            metrics
                .spill()
                .missing
                .set(f64::from(u8::from(spill_file.is_none())));
        }
        let spill_file = spill_file.zip(config.workers.spill.as_ref());
        let spill_file = spill_file
            .map(|(file, spill)| SpillFile::new(file, spill.limit_bytes, metrics.spill()));
        let worker = WorkerContext::new(
            upstreams, alarms, access_log, metrics, spill_file, flights, host_calls,
        );
        tokio::task::spawn_local(worker.idle_alarms().clone().watch());
        let (shedder, workspaces) = (Shedder::new(), Rc::default());
        let streams = Rc::new(StreamPool::new(worker.alarms()));
        let services = services(&config, routers, metrics, identity.id);
        worker.set_own_routes(own_routes(&config, &services));
        let acceptors = services.into_iter().map(|(name, service)| {
            let config = &config.listeners[&name];
            let serving = Rc::new(Serving {
                service,
                worker: Rc::clone(&worker),
                workspaces: Rc::clone(&workspaces),
                streams: Rc::clone(&streams),
            });
            let tls = tls.remove(&name);
            (name, Acceptor::new(config, tls, serving, &shedder))
        });
        Ok(Rc::new(Self {
            acceptors: acceptors.collect(),
            plugins: parts.plugins,
            pools: parts.pools.into_values().collect(),
            zones,
            files,
            worker,
            config,
            sockets: RefCell::default(),
        }))
    }
}

impl Parts {
    /// TLS of the listeners that have it.
    fn tls(
        &mut self,
        config: &Config,
        chain: &TicketChain,
        turns: &Rc<HandshakeTurns>,
    ) -> BTreeMap<String, Rc<ServerTls>> {
        let mut made = BTreeMap::new();
        for (name, listener) in &config.listeners {
            let Some(tls) = &listener.tls else {
                continue;
            };
            let Serves::Http(http) = &listener.serves;
            let alpn: &[&[u8]] = match http.http2 {
                Some(_) => &[b"h2", b"http/1.1"],
                None => &[b"http/1.1"],
            };
            let metrics = self.metrics.handshakes(name);
            for (first_name, end) in certificate_ends(tls) {
                self.metrics.certificate(name, first_name, end);
            }
            match ServerTls::new(name, tls, alpn, chain, turns, metrics) {
                Ok(tls) => {
                    made.insert(name.clone(), Rc::new(tls));
                }
                Err(error) => self.errors.push(error),
            }
        }
        made
    }

    /// TLS to the peers of the upstreams that have it.
    fn tls_to_peers(
        &mut self,
        config: &Config,
        turns: &Rc<HandshakeTurns>,
    ) -> BTreeMap<String, ClientTls> {
        let roots = SystemRoots::new(&config.system_roots);
        let mut made = BTreeMap::new();
        for (name, upstream) in &config.upstreams {
            let Some(tls) = &upstream.tls else {
                continue;
            };
            let alpn: &[&[u8]] = match upstream.protocol {
                PeerProtocol::Http1 => &[b"http/1.1"],
                PeerProtocol::Http2 => &[b"h2"],
                PeerProtocol::Auto => &[b"h2", b"http/1.1"],
            };
            match ClientTls::new(name, tls, alpn, &roots, turns) {
                Ok(tls) => {
                    made.insert(name.clone(), tls);
                }
                Err(error) => self.errors.push(error),
            }
        }
        made
    }

    async fn load_plugins(
        &mut self,
        config: &Config,
        engine: Rc<Engine>,
        modules: Vec<Module>,
        (zones, files): (&Zones, &GrantedFiles),
    ) {
        let meets_computed = beside_computing(config, &modules);
        for module in modules {
            let name = module.plugin.clone();
            if !config.plugins.contains_key(&name) {
                self.errors.push(format!(
                    "a module came for plugin {name}, which the config does not have"
                ));
                continue;
            }
            let meets = meets_computed.contains(&name);
            let shared = (zones, files);
            self.load_pools(config, &engine, module, meets, shared)
                .await;
        }
    }

    /// Loads a plugin with each config that it runs with.
    async fn load_pools(
        &mut self,
        config: &Config,
        engine: &Rc<Engine>,
        module: Module,
        meets_computed: bool,
        (zones, files): (&Zones, &GrantedFiles),
    ) {
        let name = &module.plugin;
        let own = &config.plugins[name];
        let is_timed = module.manifest.timer.is_some();
        let runs_own = is_timed || config.uses_own_config(name);
        let of_uses = config.configs_of_uses(name).into_iter();
        let all = runs_own
            .then_some(None)
            .into_iter()
            .chain(of_uses.map(Some));
        for of_use in all {
            let mut plugin_config = of_use.map_or_else(|| own.clone(), |it| own.with_config(it));
            if module.manifest.uses.contains(&Capability::ConfigTypes) {
                plugin_config.grant_named(config);
            }
            let Some(module) = self.granted(&module, own, &plugin_config, zones) else {
                return;
            };
            let (metrics, sibling) = (self.metrics, self.plugins.get(name));
            let meets = meets_computed;
            let loaded = Plugin::load(
                engine,
                module,
                meets,
                &plugin_config,
                (zones, files),
                metrics,
                sibling,
            );
            match loaded.await {
                Ok(plugin) => {
                    let first = self.plugins.entry(name.clone());
                    first.or_insert_with(|| Rc::clone(&plugin));
                    if let Some(of_use) = of_use {
                        self.pools
                            .insert((name.clone(), of_use.text.clone()), plugin);
                    }
                }
                Err(error) => self
                    .errors
                    .push(configure_error(&plugin_config, name, &error)),
            }
        }
    }

    /// The module once more, where the config grants what it uses; `None`: the error is told.
    fn granted(
        &mut self,
        module: &Module,
        own: &config::Plugin,
        plugin_config: &config::Plugin,
        zones: &Zones,
    ) -> Option<Module> {
        let (name, place) = (&module.plugin, &own.place);
        let ungranted = ungranted(&module.manifest, plugin_config, zones);
        let wasm = own.wasm.display();
        let line = |what| format!("{place}: plugin {name}: {wasm} {what}");
        let is_granted = ungranted.is_empty();
        self.errors.extend(ungranted.into_iter().map(line));
        let again = module.again();
        let again =
            again.map_err(|error| self.errors.push(format!("{place}: plugin {name}: {error}")));
        again.ok().filter(|_| is_granted)
    }

    fn make_upstreams(
        &mut self,
        config: &Config,
        (lists, states, zones): (&BTreeMap<String, PeerList>, &PeerStates, &Zones),
        turns: &Rc<HandshakeTurns>,
        alarms: &Alarms,
    ) {
        let mut tls = self.tls_to_peers(config, turns);
        for (name, upstream) in &config.upstreams {
            let mut metrics = self.metrics.upstream(name);
            metrics.protection = self.metrics.protection(name, upstream);
            let keep_alive = KeepAlive::of(name, upstream, &metrics);
            let list = lists.get(name).cloned().unwrap_or_default();
            let (state, named) = (states.of(list.cell), Arc::from(name.as_str()));
            let factory = PeerFactory::new(upstream, tls.remove(name), keep_alive, states);
            let peers = match factory.peers(&list) {
                Ok(peers) => peers,
                Err(error) => {
                    self.errors
                        .push(format!("{}: upstream {name}: {error}", upstream.place));
                    continue;
                }
            };
            let rules = match self.rules(name, upstream, zones) {
                Ok(rules) => rules,
                Err(error) => {
                    let place = &upstream.place;
                    let line = |error| format!("{place}: upstream {name}: {error}");
                    self.errors.extend(error.map(line));
                    continue;
                }
            };
            let parts = balancer::Parts {
                upstream: &named,
                state,
                peers,
                health: balancer::Health::of(upstream),
            };
            let balancer = Balancer::new(parts, rules);
            let limits: Vec<_> = list.limits.iter().map(|cell| states.of(*cell)).collect();
            let shared = (config.workers.count, &limits[..]);
            self.upstreams.insert(
                name.clone(),
                Upstream::new(name, upstream, balancer, factory, alarms, metrics, shared),
            );
        }
    }

    /// How the peers of an upstream are chosen. The error is a line for a person, and none where the plugin's own is told already.
    fn rules(
        &self,
        name: &str,
        upstream: &config::Upstream,
        zones: &Zones,
    ) -> Result<Rules, Option<String>> {
        let mut chooser = None;
        if let Balance::Plugin(plugin) = &upstream.balance {
            let found = self.plugins.get(plugin).ok_or(None)?;
            if !found.implements(Hook::Balance) {
                return Err(Some(format!("plugin {plugin} has no `balance` hook")));
            }
            chooser = Some(found);
        }
        let store = self.session_store(name, upstream, zones);
        Rules::new(name, upstream, chooser, store).map_err(Some)
    }

    /// The zone of an upstream that learns sessions.
    fn session_store(
        &self,
        name: &str,
        upstream: &config::Upstream,
        zones: &Zones,
    ) -> Option<SessionStore> {
        let Some(config::Sticky::Learn(learn)) = &upstream.sticky else {
            return None;
        };
        match &**zones.get(&learn.zone)? {
            Zone::Kv(zone) => Some(SessionStore {
                zone: Arc::clone(zone),
                metrics: self.metrics.sessions(name),
            }),
            Zone::Counter(_) | Zone::Gauge(_) | Zone::Topic(_) | Zone::Cache(_) => None,
        }
    }

    /// Flattens the phases of each listener's routes.
    fn routers(
        &mut self,
        config: &Config,
        zones: &Zones,
        access_log: Option<&AccessLog>,
    ) -> BTreeMap<String, Router> {
        let is_logged = |name: &str| access_log.is_some_and(|log| log.shows(name));
        let mut routers = BTreeMap::new();
        for (name, listener) in &config.listeners {
            let Serves::Http(http) = &listener.serves;
            let own = self.named(&http.plugins);
            let unrouted = Plan {
                requests: self.metrics.requests(name, ""),
                ..Plan::new(None, Upstreams::None, &own, None, is_logged)
            };
            if let Some(variable) = unrouted.variables.first() {
                let place = &config.plugins[&*variable.step.plugin.name].place;
                self.check_variables(place, &format!("listener {name}"), &unrouted);
            }
            let mut plans = Vec::new();
            for route in config.routes_of(name) {
                let of_route = self.named(&route.plugins);
                let plugins: Vec<PluginStep> = own.iter().chain(&of_route).cloned().collect();
                let upstreams = self.upstreams_of(route);
                let mut plan = Plan {
                    proxy: self.route_plan(route, &upstreams),
                    paths: route.paths.unwrap_or(http.paths),
                    tunnel: route.tunnel,
                    cache: self.cache(route, zones),
                    requests: self.metrics.requests(name, &route.name),
                    ..Plan::new(
                        Some(route.name.as_str().into()),
                        upstreams,
                        &plugins,
                        native(route, config),
                        is_logged,
                    )
                };
                if route.client_certificate {
                    plan.check_first(Check::ClientCertificate);
                }
                self.check_route(route, &of_route, &plan);
                self.check_captures(route, &plan);
                self.check_variables(&route.place, &format!("route {}", route.name), &plan);
                plans.push((route, Rc::new(plan)));
            }
            let compared = (http.paths, http.case);
            let post_read = post_read(listener, &own);
            let router = Router::new(post_read, Rc::new(unrouted), compared, plans);
            routers.insert(name.clone(), router);
        }
        self.check_client_certificates(config);
        self.check_redirects(config);
        // A route of several listeners has its faults once.
        self.errors.dedup();
        routers
    }

    /// Steps of the plugins that could be loaded; the others' errors are told already.
    fn named(&self, uses: &[config::PluginUse]) -> Vec<PluginStep> {
        let step = |one: &config::PluginUse| {
            let plugin = match &one.config {
                None => self.plugins.get(&one.name)?,
                Some(config) => self.pools.get(&(one.name.clone(), config.text.clone()))?,
            };
            Some(PluginStep::new(plugin, one.on_error))
        };
        uses.iter().filter_map(step).collect()
    }

    /// Settings that a route has in the place of its upstream and its listener; `None`: nothing.
    fn route_plan(&self, route: &config::Route, upstreams: &Upstreams) -> Option<Box<RoutePlan>> {
        if route.proxy == config::RouteProxy::default() {
            return None;
        }
        let own = |(idx, _): (UpstreamIdx, u64)| {
            let settings = self.upstreams.values().nth(idx.0)?.settings();
            let own = settings.of_route(&route.proxy);
            (own != **settings).then(|| (idx, Rc::new(own)))
        };
        Some(Box::new(RoutePlan {
            settings: upstreams.all().into_iter().filter_map(own).collect(),
            max_body_bytes: route.proxy.max_body_bytes,
            mirror: route
                .proxy
                .mirror
                .as_ref()
                .and_then(|mirror| self.mirror(mirror)),
        }))
    }

    /// The mirror of a route; `None`: its upstream's own error is told already.
    fn mirror(&self, mirror: &config::Mirror) -> Option<Rc<Mirror>> {
        let upstream = Rc::clone(self.upstreams.get(&mirror.upstream)?);
        let metrics = self.metrics.mirror(&mirror.upstream);
        let (share, most) = (mirror.share, mirror.max_active);
        Some(Rc::new(Mirror::new(upstream, share, most, metrics)))
    }

    /// Upstreams of a route, as far as they could be built; the others' errors are told already.
    fn upstreams_of(&self, route: &config::Route) -> Upstreams {
        let idx = |name: &str| {
            let mut names = self.upstreams.keys();
            names.position(|other| other == name).map(UpstreamIdx)
        };
        match &route.upstreams[..] {
            [] => Upstreams::None,
            [one] => idx(&one.name).map_or(Upstreams::None, Upstreams::One),
            several => {
                let built = several.iter().map(|it| Some((idx(&it.name)?, it.weight)));
                let Some(built) = built.collect::<Option<Vec<_>>>() else {
                    return Upstreams::None;
                };
                // The text was checked when the config was read.
                let by = route.split_by.as_ref();
                let by = by.and_then(|text| Template::parse(text).ok());
                Upstreams::Split(Box::new(Split::new(built, by)))
            }
        }
    }
}

/// Steps before routing.
fn post_read(listener: &config::Listener, own: &[PluginStep]) -> Box<[Step]> {
    let tells_apart = |tls: &config::ListenerTls| tls.tells_hosts_apart();
    let check = listener.tls.as_ref().is_some_and(tells_apart);
    let check = check.then_some(Step::Check(Check::RightHost));
    let plugins = PluginStep::list(own, Hook::PostRead).map(Step::Plugin);
    check.into_iter().chain(plugins).collect()
}

/// Ends of a listener's certificates by first name, in seconds since 1970; of several with the same, the first end.
fn certificate_ends(tls: &config::ListenerTls) -> BTreeMap<&str, i64> {
    let mut ends = BTreeMap::new();
    for certificate in &tls.certificates {
        let first_name = certificate.names.first().map_or("", String::as_str);
        if let Some(validity) = certificate.validity() {
            let end = ends.entry(first_name).or_insert(i64::MAX);
            *end = validity.not_after.min(*end);
        }
    }
    ends
}

/// Content of a route that the gateway makes itself.
fn native(route: &config::Route, config: &Config) -> Option<Native> {
    if let Some(redirect) = route.redirect {
        let port = redirect.port.unwrap_or_else(|| https_port(config));
        let port = Some(port);
        return Some(Native::Redirect(Redirect { port, ..redirect }));
    }
    route.metrics.then_some(Native::Metrics)
}

/// Port of a listener with TLS, at best the one that needs not be named.
fn https_port(config: &Config) -> u16 {
    let with_tls = config
        .listeners
        .values()
        .filter(|listener| listener.tls.is_some());
    let ports = with_tls.filter_map(|listener| match listener.bind {
        Bind::Tcp(address) => Some(address.port()),
        Bind::Unix(_) => None,
    });
    let ports: Vec<u16> = ports.collect();
    match ports.first() {
        Some(&first) if !ports.contains(&HTTPS) => first,
        _ => HTTPS,
    }
}

const HTTPS: u16 = 443;

/// The plugins whose hooks run in a plan with one that computes variables: those of a route and of its listener.
fn beside_computing(config: &Config, modules: &[Module]) -> BTreeSet<String> {
    let computes = |one: &&config::PluginUse| {
        let module = modules.iter().find(|module| module.plugin == one.name);
        module.is_some_and(|module| module.manifest.computes())
    };
    let mut beside = BTreeSet::new();
    let mut add = |plan: &[&config::PluginUse]| {
        if plan.iter().any(computes) {
            beside.extend(plan.iter().map(|one| one.name.clone()));
        }
    };
    for (name, listener) in &config.listeners {
        let Serves::Http(http) = &listener.serves;
        let own: Vec<_> = http.plugins.iter().collect();
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

/// Points at the key of the plugin's config that its error begins with (`config.tokens[1]: ...`), else at the plugin.
fn configure_error(plugin: &config::Plugin, name: &str, error: &HookError) -> String {
    let said = error.to_string();
    let key = said
        .split_once(": ")
        .map(|(path, _)| path)
        .filter(|path| path.starts_with("config"));
    let place = key.map_or(&*plugin.place, |path| config::config_place(plugin, path));
    format!("{place}: plugin {name}: {said}")
}
