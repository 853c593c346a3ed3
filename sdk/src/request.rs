//! The request, as the hooks see it.

use castling_abi::{HeaderMap, Property, Status};
use serde::de::DeserializeOwned;

use crate::buffer::{ShortBytes, read_text};
use crate::header::{self, HeaderValue, Headers};
use crate::params::Params;
use crate::{Result, Tls, config, error, host, wait};

/// The request that a hook was called for: a handle to what the host keeps, read when it is asked for.
///
/// **Names** of headers are `&str`, `&HeaderName` or anything else that is text; their case does not matter.
///
/// **Changes** can be made until an upstream is asked or the request is answered. One that the host refuses (a value
/// with a line break in it, a path without its `/`, more headers than the plugin's `limits.headers`) makes the hook fail when it returns, as if it had returned an
/// error that says so; nothing goes on unchanged unseen. To handle such a value instead, check it first:
/// [`HeaderValue::new`].
///
/// **Text** that a client sent and that is not UTF-8 has U+FFFD in the place of what is not; header values are bytes
/// and come as they are.
#[derive(Debug)]
pub struct Request {
    /// The SDK alone lends requests.
    _lent: (),
}

impl Request {
    pub(crate) const fn new() -> Self {
        Self { _lent: () }
    }

    /// The method, `GET` say.
    pub fn method(&self) -> String {
        property(Property::Method).unwrap_or_default()
    }

    /// The path as it is sent to a peer, not decoded, without the query. From routing on, and so in all hooks but `post_read`
    /// and before a `Reroute`, it has no dot segments, no empty ones and no backslash, unless the config says
    /// `paths = "as_sent"`. To decide by a path, compare [`Self::routed_path`].
    pub fn path(&self) -> String {
        property(Property::Path).unwrap_or_default()
    }

    /// The path as routes compare it: decoded once but for `%2F`, `%5C` and `%25`, which are data, and without dot and empty
    /// segments. Hexadecimal digits are in upper case. Prefixes that decide who may do what are compared with this.
    pub fn routed_path(&self) -> String {
        property(Property::RoutedPath).unwrap_or_else(|| self.path())
    }

    /// The query without its `?`; `None` when there is none.
    pub fn query(&self) -> Option<String> {
        property(Property::Query)
    }

    /// Path and query as they are sent to a peer: [`Self::path`], and `?` and [`Self::query`] where there is one.
    ///
    /// ```
    /// # use castling_sdk::testing::Exchange;
    /// assert_eq!(Exchange::get("/search?q=a").request().target(), "/search?q=a");
    /// assert_eq!(Exchange::get("/search").request().target(), "/search");
    /// ```
    pub fn target(&self) -> String {
        let mut target = self.path();
        if let Some(query) = self.query() {
            target.push('?');
            target.push_str(&query);
        }
        target
    }

    /// Names and values of the query, decoded.
    pub fn query_params(&self) -> Params {
        Params::parse(self.query().unwrap_or_default())
    }

    /// The first value of this name in the query, decoded; its case matters.
    ///
    /// ```
    /// # use castling_sdk::testing::Exchange;
    /// let mut exchange = Exchange::get("/search?q=a%26b+c&page");
    /// assert_eq!(exchange.request().query_param("q").as_deref(), Some("a&b c"));
    /// assert_eq!(exchange.request().query_param("page").as_deref(), Some(""));
    /// assert_eq!(exchange.request().query_param("Q"), None);
    /// ```
    pub fn query_param(&self, name: impl AsRef<str>) -> Option<String> {
        self.query_params().get(name).map(str::to_owned)
    }

    /// Host and port as the client named them: the target's authority, else `Host`. Empty when neither is there.
    pub fn host(&self) -> String {
        property(Property::Host).unwrap_or_default()
    }

    /// The client's IP address, as text; `unix:` for a client of a Unix socket.
    pub fn client_address(&self) -> String {
        property(Property::ClientAddress).unwrap_or_default()
    }

    /// The client's port; `None` for a client of a Unix socket.
    pub fn client_port(&self) -> Option<u16> {
        property(Property::ClientPort)?.parse().ok()
    }

    /// The gateway's IP address that the client has connected to, as text; `unix:PATH` for a Unix socket.
    pub fn server_address(&self) -> String {
        property(Property::ServerAddress).unwrap_or_default()
    }

