//! Finds the route of a request: the highest priority first, then the most specific host, then an exact path, then regular
//! expressions in the order of the config, then the longest prefix, then the order of the config. A route whose conditions do not
//! hold is passed over.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::rc::Rc;

use super::Step;
use super::host_routes::{Candidate, Compared, HostRoutes};
use super::plan::Plan;
use crate::config::{self, HostPattern, PathCase, PathMatch, PathPolicy};
use crate::error::Error;
use crate::exchange::Exchange;
use crate::message::path::{self, PathError};

/// The routes of one listener.
pub struct Router {
    /// Runs before a route is looked for.
    pub post_read: Box<[Step]>,
    /// Plan of a request without a route: the listener's plugins.
    pub unrouted: Rc<Plan>,
    compares: PathComparison,
    /// Each route's, in the order of the config.
    plans: Vec<Rc<Plan>>,
    /// The highest priority first; mostly there is one.
    tiers: Vec<Tier>,
}

/// How paths are compared.
#[derive(Clone, Copy)]
pub(super) struct PathComparison {
    /// Where a route does not say otherwise.
    pub(super) paths: PathPolicy,
    pub(super) ignores_case: bool,
}

/// Routes of one priority.
#[derive(Default)]
struct Tier {
    priority: i32,
    exact_hosts: HashMap<String, HostRoutes>,
    /// The longest suffix first.
    suffix_hosts: Vec<(String, HostRoutes)>,
    any_host: HostRoutes,
}

impl Router {
    /// Whether a request may go on with another protocol somewhere.
    pub fn has_tunnels(&self) -> bool {
        self.plans
            .iter()
            .any(|plan| plan.tunnel.is_some_and(|it| it.websocket))
    }

    /// Whether a route has a limit of its own for requests' bodies.
    pub fn has_body_limits(&self) -> bool {
        let limit = |plan: &Rc<Plan>| plan.proxy.as_ref()?.max_body_bytes;
        self.plans.iter().any(|plan| limit(plan).is_some())
    }

    /// The routes of a listener in the order of the config, each with its plan.
    pub fn new(
        post_read: Box<[Step]>,
        unrouted: Rc<Plan>,
        (paths, case): (PathPolicy, PathCase),
        routes: Vec<(&config::Route, Rc<Plan>)>,
    ) -> Self {
        let compares = PathComparison::new(paths, case);
        let mut tiers: Vec<Tier> = Vec::new();
        for (route, plan) in &routes {
            let candidate = Candidate::new(route, Rc::clone(plan), compares.ignores_case);
            let candidate = Rc::new(candidate);
            let key = compares.key_of_route(&route.path);
            let known = tiers.iter().position(|it| it.priority == route.priority);
            let idx = known.unwrap_or_else(|| {
                tiers.push(Tier::of(route.priority));
                tiers.len() - 1
            });
            let tier = &mut tiers[idx];
            if route.hosts.is_empty() {
                tier.any_host.add(&route.path, &key, Rc::clone(&candidate));
            }
            for host in &route.hosts {
                let routes = tier.of_host(host);
                routes.add(&route.path, &key, Rc::clone(&candidate));
            }
        }
        tiers.sort_by_key(|tier| Reverse(tier.priority));
        for tier in &mut tiers {
            tier.suffix_hosts
                .sort_by_key(|(suffix, _)| Reverse(suffix.len()));
        }
        Self {
            compares,
            post_read,
            unrouted,
            plans: routes.into_iter().map(|(_, plan)| plan).collect(),
            tiers,
        }
    }

    pub fn plans(&self) -> &[Rc<Plan>] {
        &self.plans
    }

    /// The plan of the request's route, whose expressions' groups are variables then. The request's path is from now on what was
    /// compared, unless the route has paths sent as they came.
    pub fn route(&self, exchange: &mut Exchange) -> Result<&Plan, Error> {
        let path = exchange.request().target.path();
        if self.compares.ignores_case || !path::is_plain(path.as_bytes()) {
            return self.route_read(exchange);
        }
        // `*` is the target of a request about the server as a whole (RFC 9112 §3.2.4): routes of the root take it.
        let path = if path == "*" { "/" } else { path };
        let compared = Compared {
            key: path,
            text: path,
        };
        let Some(found) = self.find(compared, exchange) else {
            return Err(Error::NoRoute);
        };
        if found.captures {
            found.capture(None, exchange);
        }
        Ok(&found.plan)
    }

