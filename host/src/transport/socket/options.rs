//! Options of sockets that connect or listen.
#![allow(
    unsafe_code,
    reason = "neither rustix nor socket2 has a function for IP_BIND_ADDRESS_NO_PORT"
)]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use rustix::net::sockopt;

use crate::config::TcpKeepalive;

/// Has the kernel probe the connection when it is silent.
pub fn keep_alive(socket: impl AsFd, keepalive: &TcpKeepalive) -> io::Result<()> {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, seconds(keepalive.idle_seconds))?;
    sockopt::set_tcp_keepintvl(&socket, seconds(keepalive.interval_seconds))?;
    Ok(sockopt::set_tcp_keepcnt(&socket, keepalive.count)?)
}

/// Has a socket that is bound to an address get its port when it connects (IP_BIND_ADDRESS_NO_PORT, ip(7)): a port is then free for
/// each destination, and not for all of them together. For IPv6, too.
pub fn put_off_port(socket: impl AsFd) -> io::Result<()> {
    let on: c_int = 1;
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the option is an int (ip(7)); the kernel reads as many bytes as one has, and only during the call.
    let result = unsafe {
        libc::setsockopt(
            descriptor,
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
