//! Connections that a proxy passes on: the PROXY header in front of them says whose they are. It is read before all else, also
//! before TLS, and nothing behind it.

use std::future::poll_fn;
use std::io::{self, ErrorKind};

use rustix::net::RecvFlags;
use tracing::debug;

use super::admit::{ConnectionPermit, begin};
use crate::config::{ProxyProtocol, WithoutHeader};
use crate::transport::Socket;
use crate::transport::address::ClientAddress;
use crate::transport::proxy_protocol::{Header, Parsed, parse};

/// Bytes looked at at a time. Most headers have less than a hundred.
const LOOK_BYTES: usize = 512;

/// Reads the header of a proxy's connection, and has it served then. That of anybody else is closed, or served as it is.
pub(super) fn admit(
    socket: Socket,
    proxy: ClientAddress,
    proxies: &ProxyProtocol,
    permit: ConnectionPermit,
) {
    let server = permit.acceptor.local_address(&socket);
    if !proxies.from.contain(proxy.ip()) {
        match proxies.others {
            WithoutHeader::Refuse => refuse(&permit, proxy, "it comes from no proxy"),
            WithoutHeader::Serve => begin(socket, proxy, server, permit),
        }
        return;
    }
    let limit = proxies.timeout;
    tokio::task::spawn_local(async move {
        match tokio::time::timeout(limit, read_header(&socket)).await {
            Ok(Ok(header)) => {
                let (client, server) = match header.ends {
                    Some(ends) => (ends.client.into(), ends.server.into()),
                    None => (proxy, server),
                };
                begin(socket, client, server, permit);
            }
            Ok(Err(error)) => refuse(&permit, proxy, &error.to_string()),
            Err(_) => {
                let why = format!("no whole PROXY header in {limit:?}");
                refuse(&permit, proxy, &why);
            }
        }
    });
}

/// Counts a connection that is closed.
fn refuse(permit: &ConnectionPermit, proxy: ClientAddress, why: &str) {
    let service = permit.acceptor.service();
    service.metrics.refused_proxy_protocol.inc();
    debug!(listener = %service.name, %proxy, "connection refused: {why}");
}

async fn read_header(socket: &Socket) -> io::Result<Header> {
    let mut taken = Vec::new();
    loop {
        match read_more(socket, &mut taken) {
            Ok(Some(header)) => return Ok(header),
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll_fn(|cx| socket.poll_read_ready(cx)).await?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Takes more of a header, and no byte behind it: it looks first. `None`: all that has come is of the header, and more is to come.
fn read_more(socket: &Socket, taken: &mut Vec<u8>) -> io::Result<Option<Header>> {
    let mut room = [0; LOOK_BYTES];
    let there = socket.try_receive(&mut room, RecvFlags::PEEK)?;
    if there == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let before = taken.len();
    taken.extend_from_slice(&room[..there]);
    let parsed = parse(taken).map_err(io::Error::other)?;
    let end = match parsed {
        Parsed::Header(header) => header.bytes,
        Parsed::Needs(_) => taken.len(),
    };
    let mut left = end - before;
    while left > 0 {
        // Bytes that were looked at are there.
        left -= socket.try_receive(&mut room[..left], RecvFlags::empty())?;
    }
    Ok(match parsed {
        Parsed::Header(header) => Some(header),
        Parsed::Needs(_) => None,
    })
}
