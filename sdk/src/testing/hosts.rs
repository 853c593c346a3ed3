//! Hosts that a test grants by patterns.

use castling_abi::Status;
use castling_abi::rules::host::{HostName, HostPattern};

use super::world::{with_facts, with_world};

/// Grants hosts by patterns, as the config's `grants.hosts` does: `api.example.com:443`, `*.example.com:443`. From
/// then on a call out to another host is refused on this thread, whatever [`Exchange::call`](super::Exchange::call) says of it, and what
/// is none is a bad argument.
///
/// ```
/// # use castling_sdk::prelude::*;
/// # use castling_sdk::testing::{self, Exchange};
/// testing::grant_hosts(["*.example.com:443"]);
/// let mut exchange = Exchange::get("/").call("https://api.example.com", |_| Response::status(204));
/// exchange.request();
/// assert_eq!(http::send("https://api.example.com", http::Request::get("/"))?.status(), 204);
/// let refused = http::send("https://example.org", http::Request::get("/")).unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::NotGranted);
/// # Ok::<(), Error>(())
/// ```
///
/// # Panics
///
/// For what is no pattern.
pub fn grant_hosts<T: Into<String>>(patterns: impl IntoIterator<Item = T>) {
    let patterns: Vec<String> = patterns.into_iter().map(Into::into).collect();
    for pattern in &patterns {
        assert!(
            HostPattern::parse(pattern).is_some(),
            "{pattern}: expected HOST:PORT or *.HOST:PORT"
        );
    }
    with_world(|world| world.hosts = Some(patterns));
}

/// Why a call out to who has no answer by the test is refused. `None`: he is nobody.
pub(super) fn refusal(name: &str) -> Option<Status> {
    (name.contains('/') && HostName::parse(name).is_none()).then_some(Status::BadArgument)
}

/// Why the name of an upstream or a host is not granted. `None`: it is.
pub(super) fn refusal_of_grant(name: &[u8]) -> Option<Status> {
    let text = String::from_utf8_lossy(name);
    let is_granted = match HostName::parse(&text) {
        Some(host) => is_granted(&host),
        // Before a hook runs, all are.
        None => {
            with_world(|world| world.hook).is_none()
                || with_facts(|facts| facts.has_upstream(&text))
        }
    };
    (!is_granted).then_some(Status::NotGranted)
}

/// Whether the pattern of a host is among those that are granted, if the test has said any.
pub(super) fn is_granted(name: &HostName<'_>) -> bool {
    with_world(|world| {
        world.hosts.as_ref().is_none_or(|patterns| {
            let mut patterns = patterns.iter().filter_map(|one| HostPattern::parse(one));
            patterns.any(|pattern| pattern.matches(name.host, name.port))
        })
    })
}
