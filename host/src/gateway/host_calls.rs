//! Hosts that plugins are granted by name.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::build::Parts;
use crate::config::Config;
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
