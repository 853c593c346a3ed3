//! Finds the route of a request: the most specific host first, then the longest path, then the order of the config. A
//! route whose methods or headers do not match is passed over.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use http::{HeaderName, Method};

use super::path::normalized;
use super::paths::Paths;
use super::plan::Plan;
use crate::config::{self, HeaderTest, HostPattern};
use crate::error::Error;
use crate::http1::RequestHead;
use crate::wasm::Step;

/// The routes of one listener.
pub struct Router {
    /// Runs before a route is looked for.
    pub post_read: Box<[Step]>,
    /// What a request without a route runs: the listener's plugins.
    pub unrouted: Rc<Plan>,
    /// Each route's, in the order of the config.
    plans: Vec<Rc<Plan>>,
    exact_hosts: HashMap<String, Candidates>,
    /// The longest suffix first.
    suffix_hosts: Vec<(String, Candidates)>,
    any_host: Candidates,
}

/// Routes of one host.
type Candidates = Paths<Candidate>;

/// What a request must have for a route, beside host and path.
struct Candidate {
    methods: Vec<Method>,
    headers: Vec<(HeaderName, HeaderTest)>,
    plan: Rc<Plan>,
}

impl Router {
    /// The routes of a listener in the order of the config, each with its plan.
    pub fn new(
        post_read: Box<[Step]>,
        unrouted: Rc<Plan>,
        routes: Vec<(&config::Route, Rc<Plan>)>,
    ) -> Self {
        let mut router = Self {
            post_read,
            unrouted,
            plans: routes.iter().map(|(_, plan)| Rc::clone(plan)).collect(),
            exact_hosts: HashMap::new(),
            suffix_hosts: Vec::new(),
            any_host: Candidates::default(),
        };
        for (route, plan) in routes {
            // As requests are compared: `/%61` in the config means `/a`.
            let path = normalized(&route.path).unwrap_or_default();
            let candidate = Rc::new(Candidate::new(route, plan));
            if route.hosts.is_empty() {
                router.any_host.add(&path, Rc::clone(&candidate));
            }
            for host in &route.hosts {
                let candidates = router.candidates_of(host);
                candidates.add(&path, Rc::clone(&candidate));
            }
        }
        router
            .suffix_hosts
            .sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        router
    }

    fn candidates_of(&mut self, host: &HostPattern) -> &mut Candidates {
        match host {
            HostPattern::Exact(name) => self.exact_hosts.entry(name.clone()).or_default(),
            HostPattern::Suffix(suffix) => {
                let known = self
                    .suffix_hosts
                    .iter()
                    .position(|(other, _)| other == suffix);
                let idx = known.unwrap_or_else(|| {
                    self.suffix_hosts
                        .push((suffix.clone(), Candidates::default()));
                    self.suffix_hosts.len() - 1
                });
                &mut self.suffix_hosts[idx].1
            }
        }
    }

    pub fn plans(&self) -> &[Rc<Plan>] {
        &self.plans
    }

    pub fn route(&self, request: &RequestHead) -> Result<&Plan, Error> {
        let Some(path) = normalized(request.target.path()) else {
            return Err(Error::BadPath);
        };
        // `*` is the target of a request about the server as a whole (RFC 9112 §3.2.4): routes of the root take it.
        let path = if &*path == "*" { "/" } else { &*path };
        match self.find(path, request) {
            Some(plan) => Ok(plan),
            None => Err(Error::NoRoute),
        }
    }

    fn find(&self, path: &str, request: &RequestHead) -> Option<&Plan> {
        let candidate = self.find_candidate(path, request)?;
        Some(&candidate.plan)
    }

    fn find_candidate(&self, path: &str, request: &RequestHead) -> Option<&Candidate> {
        let takes = |candidate: &Candidate| candidate.takes(request);
        if self.exact_hosts.is_empty() && self.suffix_hosts.is_empty() {
            return self.any_host.find(path, takes);
        }
        let host = host_name(request).unwrap_or_default();
        if let Some(candidates) = self.exact_hosts.get(&*host)
            && let Some(found) = candidates.find(path, takes)
        {
            return Some(found);
        }
        let suffixes = self.suffix_hosts.iter();
        suffixes
            .filter(|(suffix, _)| host.ends_with(suffix.as_str()))
            .find_map(|(_, candidates)| candidates.find(path, takes))
            .or_else(|| self.any_host.find(path, takes))
    }
}

/// In lower case, without port and final dot; an IPv6 address keeps its brackets.
fn host_name(request: &RequestHead) -> Option<Cow<'_, str>> {
    let host = request.host()?;
    let name = match host.find(']') {
        Some(end) => &host[..=end],
        None => host.split(':').next()?,
    };
    let name = name.trim_end_matches('.');
    Some(match name.bytes().any(|b| b.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    })
}

