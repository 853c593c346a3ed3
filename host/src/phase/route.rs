//! Finds the route of a request: the most specific host first, then the longest path, then the order of the config. A
//! route whose methods or headers do not match is passed over.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use http::{HeaderName, Method};

use super::Step;
use super::paths::Paths;
use super::plan::Plan;
use crate::config::{self, HeaderTest, HostPattern, PathCase, PathPolicy};
use crate::error::Error;
use crate::exchange::Exchange;
use crate::message::path::{self, PathError};
use crate::message::{RequestHead, Scheme};

/// The routes of one listener.
pub struct Router {
    /// Runs before a route is looked for.
    pub post_read: Box<[Step]>,
    /// Plan of a request without a route: the listener's plugins.
    pub unrouted: Rc<Plan>,
    /// How paths are compared where a route does not say otherwise.
    paths: PathPolicy,
    ignores_case: bool,
    /// Each route's, in the order of the config.
    plans: Vec<Rc<Plan>>,
    exact_hosts: HashMap<String, Candidates>,
    /// The longest suffix first.
    suffix_hosts: Vec<(String, Candidates)>,
    any_host: Candidates,
}

/// Routes of one host.
type Candidates = Paths<Candidate>;

/// Conditions of a route beside host and path.
struct Candidate {
    methods: Vec<Method>,
    headers: Vec<(HeaderName, HeaderTest)>,
    /// A redirect to https is for who comes without: a proxy in front, which is trusted, may have TLS.
    is_for_http: bool,
    plan: Rc<Plan>,
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
        let mut router = Self {
            paths,
            ignores_case: case == PathCase::Insensitive,
            post_read,
            unrouted,
            plans: routes.iter().map(|(_, plan)| Rc::clone(plan)).collect(),
            exact_hosts: HashMap::new(),
            suffix_hosts: Vec::new(),
            any_host: Candidates::default(),
        };
        for (route, plan) in routes {
            // Paths as requests are compared: `/%61` in the config means `/a`.
            let path = router.key(&route.path).unwrap_or_default();
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

    /// The plan of the request's route. The request's path is from now on what was compared, unless the route has paths sent
    /// as they came.
    pub fn route(&self, exchange: &mut Exchange) -> Result<&Plan, Error> {
        let request = exchange.request();
        let path = request.target.path();
        if self.ignores_case || !path::is_plain(path.as_bytes()) {
            return self.route_read(exchange);
        }
        // `*` is the target of a request about the server as a whole (RFC 9112 §3.2.4): routes of the root take it.
        let path = if path == "*" { "/" } else { path };
        match self.find(path, request) {
            Some(plan) => Ok(plan),
            None => Err(Error::NoRoute),
        }
    }

    /// Routes a request whose path has to be read first.
    #[cold]
    #[inline(never)]
    fn route_read(&self, exchange: &mut Exchange) -> Result<&Plan, Error> {
        let path = exchange.request().target.path().to_owned();
        let Some(key) = self.key(&path) else {
            return Err(Error::BadPath(PathError::AboveRoot));
        };
        let read = path::read(&path);
        let key = if key == "*" { "/" } else { &*key };
        let plan = match (self.find(key, exchange.request()), &read) {
            (Some(plan), _) => plan,
            (None, Err(error)) if self.paths != PathPolicy::AsSent => {
                return Err(Error::BadPath(*error));
            }
            (None, _) => return Err(Error::NoRoute),
        };
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

    /// By what a path is compared. Where it cannot be read, and is for a route that has paths sent as they came, it is
    /// compared by all that it could be to a peer. `None`: it leaves the root.
    fn key<'p>(&self, path: &'p str) -> Option<Cow<'p, str>> {
        let key = match path::read(path) {
            Ok(read) if self.paths != PathPolicy::AsSent => read.key,
            Ok(_) | Err(_) => path::key_as_sent(path)?,
        };
        Some(match self.ignores_case {
            true => Cow::Owned(key.to_ascii_lowercase()),
            false => key,
        })
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
        let host = request.host_name().unwrap_or_default();
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
            is_for_http: route.redirect.is_some(),
            plan,
        }
    }

    fn takes(&self, request: &RequestHead) -> bool {
        (!self.is_for_http || request.scheme == Scheme::Http)
            && (self.methods.is_empty() || self.methods.contains(&request.method))
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

    use super::*;
    use crate::message::{Headers, KnownHeader, Target};

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
            client_certificate: false,
            redirect: None,
            paths: None,
            tunnel: None,
            proxy: config::RouteProxy::default(),
            place: String::new(),
        }
    }

    fn router(routes: &[config::Route]) -> Router {
        router_with(PathPolicy::Normal, PathCase::Sensitive, routes)
    }

    fn router_with(paths: PathPolicy, case: PathCase, routes: &[config::Route]) -> Router {
        let plans = routes.iter().map(|route| {
            (
                route,
                Rc::new(Plan {
                    route: Some(route.name.as_str().into()),
                    paths: route.paths.unwrap_or(paths),
                    ..Plan::default()
                }),
            )
        });
        let plans = plans.collect();
        Router::new(Box::default(), Rc::default(), (paths, case), plans)
    }

    /// The route and the path that is sent on, or why it is refused.
    fn routed(router: &Router, path: &str) -> Result<(String, String), String> {
        let mut exchange = Exchange::idle();
        exchange.request_mut().target = Target::new(path, None);
        let plan = router
            .route(&mut exchange)
            .map_err(|error| error.to_string())?;
        let name = plan.route.as_deref().unwrap_or_default().to_owned();
        Ok((name, exchange.request().target.path().to_owned()))
    }

    #[test]
    fn what_is_decided_by_is_what_is_sent() {
        let routes = [route("admin", &[], "/admin"), route("open", &[], "")];
        let normal = router(&routes);
        for (path, name, sent) in [
            ("/admin/..", "open", "/"),
            ("/x/../admin", "admin", "/admin"),
            ("//x/admin/x", "open", "/x/admin/x"),
            ("/%61dmin/x", "admin", "/%61dmin/x"),
            ("/admin\\x", "open", "/admin%5Cx"),
            ("/admin%2fx", "open", "/admin%2fx"),
            ("/ADMIN/x", "open", "/ADMIN/x"),
        ] {
            let expected = Ok((name.to_owned(), sent.to_owned()));
            assert_eq!(routed(&normal, path), expected, "{path}");
        }
        for path in [
            "/admin/..%2fpublic",
            "/%zz",
            "/%00",
            "/..",
            "/%2e%2e/secret",
        ] {
            assert!(routed(&normal, path).is_err(), "{path}");
        }
    }

    #[test]
    fn paths_may_be_strict_or_sent_as_they_came() {
        let mut odd = route("odd", &[], "/odd");
        odd.paths = Some(PathPolicy::AsSent);
        let routes = [route("admin", &[], "/admin"), odd, route("open", &[], "")];
        let strict = router_with(PathPolicy::Strict, PathCase::Sensitive, &routes);
        for path in ["/a//b", "/a/../b", "/a%2fb", "/a\\b", "/a%5cb", "/%zz"] {
            assert!(routed(&strict, path).is_err(), "{path}");
            let odd = format!("/odd{path}");
            assert_eq!(routed(&strict, &odd), Ok(("odd".to_owned(), odd.clone())));
        }
        assert!(routed(&strict, "/a%20b/").is_ok());
        let as_sent = router_with(PathPolicy::AsSent, PathCase::Sensitive, &routes);
        for (path, name) in [
            ("/admin%2fx", "admin"),
            ("/x/%2e%2e/admin", "admin"),
            ("/%zz", "open"),
            ("/admin/..", "open"),
        ] {
            let expected = Ok((name.to_owned(), path.to_owned()));
            assert_eq!(routed(&as_sent, path), expected, "{path}");
        }
        let insensitive = router_with(PathPolicy::Normal, PathCase::Insensitive, &routes);
        for path in ["/ADMIN/x", "/Admin", "/%41dmin"] {
            let expected = Ok(("admin".to_owned(), path.to_owned()));
            assert_eq!(routed(&insensitive, path), expected);
        }
    }

    #[test]
    fn a_path_in_the_config_is_read_as_those_of_requests() {
        let routes = [
            route("space", &[], "/a%20b"),
            route("scope", &[], "/@s%2fp"),
        ];
        let router = router(&routes);
        let name = |path| routed(&router, path).ok().map(|(name, _)| name);
        assert_eq!(name("/a%20b").as_deref(), Some("space"));
        assert_eq!(name("/a%2520b"), None);
        assert_eq!(name("/@s%2Fp/x").as_deref(), Some("scope"));
        assert_eq!(name("/@s/p"), None);
    }

    fn find(router: &Router, host: &str, path: &str) -> Option<String> {
        let mut headers = Headers::new();
        headers.add(KnownHeader::Host, host.as_bytes());
        let request = RequestHead {
            target: Target::new(path, None),
            headers,
            ..RequestHead::default()
        };
        let mut exchange = Exchange::idle();
        *exchange.request_mut() = request;
        router
            .route(&mut exchange)
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
