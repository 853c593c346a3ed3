//! Messages between an old and a new master, in the frames of `channel.rs`.

use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Bind;
use crate::process::upstreams::UpstreamsOffer;
use crate::transport::tls::TicketChain;

/// The meaning of an [`Offer`] and of all messages after it. A change that another version would not understand raises
/// it; [`FromOld::Offer`] and [`FromNew::Refused`] never change, so that any two versions can at least say that they do
/// not understand one another.
pub const FORMAT: u32 = 1;

/// Largest frame, bytes: some ten thousand sockets, as many peers as there may be, or the status of some thousand workers.
pub const FRAME_LIMIT_BYTES: usize = 64 * 1024 * 1024;

/// Descriptors of one offer: 64 listeners with a socket for each of 512 workers, and their like in zones.
pub const DESCRIPTORS_MAX: usize = 40_000;

/// Message of the old master to the new one.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromOld {
    /// The first message, after the descriptors: an [`Offer`] of the format that it names.
    Offer(Value),
    /// Be the gateway: accept, take the control socket and the pid file, then say so.
    Commit,
    /// All is the new master's from here on. The old one drains.
    Yours,
    /// A [`MasterStatus`](crate::process::MasterStatus) of the old master's version.
    Status(Value),
    /// The old master's workers have all ended, and those of the masters before it; it ends now. A master that ends without
    /// this message was killed, and its workers finish what they have.
    Ended,
}

/// Message of the new master to the old one.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromNew {
    /// The new master cannot take over, and ends. Lines for a person.
    Refused(Vec<String>),
    /// The new master's workers are all ready.
    Ready,
    /// The new master's workers accept; control socket and pid file are its own.
    Serving(Serving),
    /// Request that the old master answers by `Status`.
    StatusRequest,
    /// Do not drain any longer than it takes (`fast`: end now).
    Stop {
        fast: bool,
    },
    ReopenLogs,
}

/// The new master, now that it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    pub version: String,
    /// Process id by the new master's own word: a script may have started it.
    pub pid: u32,
    pub generation: u64,
    pub workers: usize,
}

/// Everything that goes from one master to the next.
#[derive(Debug, Serialize, Deserialize)]
pub struct Offer {
    pub format: u32,
    /// Version of the old master's binary.
    pub version: String,
    pub pid: u32,
    /// Descriptions of the descriptors, in their order.
    pub descriptors: Vec<Described>,
    /// Places that a gateway keeps from its start on.
    pub places: Paths,
    pub last_generation: u64,
    /// Time of the gateway's start.
    pub started_at: SystemTime,
    /// Rows of the memory that workers share, which are the old master's until its end.
    #[serde(rename = "metrics_rows")]
    pub rows: Vec<u32>,
    /// Numbers of peers, and the last good answers of the DNS. `None` of a version whose workers knew peers each for itself.
    #[serde(default)]
    pub peers: Option<UpstreamsOffer>,
    /// Secrets of session tickets, so that clients come back by those that they have. `None` of a version without TLS.
    #[serde(default)]
    pub ticket_chain: Option<TicketChain>,
}

/// Description of a descriptor.
#[derive(Debug, Serialize, Deserialize)]
pub enum Described {
    /// The locked file beside the control socket.
    InstanceLock,
    /// The locked folder of the kv zones.
    ZoneStore,
    CounterZone {
        name: String,
        size_bytes: u64,
    },
    /// A version without gauge zones takes no offer that has one.
    GaugeZone {
        name: String,
        size_bytes: u64,
    },
    /// Memory of flights, where there are kv zones.
    Flights,
    /// The bell of flights.
    Bell,
    /// The bell of topics.
    TopicBell,
    TopicZone {
        name: String,
        size_bytes: u64,
    },
    Metrics {
        max_series: u32,
    },
    /// Memory of the peers' state.
    Peers,
    Listener {
        bind: Bind,
        /// Whether it is a Unix socket whose file is the master's to remove.
        owns_file: bool,
    },
}

/// Files and folders of a gateway that stay where they were at its start, whatever a later config says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    pub control: PathBuf,
    pub pid_file: Option<PathBuf>,
    pub zone_store: PathBuf,
}