    /// The gateway's port that the client has connected to; `None` for a Unix socket.
    pub fn server_port(&self) -> Option<u16> {
        property(Property::ServerPort)?.parse().ok()
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> String {
        property(Property::Scheme).unwrap_or_default()
    }

    /// `HTTP/1.0` or `HTTP/1.1`.
    pub fn protocol(&self) -> String {
        property(Property::Protocol).unwrap_or_default()
    }

    /// TLS of the client's connection; `None` where that is plain. In a sub-request it is the connection of the
    /// client's request.
    ///
    /// ```
    /// # use castling_sdk::TlsFact;
    /// # use castling_sdk::testing::Exchange;
    /// let mut exchange = Exchange::get("/").tls().tls_fact(TlsFact::ClientSubject, "CN=ada");
    /// let tls = exchange.request().tls().unwrap();
    /// assert_eq!(tls.version(), "TLSv1.3");
    /// assert_eq!(tls.client_certificate().unwrap().subject(), "CN=ada");
    /// assert!(Exchange::get("/").request().tls().is_none());
    /// ```
    pub fn tls(&self) -> Option<Tls<'_>> {
        Tls::of(self)
    }

    /// The name of the listener that it came through.
    pub fn listener(&self) -> String {
        property(Property::Listener).unwrap_or_default()
    }

    /// The name of the route; `None` before routing (in `post_read`) and where no route matched.
    pub fn route(&self) -> Option<String> {
        property(Property::Route)
    }

    /// The name of the upstream; `None` where there is none.
    pub fn upstream(&self) -> Option<String> {
        property(Property::Upstream)
    }

    /// Address and port of the peer that was tried last; `None` before.
    pub fn peer(&self) -> Option<String> {
        property(Property::Peer)
    }

    /// The first value of the header; `None` when there is no such header.
    pub fn header(&self, name: impl AsRef<str>) -> Option<HeaderValue> {
        header::get(HeaderMap::Request, name.as_ref())
    }

    /// All values of the header.
    pub fn header_all(&self, name: impl AsRef<str>) -> Vec<HeaderValue> {
        header::all(HeaderMap::Request, name.as_ref())
    }

    /// The value of the header when there is exactly one; `None` when there is none, or several. For what a plugin decides
    /// upon: of several, an upstream might look at another one.
    ///
    /// ```
    /// # use castling_sdk::testing::Exchange;
    /// let mut exchange = Exchange::get("/").header("x-a", "1").header("x-b", "1").header("X-B", "2");
    /// let request = exchange.request();
    /// assert_eq!(request.only_header("x-a").unwrap(), "1");
    /// assert_eq!(request.only_header("x-b"), None);
    /// assert_eq!(request.only_header("x-c"), None);
    /// ```
    pub fn only_header(&self, name: impl AsRef<str>) -> Option<HeaderValue> {
        header::only(HeaderMap::Request, name.as_ref())
    }

    /// The value of the first cookie of this name (RFC 6265 §5.4: the name's case matters), as it came; `None` when there
    /// is no such cookie.
    pub fn cookie(&self, name: impl AsRef<str>) -> Option<HeaderValue> {
        header::cookie(|candidate| candidate == name.as_ref().as_bytes())
    }

    /// All headers.
    pub fn headers(&self) -> Headers {
        header::list(HeaderMap::Request, "")
    }

    /// Puts this value in the place of all of that name.
    pub fn set_header(&mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) {
        header::set(HeaderMap::Request, name.as_ref(), value.as_ref());
    }

    /// Adds a value to those of that name.
    pub fn add_header(&mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) {
        header::add(HeaderMap::Request, name.as_ref(), value.as_ref());
    }

    /// Removes all values of that name and says how many there were.
    pub fn remove_header(&mut self, name: impl AsRef<str>) -> usize {
        header::remove(HeaderMap::Request, name.as_ref())
    }

    /// Sets the method.
    pub fn set_method(&mut self, method: impl AsRef<str>) {
        set(Property::Method, method.as_ref());
    }

    /// Sets the path, in the form in which it is to go on (encoded, beginning with `/`). The query stays. The route
    /// is looked for again only when `rewrite` returns [`Verdict::Reroute`](crate::Verdict::Reroute).
    pub fn set_path(&mut self, path: impl AsRef<str>) {
        set(Property::Path, path.as_ref());
    }

