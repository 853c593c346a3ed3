//! Sockets and addresses: binding one to the other, whether an address is in use, and which one a socket has.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

use rustix::net::SocketType;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::config::{Bind, Listener};
use crate::process::unix_socket;

/// Whether some process listens there, be it one of ours.
pub fn is_in_use(listener: &Listener) -> bool {
    match &listener.bind {
        Bind::Tcp(address) => {
            let probed = probe(*address, listener.socket.ipv6_only);
            probed.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
        }
        Bind::Unix(path) => unix_socket::is_served(path).unwrap_or(false),
    }
}

/// Fails where the address is in use. With SO_REUSEPORT, binding would silently join another process of the same user. Without it, that process's sockets
/// make this fail with "address in use", as an operator expects.
pub(super) fn probe(address: SocketAddr, ipv6_only: bool) -> io::Result<()> {
    bind(address, ipv6_only, false).map(drop)
}

/// Whether an address cannot be bound beside a socket of another user, from systemd say, although it shares its port (socket(7), SO_REUSEPORT), or on a
/// privileged port.
pub(super) fn is_not_ours_to_bind(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
    )
}

/// Binds a socket that does not listen yet. A shared socket shares its port, too, so that it may be one of several after a reload.
pub(super) fn bind(address: SocketAddr, ipv6_only: bool, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if matches!(address.ip(), IpAddr::V6(_)) {
        // The socket has its own setting, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(ipv6_only)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The address that a listening stream socket from another process is bound to. Fails, for a person, when it is none.
pub fn address_of(socket: BorrowedFd<'_>) -> Result<Bind, String> {
    use rustix::net::sockopt::{socket_acceptconn, socket_type};
    let asked = socket_type(socket).and_then(|kind| Ok((kind, socket_acceptconn(socket)?)));
    match asked {
        Ok((SocketType::STREAM, true)) => {}
        Ok((SocketType::STREAM, false)) => return Err("it does not listen".to_owned()),
        Ok(_) => return Err("it is no stream socket".to_owned()),
        Err(error) => return Err(error.to_string()),
    }
    let local = SockRef::from(&socket).local_addr();
    let local = local.map_err(|error| error.to_string())?;
    let tcp = local.as_socket().map(Bind::Tcp);
    let unix = || local.as_pathname().map(|path| Bind::Unix(path.to_owned()));
    tcp.or_else(unix)
        .ok_or_else(|| "its address is neither of TCP nor a path".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_another_socket_is_in_use_though_both_share_ports() {
        let other = bind("127.0.0.1:0".parse().unwrap(), true, true).unwrap();
        other.listen(1).unwrap();
        let address = other.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(
            probe(address, true).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(other);
        probe(address, true).unwrap();
    }
}