    /// Routes a request whose path has to be read first.
    #[cold]
    #[inline(never)]
    fn route_read(&self, exchange: &mut Exchange) -> Result<&Plan, Error> {
        let path = exchange.request().target.path().to_owned();
        let Some(text) = self.compares.text(&path) else {
            return Err(Error::BadPath(PathError::AboveRoot));
        };
        let text = if text == "*" { "/" } else { &*text };
        let read = path::read(&path);
        let compared = Compared {
            key: &self.compares.key(text),
            text,
        };
        let found = match (self.find(compared, exchange), &read) {
            (Some(found), _) => found,
            (None, Err(error)) if self.compares.paths != PathPolicy::AsSent => {
                return Err(Error::BadPath(*error));
            }
            (None, _) => return Err(Error::NoRoute),
        };
        if found.captures {
            found.capture(Some(text), exchange);
        }
        let plan = &*found.plan;
        match plan.paths {
            PathPolicy::AsSent => return Ok(plan),
            PathPolicy::Strict if !path::is_strict(&path) => {
                return Err(Error::BadPath(PathError::NotStrict));
            }
            PathPolicy::Strict | PathPolicy::Normal => {}
        }
        let text = read.map_err(Error::BadPath)?.text;
        if *text != path {
            exchange.keep_original();
            exchange.request_mut().target.set_path(&text);
        }
        Ok(plan)
    }

    #[inline]
    fn find(&self, path: Compared<'_>, exchange: &Exchange) -> Option<&Candidate> {
        let mut tiers = self.tiers.iter();
        tiers.find_map(|tier| tier.find(path, exchange))
    }
}

impl PathComparison {
    pub(super) fn new(paths: PathPolicy, case: PathCase) -> Self {
        Self {
            paths,
            ignores_case: case == PathCase::Insensitive,
        }
    }

    /// By what a path is compared, but for its case. Where it cannot be read, and is for a route that has paths sent as they
    /// came, it is compared by all that it could be to a peer. `None`: it leaves the root.
    pub(super) fn text<'p>(&self, path: &'p str) -> Option<Cow<'p, str>> {
        match path::read(path) {
            Ok(read) if self.paths != PathPolicy::AsSent => Some(read.key),
            Ok(_) | Err(_) => path::key_as_sent(path),
        }
    }

    /// Such a text, in lower case where case is ignored.
    pub(super) fn key<'p>(&self, text: &'p str) -> Cow<'p, str> {
        match self.ignores_case {
            true => Cow::Owned(text.to_ascii_lowercase()),
            false => Cow::Borrowed(text),
        }
    }

    /// Path of a route as requests are compared: `/%61` in the config means `/a`. Empty for an expression.
    pub(super) fn key_of_route(&self, path: &PathMatch) -> String {
        let path = match path {
            PathMatch::Prefix(path) | PathMatch::Exact(path) => path,
            PathMatch::Regex(_) => return String::new(),
        };
        // The root as a prefix is the empty text, which is no path to be read.
        let text = match path.is_empty() {
            true => Cow::Borrowed(""),
            false => self.text(path).unwrap_or_default(),
        };
        self.key(&text).into_owned()
    }
}

impl Tier {
    fn of(priority: i32) -> Self {
        Self {
            priority,
            ..Self::default()
        }
    }

    fn of_host(&mut self, host: &HostPattern) -> &mut HostRoutes {
        match host {
            HostPattern::Exact(name) => self.exact_hosts.entry(name.clone()).or_default(),
            HostPattern::Suffix(suffix) => {
                let mut known = self.suffix_hosts.iter();
                let known = known.position(|(other, _)| other == suffix);
                let idx = known.unwrap_or_else(|| {
                    self.suffix_hosts
                        .push((suffix.clone(), HostRoutes::default()));
                    self.suffix_hosts.len() - 1
                });
                &mut self.suffix_hosts[idx].1
            }
        }
    }

    #[inline]
    fn find(&self, path: Compared<'_>, exchange: &Exchange) -> Option<&Candidate> {
        if self.exact_hosts.is_empty() && self.suffix_hosts.is_empty() {
            return self.any_host.find(path, exchange);
        }
        let host = exchange.request().host_name().unwrap_or_default();
        if let Some(routes) = self.exact_hosts.get(&*host)
            && let Some(found) = routes.find(path, exchange)
        {
            return Some(found);
        }
        let suffixes = self.suffix_hosts.iter();
        suffixes
            .filter(|(suffix, _)| host.ends_with(suffix.as_str()))
            .find_map(|(_, routes)| routes.find(path, exchange))
            .or_else(|| self.any_host.find(path, exchange))
    }
}

#[cfg(test)]
mod tests;
