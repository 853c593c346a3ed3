//! Lists of peers from outside: the DNS is asked for addresses, and URLs for lists.
//!
//! One helper does it for the whole gateway, so that all workers agree and questions do not multiply. The master says when
//! what is to be asked, and keeps what has come; the helper knows nothing from one question to the next. What goes between
//! them is here.

mod call;
pub mod dns;
mod http;
pub mod list;

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Family, PeersUrl};
use crate::transport::PeerAddress;

pub use call::{HostBody, HostCall};

/// Question of the master to the helper.
#[derive(Debug, Serialize, Deserialize)]
pub struct Question {
    /// Number that the reply has.
    pub id: u64,
    pub ask: Ask,
}

/// Thing that is asked for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    Name(NameQuestion),
    List(Box<ListQuestion>),
}

/// Answer of the helper.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    /// Number of the question.
    pub id: u64,
    /// The error is a line for a person.
    pub learnt: Result<Learnt, String>,
}

/// Answer to a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Learnt {
    /// Addresses of a name.
    Addresses(Answer),
    /// State of the list at a URL.
    List(Listed),
}

/// Question for the list at a URL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListQuestion {
    pub url: PeersUrl,
    pub host: ListHost,
    /// Validators of the list that is known. Empty: none is.
    pub validators: Validators,
}

/// Where the host of a URL is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListHost {
    /// At these addresses, the first of which is tried first.
    Addresses(Vec<SocketAddr>),
    /// Where the DNS says.
    Name(NameQuestion),
}

/// Words by which a server knows what a client has of it (RFC 9110 §8.8).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validators {
    pub etag: Option<String>,
    pub last_modified: Option<String>,
}

impl Validators {
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }
}

/// State of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Listed {
    /// List that is as it was known (304).
    Same,
    Peers {
        found: Vec<Found>,
        validators: Validators,
    },
}

/// Question for the addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameQuestion {
    pub name: String,
    pub kind: NameKind,
    pub family: Family,
    /// Servers, the first of which is asked first.
    pub servers: Vec<SocketAddr>,
    /// Domains that the name may be in (resolv.conf(5), `search`).
    pub search: Vec<String>,
    /// Dots from which on the name is asked for as it is first (resolv.conf(5), `ndots`).
    pub ndots: usize,
    /// Longest wait for one server.
    pub timeout: Duration,
}

/// Meaning of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NameKind {
    /// Name of hosts, at whose addresses the peers are, on this port.
    Host { port: u16 },
    /// Name of a service, whose records say where (SRV, RFC 2782).
    Service,
}

/// Addresses that were found, at least one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub found: Vec<Found>,
    /// Parts of it that could not be learnt now. Addresses that are known of them are good still.
    pub unknown: Vec<Unknown>,
    /// Time for which it is good by its own word.
    pub ttl: Duration,
}

/// An address that a peer is at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    pub address: PeerAddress,
    /// `HOST:PORT` whose address it is; `None`: the name's that was asked for.
    pub host: Option<String>,
    /// Weight that the record has.
    pub weight: Option<u16>,
    /// Whether others come before it, by the record's priority.
    pub is_backup: bool,
    /// Requests that may be under way there, where the source says.
    #[serde(default)]
    pub max_active: Option<u32>,
    /// Zone that it is in, where the source says.
    #[serde(default)]
    pub zone: Option<String>,
    /// Name by which requests are bound to it, where the source says.
    #[serde(default)]
    pub route: Option<String>,
    /// Tags for plugins, where the source says.
    #[serde(default)]
    pub tags: Vec<String>,
}

impl Found {
    /// An address of which nothing else is said.
    pub fn at(address: SocketAddr, host: Option<&str>) -> Self {
        Self {
            address: address.into(),
            host: host.map(str::to_owned),
            weight: None,
            is_backup: false,
            max_active: None,
            zone: None,
            route: None,
            tags: Vec::new(),
        }
    }
}

/// Addresses of this host and family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unknown {
    /// See [`Found::host`].
    pub host: Option<String>,
    pub is_ipv4: bool,
}

impl Unknown {
    pub fn covers(&self, found: &Found) -> bool {
        let is_ipv4 = found.address.inet().map(|address| address.is_ipv4());
        self.host == found.host && is_ipv4 == Some(self.is_ipv4)
    }
}