    /// Sets the query, without its `?`. An empty one is removed.
    pub fn set_query(&mut self, query: impl AsRef<str>) {
        set(Property::Query, query.as_ref());
    }

    /// Sets the host (and port) that routing and upstreams see.
    pub fn set_host(&mut self, host: impl AsRef<str>) {
        set(Property::Host, host.as_ref());
    }

    /// Has the request go to the upstream of this name in the place of its route's own; an empty name: to the route's own
    /// again. The config must grant it: `grants = { upstreams = ["canary"] }`. The last plugin that chooses one decides,
    /// also when the request is routed again. What a route says of its own upstreams (its time-outs, its tries) is not for
    /// others. In `post_read`, `rewrite`, `preaccess`, `access` and `content`.
    ///
    /// ```
    /// use castling_sdk::prelude::*;
    /// use castling_sdk::testing::Exchange;
    ///
    /// #[derive(Default)]
    /// struct Tenants;
    ///
    /// #[plugin]
    /// impl Tenants {
    ///     fn access(&self, request: &mut Request) {
    ///         if request.header("x-tenant").is_some_and(|tenant| tenant == "acme") {
    ///             request.set_upstream("acme");
    ///         }
    ///     }
    /// }
    ///
    /// let mut exchange = Exchange::get("/").header("x-tenant", "acme").grant_upstream("acme");
    /// Tenants.access(exchange.request());
    /// assert_eq!(exchange.chosen_upstream().as_deref(), Some("acme"));
    /// ```
    pub fn set_upstream(&mut self, name: impl AsRef<str>) {
        let name = name.as_ref();
        error::note_refusal(host::upstream_set(name.as_bytes()), |why| {
            error::refusal(
                format_args!("set_upstream(\"{}\")", name.escape_debug()),
                why,
            )
        });
    }

    /// Sets the client's IP address, for a gateway that stands behind another proxy. In `post_read` only.
    pub fn set_client_address(&mut self, address: impl AsRef<str>) {
        set(Property::ClientAddress, address.as_ref());
    }

    /// Waits for the whole body and returns it; the upstream gets it all the same. Head and headers can still be
    /// changed afterwards, or the request answered. The gateway serves other requests meanwhile, and when the client
    /// leaves, the hook ends here.
    ///
    /// Fails with [`Error::is_limit`](crate::Error::is_limit) when it is longer than `limit` bytes; the request may
    /// go on all the same. `limit` may be up to the plugin's `limits.body`. In `rewrite`, `preaccess`, `access` and
    /// `content`.
    ///
    /// ```
    /// # use castling_sdk::prelude::*;
    /// # #[derive(Default)]
    /// # struct Plugin;
    /// # #[plugin]
    /// # impl Plugin {
    /// fn access(&self, request: &mut Request) -> Result<Verdict> {
    ///     match request.read_body(64 * 1024) {
    ///         Ok(body) => request.set_var("letters", body.len().to_string()),
    ///         Err(error) if error.is_limit() => return Ok(Response::status(413).into()),
    ///         Err(error) => return Err(error),
    ///     }
    ///     Ok(Verdict::Continue)
    /// }
    /// # }
    /// # let mut exchange = castling_sdk::testing::Exchange::new("POST", "/").body("abc");
    /// # assert_eq!(Plugin.access(exchange.request()).unwrap(), Verdict::Continue);
    /// # assert_eq!(exchange.request().var("letters").unwrap(), "3");
    /// ```
    pub fn read_body(&self, limit: usize) -> Result<Vec<u8>> {
        wait::read_body(HeaderMap::Request, limit)
    }

