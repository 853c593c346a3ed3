//! Text of `castling check` about a gateway that was built.

use std::fmt::Write;

use super::Gateway;
use crate::config::PathPolicy;
use crate::phase::{Native, Plan};

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
            for plan in acceptor.service().router.plans() {
                let route = plan.route.as_deref().unwrap_or_default();
                let target = match plan.upstream {
                    Some(idx) => format!("upstream {}", self.worker.upstream(idx).name),
                    None => match plan.native() {
                        Some(Native::Metrics) => "metrics".to_owned(),
                        Some(Native::Redirect(to)) => {
                            let port = to.port.unwrap_or(443);
                            format!("https on port {port}, {}", to.status)
                        }
                        None => "content of its plugins".to_owned(),
                    },
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
                .as_slice()
                .iter()
                .map(|peer| peer.label.to_string())
                .collect();
            let config = &self.config.upstreams[&*upstream.name];
            let mut by = String::new();
            if config.tls.is_some() {
                by += " by TLS";
            }
            if let Some(version) = config.proxy_protocol {
                by += &format!(" with PROXY {version:?}, no connection is kept");
            }
            let _ = writeln!(text, "upstream {}: {}{by}", upstream.name, peers.join(", "));
        }
        text
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
