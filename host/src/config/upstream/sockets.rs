//! Options of the sockets that connections to peers are made with.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::super::Peer;
use super::super::TcpKeepalive;
use super::super::table::{Table, Value};
use super::super::tcp_keepalive::tcp_keepalive;
use super::super::tree::NodeKind;

pub(super) struct Sockets {
    pub tcp_keepalive: Option<TcpKeepalive>,
    pub source_address: Vec<IpAddr>,
    pub happy_eyeballs: Duration,
}

pub(super) fn sockets(table: &mut Table<'_>, peers: &[Peer]) -> Sockets {
    let are_all_unix = !peers.is_empty() && peers.iter().all(Peer::is_unix);
    Sockets {
        tcp_keepalive: table.or("tcp_keepalive", None, |value| match are_all_unix {
            true => value.refuse(ALL_UNIX),
            false => tcp_keepalive(value),
        }),
        source_address: table.or("source_address", Vec::new(), |value| match are_all_unix {
            true => value.refuse(ALL_UNIX),
            false => source_address(value, peers),
        }),
        happy_eyeballs: table.or("happy_eyeballs", Duration::from_millis(250), |value| {
            match are_all_unix {
                true => value.refuse(ALL_UNIX),
                false => value.duration(Duration::ZERO..=Duration::from_secs(2)),
            }
        }),
    }
}

/// An address, or a list of one for each family. Peers that are given by their addresses must have one of theirs.
fn source_address(value: Value<'_>, peers: &[Peer]) -> Option<Vec<IpAddr>> {
    let addresses = match value.kind() {
        NodeKind::List(items) if !items.is_empty() => value.list(ip)?,
        NodeKind::List(_) => return value.expected(SOURCE_RULE),
        _ => vec![ip(value)?],
    };
    for is_ipv4 in [true, false] {
        let of_family = |ip: &&IpAddr| ip.is_ipv4() == is_ipv4;
        let family = if is_ipv4 { "IPv4" } else { "IPv6" };
        let count = addresses.iter().filter(of_family).count();
        if count > 1 {
            return value.refuse(format_args!(
                "source_address has {count} addresses of {family}: expected one"
            ));
        }
        let needs_one = |peer: &&Peer| {
            let address = peer.address.parse::<SocketAddr>();
            address.is_ok_and(|address| address.is_ipv4() == is_ipv4)
        };
        if let (0, Some(peer)) = (count, peers.iter().find(needs_one)) {
            return value.refuse(format_args!(
                "source_address has no address of {family}, which peer \"{}\" is of",
                peer.address
            ));
        }
    }
    Some(addresses)
}

fn ip(value: Value<'_>) -> Option<IpAddr> {
    match value.text_or(SOURCE_RULE)?.parse::<IpAddr>() {
        Ok(ip) if !ip.is_unspecified() && !ip.is_multicast() => Some(ip.to_canonical()),
        Ok(_) | Err(_) => value.expected(SOURCE_RULE),
    }
}

const SOURCE_RULE: &str =
    "an address of this host such as \"10.0.0.5\", or a list of one for each family";

const ALL_UNIX: &str = "peers are all Unix sockets: expected no options of TCP";
