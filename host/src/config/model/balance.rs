//! How an upstream's peers are chosen, in the resolved config.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Balancing policy. In the file: `"round_robin"` and the like, `{ hash = "$http_x_user" }` or `{ plugin = "NAME" }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Balance {
    /// In turns, by weight (nginx's default).
    RoundRobin,
    /// The peer with the fewest requests under way for its weight (nginx `least_conn`).
    LeastConn,
    /// The peer whose average time to a response's head, times its requests under way and this one, is least for its weight
    /// (nginx `least_time header`).
    LeastTime,
    /// The better of two random peers by requests under way (nginx `random two`, Envoy `LEAST_REQUEST`).
    Random,
    /// The better of two random peers by peak latency times requests under way (Finagle, Linkerd, Envoy `peak_ewma`).
    Ewma,
    /// Clients of one network go to the same peer (nginx `ip_hash`).
    IpHash,
    /// Requests with the same key go to the same peer.
    Hash(HashBalance),
    /// The peer that the request's host names as it is in the list; none else, which makes the list one of what clients may
    /// reach (`CONNECT db.internal:5432`). Else 403.
    Target,
    Plugin(String),
}

/// Consistent hashing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HashBalance {
    /// Text with `$variables` of the request.
    pub key: String,
    /// Default `ketama`.
    pub method: HashMethod,
    /// How much more than the average a peer may have under way, 1 to 10; further requests go on to the next. Default none: any
    /// number (Envoy `hash_balance_factor`, in percent; HAProxy `hash-balance-factor`).
    pub bounded: Option<f64>,
}

/// How keys are laid out on peers. In the file `"ketama"` or `"maglev"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HashMethod {
    /// Points on a circle, as nginx has them in `hash KEY consistent`: with the same peers, keys go where nginx sends them.
    Ketama,
    /// Spread more evenly, and looked up sooner.
    Maglev,
}

/// Time in which a peer that has come up gets to its whole weight. In the file `"30s"` or `{ window = "30s", aggression = 1.0 }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlowStart {
    /// 1 s to 1 h.
    pub window: Duration,
    /// How soon the weight rises: 1 is a straight line, more is sooner. 0.1 to 10. Default 1 (Envoy `aggression`).
    pub aggression: f64,
}

/// Binding of the requests of one session to a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Sticky {
    /// A cookie that the gateway sets (nginx `sticky cookie`).
    Cookie(StickyCookie),
    /// Texts with `$variables` of the request, of which the first that has a value is the `route` of a peer (nginx `sticky route`).
    Route(Vec<String>),
    /// Names that peers give to their sessions (nginx `sticky learn`, HAProxy stick tables).
    Learn(StickyLearn),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StickyLearn {
    /// Texts with `$variables` of a response and its request, of which the first that has a value is a session's name (nginx
    /// `create`, HAProxy `stick store-response`).
    pub learn: Vec<String>,
    /// Texts with `$variables` of a request, of which the first that is the name of a known session counts (nginx `lookup`,
    /// HAProxy `stick match`). Default: `learn`, with `$cookie_NAME` for `$upstream_cookie_NAME`.
    pub lookup: Vec<String>,
    /// Zone of kind kv that has the sessions.
    pub zone: String,
    /// Time without a request after which a session is forgotten. 1 s to 30 days. Default 10 min (nginx `timeout`, HAProxy
    /// `expire`).
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StickyCookie {
    pub name: String,
    /// At least one, of 16 bytes and more: the first signs, the others are still accepted.
    pub secrets: Vec<Secret>,
    /// Default `/`.
    pub path: String,
    /// Default none: the host of the request.
    pub domain: Option<String>,
    /// 1 s to 10 years. Default none: until the browser ends.
    pub max_age: Option<Duration>,
    /// Default false.
    pub secure: bool,
    /// Default true.
    pub http_only: bool,
    /// Default none.
    pub same_site: Option<SameSite>,
}

/// `SameSite` of a cookie. In the file `"lax"`, `"strict"` or `"none"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SameSite {
    Lax,
    Strict,
    None,
}

impl SameSite {
    pub fn name(self) -> &'static str {
        match self {
            Self::Lax => "Lax",
            Self::Strict => "Strict",
            Self::None => "None",
        }
    }
}

/// Bytes that are never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}
