//! Caches of routes.

use std::rc::Rc;
use std::sync::Arc;

use super::build::Parts;
use crate::cache::{Defaults, RouteCache, Rules};
use crate::config;
use crate::exchange::Template;
use crate::zone::{Zone, Zones};

impl Parts {
    /// The cache of a route, where it has one.
    pub(super) fn cache(&self, route: &config::Route, zones: &Zones) -> Option<Rc<RouteCache>> {
        let cache = route.cache.as_ref()?;
        let Zone::Cache(zone) = &**zones.get(&cache.zone)? else {
            return None;
        };
        // The texts were checked when the config was read.
        let texts = |texts: &[String]| {
            let texts = texts.iter();
            texts
                .filter_map(|text| Template::parse(text).ok())
                .collect()
        };
        let largest = zone.value_limit_bytes() as u64;
        let largest = largest - (largest / 4).min(HEAD_BYTES);
        Some(Rc::new(RouteCache {
            zone: Arc::clone(zone),
            zone_name: cache.zone.as_str().into(),
            key: match &cache.key {
                Some(text) => Some(Template::parse(text).ok()?),
                None => None,
            },
            route: route.name.as_str().into(),
            rules: Rules {
                defaults: Defaults {
                    lifetimes: cache.lifetimes.clone(),
                    heuristic: cache.heuristic,
                    stale_while_revalidate: cache.stale_while_revalidate,
                    stale_if_error: cache.stale_if_error,
                },
                stores_cookies: cache.store_cookies,
                ignores_origin: cache.ignore_origin,
            },
            obeys_client: cache.obey_client,
            bypass: texts(&cache.bypass),
            no_store: texts(&cache.no_store),
            wait: cache.wait,
            max_body_bytes: cache.max_body_bytes.min(largest),
            keep: cache.keep,
            shows_status: cache.status_field,
            metrics: self.metrics.cache(&cache.zone),
        }))
    }
}

/// Bytes of what the zone takes as one value that are left for a head.
const HEAD_BYTES: u64 = 64 << 10;
