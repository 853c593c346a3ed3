//! An upstream that the config names.

use super::{Request, Response, send};
use crate::error::Result;

/// An upstream, for a plugin's config: `castling check` says at its place in the config when there is no such upstream, and the
/// plugin is granted it by being named there. A config with `grants = { upstreams = [...] }` grants no others than these.
/// [`zones::Counter`](crate::zones::Counter), [`zones::Kv`](crate::zones::Kv) and [`zones::Gauge`](crate::zones::Gauge) are such
/// types, too.
///
/// ```
/// use castling_sdk::prelude::*;
/// use castling_sdk::testing::{self, Exchange};
///
/// #[derive(Deserialize)]
/// struct Greylist {
///     reputation: http::Upstream,
///     limits: zones::Counter,
/// }
///
/// #[plugin]
/// impl Greylist {
///     fn configure(config: Self) -> Self {
///         config
///     }
///
///     fn access(&self, request: &mut Request) -> Result<Verdict> {
///         self.limits.add(request.client_address(), 1, Duration::from_secs(60))?;
///         let answer = self.reputation.send(http::Request::get("/check"))?;
///         Ok(if answer.body() == b"bad" { Response::status(403).into() } else { Verdict::Continue })
///     }
/// }
///
/// let plugin: Greylist = testing::config(r#"{"reputation": "rep", "limits": "limits"}"#)?;
/// let mut exchange = Exchange::get("/").call("rep", |_| Response::status(200).body("bad"));
/// assert_eq!(plugin.access(exchange.request())?, Response::status(403).into());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream(String);

impl Upstream {
    /// Upstream of this name, as [`send`] takes names: whether there is one is found out when it is used.
    pub fn named(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Name of it in the gateway's config.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Sends a request to it and waits for the response: [`send`].
    pub fn send(&self, request: Request) -> Result<Response> {
        send(self, request)
    }
}

impl AsRef<str> for Upstream {
    fn as_ref(&self) -> &str {
        &self.0
    }
}
