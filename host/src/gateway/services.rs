//! Services of the listeners, and whose routes plugins ask in hooks of no request.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::config::{self, Config, OwnRoutes, Serves};
use crate::message::Scheme;
use crate::metrics::Recorder;
use crate::phase::Router;
use crate::service::Service;

/// Services by their listeners' names.
pub(super) fn services(
    config: &Config,
    routers: BTreeMap<String, Router>,
    metrics: Recorder,
    gateway_id: u64,
) -> BTreeMap<String, Rc<Service>> {
    let service = |(name, router): (String, Router)| {
        let counted = metrics.listener(&name);
        let listener = &config.listeners[&name];
        let Serves::Http(http) = &listener.serves;
        let scheme = match listener.tls {
            Some(_) => Scheme::Https,
            None => Scheme::Http,
        };
        let service = Service::new(&name, http, router, counted, (gateway_id, scheme));
        (name, service)
    };
    routers.into_iter().map(service).collect()
}

/// Services whose routes are asked by hooks of no request, by plugin. A plugin that is granted routes of no listener in particular is not
/// there where the gateway has several.
pub(super) fn own_routes(
    config: &Config,
    services: &BTreeMap<String, Rc<Service>>,
) -> BTreeMap<String, Rc<Service>> {
    let only = services.values().next().filter(|_| services.len() == 1);
    let of_plugin = |(name, plugin): (&String, &config::Plugin)| {
        let service = match &plugin.grants.own_routes {
            OwnRoutes::Refused => None,
            OwnRoutes::Granted => only,
            OwnRoutes::Of(listener) => services.get(listener),
        };
        Some((name.clone(), Rc::clone(service?)))
    };
    config.plugins.iter().filter_map(of_plugin).collect()
}
