//! Caches of routes in the resolved config.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::StatusSet;

/// Cache of a route's responses. In the file `cache = "ZONE"`, or a table with `zone`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteCache {
    /// Zone of kind `cache`.
    pub zone: String,
    /// Text with `$variables` that a request has when it is routed: requests for which it reads the same have the same response, but
    /// for what the response varies by, also from other routes with the same upstream (nginx `proxy_cache_key`). Default: the route,
    /// the scheme, the host in lower case without its scheme's port, the path and the query.
    pub key: Option<String>,
    /// How long responses are fresh that do not say it themselves, by status; the first set that has it counts (nginx
    /// `proxy_cache_valid`). Default: they are not stored.
    pub lifetimes: Vec<(StatusSet, Duration)>,
    /// Part of the time since `Last-Modified` for which a response is fresh that says nothing else. 0 to 1. Default 0: none is
    /// (RFC 9111 §4.2.2 allows 0.1).
    pub heuristic: f64,
    /// How long after its lifetime a response is used while one request fetches it anew, where the response does not say it.
    /// Default 0 s (nginx `proxy_cache_use_stale updating` with `proxy_cache_background_update`).
    pub stale_while_revalidate: Duration,
    /// How long after its lifetime a response is used where the origin fails: with 500, 502, 503, 504 or no response at all, where the
    /// response does not say it. Default 0 s (nginx `proxy_cache_use_stale error timeout http_5xx`).
    pub stale_if_error: Duration,
    /// Whether `Cache-Control` of requests counts. Default false: clients cannot have the origin asked (nginx).
    pub obey_client: bool,
    /// Whether responses that set cookies are stored. Default false (nginx).
    pub store_cookies: bool,
    /// Whether what the origin says of caching does not count: `ttl` alone does. Default false (nginx `proxy_ignore_headers`).
    pub ignore_origin: bool,
    /// Texts with `$variables`: where one of them is not empty and not `0`, the origin is asked, and its response is stored (nginx
    /// `proxy_cache_bypass`). Default none.
    pub bypass: Vec<String>,
    /// Texts likewise, by which the response is not stored (nginx `proxy_no_cache`). Default none.
    pub no_store: Vec<String>,
    /// Longest wait for the response that another request fetches; then the origin is asked for this one alone. 0 s to 10 m. Default
    /// 5 s (nginx `proxy_cache_lock_timeout`).
    pub wait: Duration,
    /// Largest body that is stored, bytes. 1 to 960 KiB, and to 3/64 of the zone. Default: that.
    pub max_body_bytes: u64,
    /// How long a response is kept that nobody asks for. 1 s to 30 days. Default 10 m (nginx `inactive`).
    pub keep: Duration,
    /// Whether responses say in `Cache-Status` what the cache has done (RFC 9211). Default true.
    pub status_field: bool,
}
