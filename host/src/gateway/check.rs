//! Checks of a config that need its plugins: what they use and nothing grants, routes that nobody answers, variables that two
//! plugins compute.

use super::build::Parts;
use crate::config;
use crate::phase::{MAX_COMPUTED, Plan, PluginStep};
use crate::wasm::{Capability, Manifest};
use crate::zone::{Zone, Zones};
use castling_abi::Hook;

impl Parts {
    pub(super) fn check_route(
        &mut self,
        route: &config::Route,
        of_route: &[PluginStep],
        plan: &Plan,
    ) {
        let (place, name) = (&route.place, &route.name);
        let all_loaded = route.plugins.len() == of_route.len();
        // A plugin may answer whatever comes already in `rewrite`, or send it to another route.
        let may_rewrite = plan.rewrite.iter().any(|step| step.plugin().is_some());
        let may_answer = !plan.content.is_empty() || may_rewrite;
        let unanswered = route.upstreams.is_empty() && !may_answer;
        if unanswered && all_loaded {
            self.errors.push(format!(
                "{place}: route {name}: expected `upstream` or a plugin with a `content` or \
                 `rewrite` hook"
            ));
        }
        for PluginStep { plugin, .. } in of_route
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

    /// Where a certificate is required, a listener asks for one: else no client could have one.
    pub(super) fn check_client_certificates(&mut self, config: &config::Config) {
        let routes = config.routes.iter();
        for route in routes.filter(|route| route.client_certificate) {
            let asks = |(name, listener): (&String, &config::Listener)| {
                let is_of_route = route.listeners.is_empty() || route.listeners.contains(name);
                let tls = listener.tls.as_ref().filter(|_| is_of_route);
                tls.is_some_and(config::ListenerTls::asks_clients)
            };
            if !config.listeners.iter().any(asks) {
                let (place, name) = (&route.place, &route.name);
                self.errors.push(format!(
                    "{place}: route {name}: client_certificate \"required\": expected a listener of the route with \
                     `tls.client_certificates`"
                ));
            }
        }
    }

    /// A redirect to https is not for a listener that speaks TLS already.
    pub(super) fn check_redirects(&mut self, config: &config::Config) {
        for route in config
            .routes
            .iter()
            .filter(|route| route.redirect.is_some())
        {
            let has_tls = |name: &&String| config.listeners[*name].tls.is_some();
            if let Some(listener) = route.listeners.iter().find(has_tls) {
                let (place, name) = (&route.place, &route.name);
                self.errors.push(format!(
                    "{place}: route {name}: redirect: listener {listener} has TLS, and would lead to itself; expected \
                     listeners without"
                ));
            }
        }
    }

    /// A group of a route's expression sets its variable before a plugin could be asked for it.
    pub(super) fn check_captures(&mut self, route: &config::Route, plan: &Plan) {
        let groups = route.group_names();
        for variable in plan.computable.as_deref().unwrap_or_default() {
            if groups.iter().any(|group| **group == **variable) {
                let (place, name) = (&route.place, &route.name);
                self.errors.push(format!(
                    "{place}: route {name}: group {variable} of a regular expression: a plugin computes ${variable}; \
                     expected another name"
                ));
            }
        }
    }

    /// Each variable has one plugin that computes it.
    pub(super) fn check_variables(&mut self, place: &str, what: &str, plan: &Plan) {
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
}

/// Capabilities that the module uses and the config says nothing of.
pub(super) fn ungranted(
    manifest: &Manifest,
    config: &config::Plugin,
    zones: &Zones,
) -> Vec<&'static str> {
    let grants = &config.grants;
    // Its `configure` tells each name that is not granted, at its place.
    if manifest.uses.contains(&Capability::ConfigTypes) {
        return Vec::new();
    }
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
            Capability::Upstreams
                if grants.upstreams.is_none()
                    && grants.hosts.is_none()
                    && grants.own_routes == config::OwnRoutes::Refused =>
            {
                Some(
                "makes calls out, which nothing grants; expected `grants = { upstreams = [...] }`, where [] is for none, `hosts = [...]` or \
                 `own_routes = true`",
                )
            }
            Capability::ChosenUpstreams if grants.upstreams.is_none() => Some(
                "chooses upstreams, which nothing grants; expected `grants = { upstreams = [...] }`, where [] is for none",
            ),
            Capability::CounterZones | Capability::KvZones | Capability::GaugeZones | Capability::Topics
                if grants.zones.is_none() =>
            {
                Some("uses a zone, which nothing grants; expected `grants = { zones = [...] }`, where [] is for none")
            }
            Capability::CounterZones if lacks_kind(|zone| matches!(zone, Zone::Counter(_))) => {
                Some("uses a counter zone; expected one in `grants.zones`, where no zone is of that kind")
            }
            Capability::KvZones if lacks_kind(|zone| matches!(zone, Zone::Kv(_))) => {
                Some("uses a kv zone; expected one in `grants.zones`, where no zone is of that kind")
            }
            Capability::GaugeZones if lacks_kind(|zone| matches!(zone, Zone::Gauge(_))) => {
                Some("uses a gauge zone; expected one in `grants.zones`, where no zone is of that kind")
            }
            Capability::Files if grants.files.is_none() => Some(
                "reads files, which nothing grants; expected `grants = { files = [...] }`, where [] is for none",
            ),
            Capability::Topics if lacks_kind(|zone| matches!(zone, Zone::Topic(_))) => {
                Some("uses a topic; expected one in `grants.zones`, where no zone is of that kind")
            }
            Capability::Upstreams
            | Capability::ChosenUpstreams
            | Capability::ConfigTypes
            | Capability::CounterZones
            | Capability::KvZones
            | Capability::GaugeZones
            | Capability::Files
            | Capability::Topics => None,
        });
    let mut missing: Vec<_> = missing.collect();
    missing.dedup();
    missing
}
