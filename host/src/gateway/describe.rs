//! Text of `castling check` about a gateway that was built.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::rc::Rc;

use super::Gateway;
use super::describe_upstream::{
    describe_choice, describe_protection, describe_sticky, peers, same_address,
};
use crate::config::{self, HostPattern, PathPolicy, Serves};
use crate::phase::{Native, Order, Plan, Precedence, UpstreamIdx, conditions};
use crate::upstream::Upstream;

impl Gateway {
    /// Describes what runs here, for `castling check`: listeners with their routes and phases, plugins, upstreams.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (name, acceptor) in &self.acceptors {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "listener {name} on {}",
                self.config.listeners[name].bind
            );
            self.describe_ordered(name, &mut text);
            self.describe_routes(name, acceptor.service().router.plans(), &mut text);
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
            let set = upstream.balancer.peers();
            let config = &self.config.upstreams[&*upstream.name];
            let mut by = String::new();
            if config.tls.is_some() {
                by += " by TLS";
            }
            if let Some(version) = config.proxy_protocol {
                by += &format!(" with PROXY {version:?}, no connection is kept");
            }
            let listed = peers(set.as_slice()).join(", ");
            let _ = writeln!(text, "upstream {}: {listed}{by}", upstream.name);
            describe_choice(config, &mut text);
            describe_protection(config, &mut text);
            describe_sticky(config, &mut text);
            for what in same_address(set.as_slice()) {
                let (place, name) = (&config.place, &upstream.name);
                let _ = writeln!(text, "warning: {place}: upstream {name}: {what}");
            }
        }
        text
    }

    /// Routes of a listener in the order in which they are asked, each where it comes first.
    fn describe_routes(&self, listener: &str, plans: &[Rc<Plan>], text: &mut String) {
        let routes = self.config.routes_of(listener);
        let Serves::Http(http) = &self.config.listeners[listener].serves;
        let order = Order::new(&routes, (http.paths, http.case));
        let mut told = BTreeSet::new();
        for (at, turn) in order.turns().iter().enumerate() {
            if !told.insert(turn.idx) {
                continue;
            }
            let (plan, route) = (&plans[turn.idx], turn.route);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  route {} -> {}", route.name, self.target(plan));
            let _ = writeln!(text, "    for {}", asked(route));
            if let Some((other, why)) = order.next_overlapping(at) {
                let _ = writeln!(text, "    ahead of {}: {}", other.route.name, reason(why));
            }
            let own = plan.proxy.as_ref();
            if let Some(mirror) = own.and_then(|own| own.mirror.as_ref()) {
                let _ = writeln!(text, "    mirror: {mirror}");
            }
            if !plan.describe().is_empty() {
                let _ = writeln!(text, "    {}", plan.describe());
            }
        }
        for (turn, other) in order.shadowed() {
            let (route, other) = (turn.route, other.route);
            let _ = writeln!(
                text,
                "warning: {}: route {} gets no request of listener {listener}: route {} ({}) is asked before it and takes all \
                 that it would",
                route.place, route.name, other.name, other.place
            );
        }
    }

    pub(super) fn peers(&self, upstream: &Upstream) -> Vec<String> {
        let peers = upstream.balancer.peers();
        let peers = peers.as_slice().iter();
        peers.map(|peer| peer.label.to_string()).collect()
    }

    /// Target of a route's requests.
    pub(super) fn target(&self, plan: &Plan) -> String {
        let upstreams = plan.upstreams.all();
        let name = |idx: UpstreamIdx| &self.worker.upstream(idx).name;
        match upstreams[..] {
            [(idx, _)] => format!("upstream {}", name(idx)),
            [_, _, ..] => {
                let share = |(idx, weight): &(UpstreamIdx, u64)| format!("{} {weight}", name(*idx));
                let shares: Vec<_> = upstreams.iter().map(share).collect();
                format!("upstreams by weight: {}", shares.join(", "))
            }
            [] => match plan.native() {
                Some(Native::Metrics) => "metrics".to_owned(),
                Some(Native::Redirect(to)) => {
                    let port = to.port.unwrap_or(443);
                    format!("https on port {port}, {}", to.status)
                }
                None => "content of its plugins".to_owned(),
            },
        }
    }

    /// Certificates of a listener that are ordered, a line each.
    fn describe_ordered(&self, listener: &str, text: &mut String) {
        let tls = self.config.listeners[listener].tls.iter();
        for ordered in tls.flat_map(|tls| &tls.acme) {
            let names = ordered.names.join(", ");
            let directory = self.config.acme.as_ref().map_or("", |acme| &acme.directory);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  certificate for {names} from {directory}");
        }
    }

    /// Routes whose plugins a client could get around, where a peer reads a path otherwise than the gateway.
    fn path_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (listener, acceptor) in &self.acceptors {
            let plans = acceptor.service().router.plans();
            for (idx, plan) in plans.iter().enumerate() {
                let other = plans[..idx].iter().find(|other| {
                    let is_as_sent = [plan, other]
                        .iter()
                        .any(|plan| plan.paths == PathPolicy::AsSent);
                    let theirs = other.upstreams.all();
                    let mut ours = plan.upstreams.all().into_iter();
                    let is_same =
                        ours.any(|(idx, _)| theirs.iter().any(|(other, _)| *other == idx));
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

/// Conditions of a route: `example.com, path /api, method GET`.
pub(super) fn asked(route: &config::Route) -> String {
    let hosts = match route.hosts.is_empty() {
        true => vec!["any host".to_owned()],
        false => route.hosts.iter().map(HostPattern::to_string).collect(),
    };
    let mut all = vec![hosts.join(" "), route.path.to_string()];
    all.extend(conditions(route));
    if route.priority != 0 {
        all.push(format!("priority {}", route.priority));
    }
    all.join(", ")
}

/// Why a route is asked before another, for a person.
pub(super) fn reason(why: Precedence) -> &'static str {
    match why {
        Precedence::Priority => "higher priority",
        Precedence::Host => "more specific host",
        Precedence::ExactPath => "exact path",
        Precedence::Expression => "a regular expression comes before prefixes",
        Precedence::LongerPath => "longer path",
        Precedence::Order => "earlier in the config",
    }
}
