//! Inheritance of a new master: what it has been handed, sorted and checked.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::SystemTime;

use serde_json::Value;

use crate::config::Bind;
use crate::process::flights::FlightDescriptors;
use crate::process::metrics::InheritedMetrics;
use crate::process::sockets::{Adopted, address_of};
use crate::process::upstreams::InheritedPeers;
use crate::transport::tls::TicketChain;

use super::message::{Described, FORMAT, Offer, Paths};

/// Descriptors, each by what the old master says that it is. The code that takes one checks that it is that.
pub struct Inheritance {
    /// Version of the old master's binary.
    pub version: String,
    /// Process id of the old master.
    pub pid: u32,
    pub paths: Paths,
    pub last_generation: u64,
    pub started_at: SystemTime,
    pub instance_lock: File,
    pub zone_store: Option<File>,
    pub zones: Vec<InheritedZone>,
    pub flights: Option<FlightDescriptors>,
    pub metrics: Option<InheritedMetrics>,
    pub peers: Option<InheritedPeers>,
    /// Rows of the memory that workers share, which are the old master's until its end.
    pub rows: Vec<u32>,
    pub sockets: Vec<Adopted>,
    pub ticket_chain: Option<TicketChain>,
}

/// Memory of a zone.
pub struct InheritedZone {
    pub name: String,
    pub kind: ZoneInMemory,
    pub size_bytes: u64,
    pub memory: OwnedFd,
}

/// Kind of a zone that lies in a memory file.
#[derive(Clone, Copy, Debug)]
pub enum ZoneInMemory {
    Counter,
    Gauge,
    Topic,
}

impl Inheritance {
    /// Sorts the descriptors of an offer. Fails, for a person, on an offer of another format and on one whose descriptors are
    /// not those that came.
    pub fn sort(offer: Value, descriptors: Vec<OwnedFd>) -> Result<Self, String> {
        let offer = read(offer)?;
        if offer.descriptors.len() != descriptors.len() {
            return Err(format!(
                "the hand-over has {} descriptors; it describes {}",
                descriptors.len(),
                offer.descriptors.len()
            ));
        }
        let mut sorted = Sorted::default();
        for (described, descriptor) in offer.descriptors.into_iter().zip(descriptors) {
            sorted.put(described, descriptor)?;
        }
        // One without the other is of no use.
        let peers = sorted.peers.zip(offer.peers);
        let flights = sorted.flights.zip(sorted.bell).zip(sorted.topic_bell);
        Ok(Self {
            version: offer.version,
            pid: offer.pid,
            paths: offer.places,
            last_generation: offer.last_generation,
            started_at: offer.started_at,
            instance_lock: sorted
                .instance_lock
                .ok_or("the hand-over lacks the instance's lock")?,
            zone_store: sorted.zone_store,
            zones: sorted.zones,
            flights: flights.map(|((zone, bell), topics)| FlightDescriptors { zone, bell, topics }),
            metrics: sorted.metrics,
            peers: peers.map(|(memory, offer)| InheritedPeers { memory, offer }),
            rows: offer.rows,
            sockets: sorted.sockets,
            ticket_chain: offer.ticket_chain,
        })
    }
}

/// An offer of the format that this version knows.
fn read(offer: Value) -> Result<Offer, String> {
    let format = offer.get("format").and_then(Value::as_u64);
    if format != Some(u64::from(FORMAT)) {
        let version = offer.get("version").and_then(Value::as_str).unwrap_or("?");
        let format = format.map_or("?".to_owned(), |format| format.to_string());
        return Err(format!(
            "castling {version} hands over in format {format}; castling {} takes format {FORMAT}: \
             stop the one and start the other",
            env!("CARGO_PKG_VERSION")
        ));
    }
    serde_json::from_value(offer).map_err(|error| format!("the hand-over cannot be read: {error}"))
}

/// Descriptors that have found their place so far.
#[derive(Default)]
struct Sorted {
    instance_lock: Option<File>,
    zone_store: Option<File>,
    zones: Vec<InheritedZone>,
    flights: Option<OwnedFd>,
    bell: Option<OwnedFd>,
    topic_bell: Option<OwnedFd>,
    metrics: Option<InheritedMetrics>,
    peers: Option<OwnedFd>,
    sockets: Vec<Adopted>,
}

impl Sorted {
    /// Fails, for a person, on a second one of what there is one of, and on a socket that is not bound as it is said to be.
    fn put(&mut self, described: Described, descriptor: OwnedFd) -> Result<(), String> {
        let is_second = match described {
            Described::InstanceLock => self.instance_lock.replace(descriptor.into()).is_some(),
            Described::ZoneStore => self.zone_store.replace(descriptor.into()).is_some(),
            Described::CounterZone { name, size_bytes } => {
                self.put_zone(ZoneInMemory::Counter, name, size_bytes, descriptor)
            }
            Described::GaugeZone { name, size_bytes } => {
                self.put_zone(ZoneInMemory::Gauge, name, size_bytes, descriptor)
            }
            Described::Metrics { max_series } => {
                let metrics = InheritedMetrics {
                    max_series,
                    memory: descriptor,
                };
                self.metrics.replace(metrics).is_some()
            }
            Described::Flights => self.flights.replace(descriptor).is_some(),
            Described::Bell => self.bell.replace(descriptor).is_some(),
            Described::TopicBell => self.topic_bell.replace(descriptor).is_some(),
            Described::TopicZone { name, size_bytes } => {
                self.put_zone(ZoneInMemory::Topic, name, size_bytes, descriptor)
            }
            Described::Peers => self.peers.replace(descriptor).is_some(),
            Described::Listener { bind, owns_file } => {
                must_be_bound(descriptor.as_fd(), &bind)?;
                self.sockets.push(Adopted {
                    bind,
                    socket: descriptor,
                    owns_file,
                });
                false
            }
        };
        match is_second {
            true => Err("the hand-over has two of what there is one of".to_owned()),
            false => Ok(()),
        }
    }
}