    /// The first `bytes` of the body, and whether they are all of it. Waits until so many are there, or the body's end; it passes on
    /// afterwards as if nobody had looked, however long it is. For plugins that judge a request by how its body begins: a firewall that
    /// looks at 64 KiB of an upload of 1 GiB.
    ///
    /// Up to the plugin's `limits.body`, beyond which it fails with [`Error::is_limit`](crate::Error::is_limit). In `rewrite`,
    /// `preaccess`, `access` and `content`.
    ///
    /// ```
    /// use castling_sdk::prelude::*;
    /// use castling_sdk::testing::Exchange;
    ///
    /// #[derive(Default)]
    /// struct Firewall;
    ///
    /// #[plugin]
    /// impl Firewall {
    ///     fn access(&self, request: &mut Request) -> Result<Verdict> {
    ///         let (beginning, _whole) = request.peek_body(64 * 1024)?;
    ///         let is_script = beginning.windows(7).any(|bytes| bytes == b"<script");
    ///         Ok(if is_script { Response::status(403).into() } else { Verdict::Continue })
    ///     }
    /// }
    ///
    /// let mut exchange = Exchange::new("POST", "/").body("<p>fine</p>");
    /// assert_eq!(Firewall.access(exchange.request()).unwrap(), Verdict::Continue);
    /// assert_eq!(exchange.request().peek_body(3)?, (b"<p>".to_vec(), false));
    /// assert_eq!(exchange.request().peek_body(99)?, (b"<p>fine</p>".to_vec(), true));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn peek_body(&self, bytes: usize) -> Result<(Vec<u8>, bool)> {
        wait::peek_body(bytes)
    }

    /// The body as JSON, read as [`Self::read_body`] reads it. An error of the JSON names the place in it: `body.tags[2]: …`.
    ///
    /// ```
    /// # use castling_sdk::prelude::*;
    /// # use castling_sdk::testing::Exchange;
    /// #[derive(Deserialize)]
    /// struct Order {
    ///     count: u32,
    /// }
    /// let mut exchange = Exchange::new("POST", "/").body(r#"{"count": 3}"#);
    /// let order: Order = exchange.request().read_json(64 * 1024)?;
    /// assert_eq!(order.count, 3);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn read_json<T: DeserializeOwned>(&self, limit: usize) -> Result<T> {
        config::parse_body(&self.read_body(limit)?)
    }

    /// The body as a form (`application/x-www-form-urlencoded`), read as [`Self::read_body`] reads it.
    pub fn read_form(&self, limit: usize) -> Result<Params> {
        Ok(Params::parse(self.read_body(limit)?))
    }

    /// A variable that some plugin has set for this request; `None` when none has. One that a plugin of the route
    /// computes (its `variable` hook) is computed now, if it was not before; the gateway serves other requests
    /// meanwhile. In `request_body`, `balance` and `peer_done` only those are there that have been asked for before.
    /// Where no plugin has one of that name, it is the gateway's own: `request_id`, `arg_page`, `duration`.
    pub fn var(&self, name: impl AsRef<str>) -> Option<HeaderValue> {
        let name = name.as_ref().as_bytes();
        let get = || ShortBytes::read(|out| host::var_get(name, out));
        let value = match get() {
            Err(Status::Uncomputed) if host::var_compute(name) == 0 => get(),
            value => value,
        };
        value.ok().map(HeaderValue::unchecked)
    }

    /// Sets a variable that later hooks, of any plugin, and the access log (`$name`) see. Names are of `a-z`, `0-9`
    /// and `_`, 1 to 64 bytes. Possible in every hook, since it changes nothing that is sent.
    pub fn set_var(&self, name: impl AsRef<str>, value: impl AsRef<[u8]>) {
        let (name, value) = (name.as_ref(), value.as_ref());
        error::note_refusal(host::var_set(name.as_bytes(), value), |why| {
            error::bad_argument(
                format_args!(
                    "set_var(\"{}\", \"{}\")",
                    name.escape_debug(),
                    value.escape_ascii()
                ),
                why,
                "a name of a-z, 0-9 and _, of 1 to 64 bytes",
            )
        });
    }
}

pub(crate) fn property(property: Property) -> Option<String> {
    read_text(|out| host::property_get(property, out)).ok()
}

fn set(property: Property, value: &str) {
    error::note_refusal(host::property_set(property, value.as_bytes()), |why| {
        error::bad_argument(
            format_args!("set_{}(\"{}\")", property.name(), value.escape_debug()),
            why,
            expected(property),
        )
    });
}

#[cold]
fn expected(property: Property) -> &'static str {
    match property {
        Property::Method => "a method, and another than CONNECT",
        Property::Path => {
            "a path that begins with / and has no ?, #, space or other character that is to be encoded"
        }
        Property::Query => "a query without #, space or other character that is to be encoded",
        Property::Host => "a host, and maybe a port",
        Property::ClientAddress => "an IP address",
        Property::ClientPort
        | Property::Scheme
        | Property::Protocol
        | Property::Listener
        | Property::Route
        | Property::Upstream
        | Property::Peer
        | Property::ServerAddress
        | Property::ServerPort
        | Property::RoutedPath => "one that can be set",
    }
}