impl Candidate {
    fn new(route: &config::Route, plan: Rc<Plan>) -> Self {
        // Names and methods were checked when the config was read.
        let methods = route
            .methods
            .iter()
            .filter_map(|method| method.parse().ok())
            .collect();
        let header =
            |header: &config::HeaderMatch| Some((header.name.parse().ok()?, header.test.clone()));
        Self {
            methods,
            headers: route.headers.iter().filter_map(header).collect(),
            plan,
        }
    }

    fn takes(&self, request: &RequestHead) -> bool {
        (self.methods.is_empty() || self.methods.contains(&request.method))
            && self.headers.iter().all(|(name, test)| {
                let mut values = request.headers.get_all(name);
                match test {
                    HeaderTest::Equals(expected) => {
                        values.any(|value| value == expected.as_bytes())
                    }
                    HeaderTest::Present => values.next().is_some(),
                    HeaderTest::Absent => values.next().is_none(),
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;
    use crate::http1::{Headers, Known, Target};

    fn route(name: &str, hosts: &[&str], path: &str) -> config::Route {
        let pattern = |host: &&str| match host.strip_prefix('*') {
            Some(suffix) => HostPattern::Suffix(suffix.to_owned()),
            None => HostPattern::Exact((*host).to_owned()),
        };
        config::Route {
            name: name.to_owned(),
            listeners: Vec::new(),
            hosts: hosts.iter().map(pattern).collect(),
            path: path.to_owned(),
            methods: Vec::new(),
            headers: Vec::new(),
            plugins: Vec::new(),
            upstream: None,
            metrics: false,
            place: String::new(),
        }
    }

    fn router(routes: &[config::Route]) -> Router {
        let plans = routes.iter().map(|route| {
            (
                route,
                Rc::new(Plan {
                    route: Some(route.name.as_str().into()),
                    ..Plan::default()
                }),
            )
        });
        Router::new(Box::default(), Rc::default(), plans.collect())
    }

    fn find(router: &Router, host: &str, path: &str) -> Option<String> {
        let mut headers = Headers::new();
        headers.add(Known::Host, host.as_bytes());
        let request = RequestHead {
            method: Method::GET,
            target: Target::new(path, None),
            version: Version::HTTP_11,
            headers,
        };
        router
            .route(&request)
            .ok()?
            .route
            .as_deref()
            .map(str::to_owned)
    }

    #[test]
    fn paths_match_by_segments_and_the_longest_wins() {
        let router = router(&[
            route("root", &[], ""),
            route("api", &[], "/api"),
            route("v1", &[], "/api/v1"),
        ]);
        for (path, expected) in [
            ("/", "root"),
            ("/api", "api"),
            ("/api/", "api"),
            ("/apix", "root"),
            ("/api/v1", "v1"),
            ("/api/v1/x", "v1"),
            ("/api/v10", "api"),
            ("/x/../api", "api"),
            ("/%61pi", "api"),
        ] {
            assert_eq!(
                find(&router, "h", path).as_deref(),
                Some(expected),
                "{path}"
            );
        }
    }

    #[test]
    fn the_most_specific_host_wins() {
        let router = router(&[
            route("any", &[], ""),
            route("suffix", &["*.example.com"], ""),
            route("deep", &["*.eu.example.com"], ""),
            route("exact", &["a.example.com"], ""),
        ]);
        for (host, expected) in [
            ("a.example.com", "exact"),
            ("A.Example.com:8080", "exact"),
            ("b.example.com", "suffix"),
            ("x.eu.example.com", "deep"),
            ("example.com", "any"),
            ("notexample.com", "any"),
            ("[::1]:80", "any"),
        ] {
            assert_eq!(
                find(&router, host, "/").as_deref(),
                Some(expected),
                "{host}"
            );
        }
    }

    #[test]
    fn a_host_without_the_path_leaves_it_to_less_specific_ones() {
        let router = router(&[
            route("api", &["example.com"], "/api"),
            route("any", &[], ""),
        ]);
        assert_eq!(
            find(&router, "example.com", "/other").as_deref(),
            Some("any")
        );
    }

    #[test]
    fn methods_and_headers_pass_a_route_over() {
        let mut posts = route("posts", &[], "/api");
        posts.methods = vec!["POST".to_owned()];
        let mut beta = route("beta", &[], "/api");
        beta.headers = vec![config::HeaderMatch {
            name: "x-beta".to_owned(),
            test: HeaderTest::Present,
        }];
        let router = router(&[posts, beta, route("root", &[], "")]);
        assert_eq!(find(&router, "h", "/api").as_deref(), Some("root"));
    }
}
