//! The options of a listening socket. A TCP connection has those of the socket that it was accepted on, so that they are set
//! once and not for each.

use std::io;
use std::os::fd::AsFd;

use rustix::net::sockopt;

use super::sys;
use crate::config::{Bind, Listener};
use crate::transport::keep_alive;

/// Makes it listen, with the listener's options. One that listens already gets them anew.
pub(super) fn listen(socket: impl AsFd, listener: &Listener) -> io::Result<()> {
    let (socket, options) = (socket.as_fd(), &listener.socket);
    if let Bind::Tcp(_) = listener.bind {
        sockopt::set_tcp_nodelay(socket, options.nodelay)?;
        sockopt::set_socket_keepalive(socket, options.tcp_keepalive.is_some())?;
        if let Some(keepalive) = options.tcp_keepalive {
            keep_alive(socket, &keepalive)?;
        }
        sys::set_defer_accept(socket, options.defer_accept_seconds)?;
    }
    let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
    Ok(rustix::net::listen(socket, backlog)?)
}
