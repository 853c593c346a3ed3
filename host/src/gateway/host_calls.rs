//! Hosts that plugins are granted by name, and routes that their hooks of no request ask.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::build::Parts;
use crate::config::{Config, OwnRoutes};
use crate::service::Service;
use crate::transport::tls::{ClientTls, HandshakeTurns, SystemRoots};
use crate::upstream::HostCalls;

impl Parts {
    /// Hosts that plugins are granted, by plugin.
    pub(super) fn host_calls(
        &mut self,
        config: &Config,
        turns: &Rc<HandshakeTurns>,
    ) -> BTreeMap<String, HostCalls> {
        let roots = SystemRoots::new(&config.system_roots);
        let mut made = BTreeMap::new();
        for (name, plugin) in &config.plugins {
            let Some(hosts) = &plugin.grants.hosts else {
                continue;
            };
            let of = format!("grants.hosts of {name}");
            match ClientTls::new(&of, &hosts.tls, &[b"http/1.1"], &roots, turns) {
                Ok(tls) => drop(made.insert(name.clone(), HostCalls::new(hosts, tls))),
                Err(error) => self.errors.push(error),
            }
        }
        made
    }
}

/// Services whose routes are asked by hooks of no request, by plugin. A plugin that is granted routes of no listener in particular is not
/// there where the gateway has several.
pub(super) fn own_routes(
    config: &Config,
    services: &BTreeMap<String, Rc<Service>>,
) -> BTreeMap<String, Rc<Service>> {
    let only = services.values().next().filter(|_| services.len() == 1);
    let of_plugin = |(name, plugin): (&String, &crate::config::Plugin)| {
        let service = match &plugin.grants.own_routes {
            OwnRoutes::Refused => None,
            OwnRoutes::Granted => only,
            OwnRoutes::Of(listener) => services.get(listener),
        };
        Some((name.clone(), Rc::clone(service?)))
    };
    config.plugins.iter().filter_map(of_plugin).collect()
}