impl Sorted {
    /// There may be any number of zones: none is a second one.
    fn put_zone(
        &mut self,
        kind: ZoneInMemory,
        name: String,
        size_bytes: u64,
        memory: OwnedFd,
    ) -> bool {
        self.zones.push(InheritedZone {
            name,
            kind,
            size_bytes,
            memory,
        });
        false
    }
}

fn must_be_bound(socket: BorrowedFd<'_>, bind: &Bind) -> Result<(), String> {
    let found = match address_of(socket) {
        Ok(found) if found == *bind => return Ok(()),
        Ok(found) => format!("it is bound to {found}"),
        Err(reason) => reason,
    };
    Err(format!("what was handed over as {bind}: {found}"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn offer(descriptors: Vec<Described>) -> Value {
        let offer = Offer {
            format: FORMAT,
            version: "0.0.9".to_owned(),
            pid: 7,
            descriptors,
            places: Paths {
                control: PathBuf::from("/run/c.sock"),
                pid_file: None,
                zone_store: PathBuf::from("/dev/shm/c"),
            },
            last_generation: 3,
            started_at: SystemTime::UNIX_EPOCH,
            rows: vec![1],
            peers: None,
            ticket_chain: None,
        };
        serde_json::to_value(offer).unwrap()
    }

    fn descriptors(count: usize) -> Vec<OwnedFd> {
        let any = || OwnedFd::from(tempfile::tempfile().unwrap());
        std::iter::repeat_with(any).take(count).collect()
    }

    fn refusal(offer: Value, count: usize) -> String {
        Inheritance::sort(offer, descriptors(count)).err().unwrap()
    }

    #[test]
    fn descriptors_are_sorted_by_what_they_are() {
        let zone = Described::CounterZone {
            name: "limits".to_owned(),
            size_bytes: 65536,
        };
        let metrics = Described::Metrics { max_series: 1024 };
        let offer = offer(vec![
            zone,
            Described::InstanceLock,
            metrics,
            Described::Peers,
        ]);
        let inheritance = Inheritance::sort(offer, descriptors(4)).ok().unwrap();
        assert_eq!((inheritance.pid, inheritance.last_generation), (7, 3));
        assert_eq!(inheritance.zones[0].name, "limits");
        assert_eq!(inheritance.metrics.unwrap().max_series, 1024);
        assert_eq!(inheritance.rows, [1]);
        // Memory of peers without their numbers is of no use.
        assert!(inheritance.zone_store.is_none() && inheritance.peers.is_none());
    }

    #[test]
    fn missing_extra_and_double_descriptors_are_refused() {
        let lock = || offer(vec![Described::InstanceLock]);
        assert_eq!(
            refusal(lock(), 2),
            "the hand-over has 2 descriptors; it describes 1"
        );
        assert_eq!(
            refusal(lock(), 0),
            "the hand-over has 0 descriptors; it describes 1"
        );
        assert_eq!(
            refusal(offer(vec![]), 0),
            "the hand-over lacks the instance's lock"
        );
        let twice = offer(vec![Described::InstanceLock, Described::InstanceLock]);
        assert_eq!(
            refusal(twice, 2),
            "the hand-over has two of what there is one of"
        );
    }

    #[test]
    fn a_descriptor_that_is_no_such_listener_is_refused() {
        let listener = || Described::Listener {
            bind: "127.0.0.1:1".parse().map(Bind::Tcp).unwrap(),
            owns_file: false,
        };
        let said = refusal(offer(vec![listener()]), 1);
        assert!(
            said.starts_with("what was handed over as 127.0.0.1:1: "),
            "{said}"
        );
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let bound = other.local_addr().unwrap();
        let said = Inheritance::sort(offer(vec![listener()]), vec![other.into()]);
        let said = said.err().unwrap();
        assert_eq!(
            said,
            format!("what was handed over as 127.0.0.1:1: it is bound to {bound}")
        );
    }

    #[test]
    fn another_format_is_refused_by_its_name_whatever_else_is_in_it() {
        let offer = serde_json::json!({ "format": 2, "version": "9.1.0", "rooks": 2 });
        let said = refusal(offer, 1);
        assert!(
            said.starts_with("castling 9.1.0 hands over in format 2; castling "),
            "{said}"
        );
        assert!(refusal(Value::Null, 0).contains("in format ?"));
        let broken = serde_json::json!({ "format": FORMAT, "version": "9.1.0" });
        assert!(refusal(broken, 0).starts_with("the hand-over cannot be read: missing field"));
    }
}
