//! Connections whose requests are answered one after the other, and that are kept without any.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

use super::certificates::NAME;
use super::framing::{Progress, Reading};
use super::front::Front;
use super::http2::{self, Conversation, Fields};
use super::probe::KEY;
use super::socket::Socket;

/// Connections, each answered once. They end when they are dropped.
pub(super) fn open(
    front: Front,
    address: SocketAddr,
    connections: usize,
) -> Result<Vec<Socket>, String> {
    let open = |_| -> std::io::Result<Socket> {
        let mut socket = Socket::connect(front, address, PATIENCE)?;
        if front.is_http2() {
            ask_http2(&mut socket, front)?;
        } else {
            socket.write_all(&request(&[KEY]))?;
            read_response(&mut socket)?;
        }
        Ok(socket)
    };
    let connections: std::io::Result<Vec<_>> = (0..connections).map(open).collect();
    connections.map_err(|e| format!("an idle connection to {address}: {e}"))
}

/// An error where a peer has closed one of them.
pub(super) fn check_open(connections: &[Socket]) -> Result<(), String> {
    let is_open = |connection: &Socket| -> std::io::Result<bool> {
        let socket = connection.tcp();
        socket.set_nonblocking(true)?;
        match socket.peek(&mut [0]) {
            Ok(bytes) => Ok(bytes > 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
            Err(_) => Ok(false),
        }
    };
    let mut closed = 0;
    for connection in connections {
        let is_open = is_open(connection).map_err(|e| format!("an idle connection: {e}"))?;
        closed += usize::from(!is_open);
    }
    match closed {
        0 => Ok(()),
        _ => Err(format!(
            "{closed} of {} idle connections were closed",
            connections.len()
        )),
    }
}

fn ask_http2(socket: &mut Socket, front: Front) -> std::io::Result<()> {
    let mut request = http2::get(front.scheme(), PATH, &[KEY], Fields::Kept);
    http2::number(&mut request, 1);
    socket.write_all(&[http2::preface(), request].concat())?;
    let mut conversation = Conversation::default();
    let mut buf = [0; 16 << 10];
    loop {
        let read = socket.read(&mut buf)?;
        let mut answers = Vec::new();
        let progress = conversation.take(&buf[..read], &mut answers);
        socket.write_all(&answers)?;
        match progress {
            Progress::NotYet if read > 0 => {}
            Progress::Done { .. } => return Ok(()),
            progress => return Err(std::io::Error::other(format!("{progress:?}"))),
        }
    }
}

/// A request by HTTP/1 after which the connection goes on.
pub(super) fn request(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut request = format!("GET {PATH} HTTP/1.1\r\nHost: {NAME}\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    request.into_bytes()
}

/// Path of these requests, and of those of an open loop.
pub(super) const PATH: &str = "/34";

pub(crate) fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let connect = || {
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        Ok(socket)
    };
    connect().map_err(|e: std::io::Error| format!("a connection to {address}: {e}"))
}

/// Sends a request on each connection at once: the first response is read when all requests are sent.
pub(crate) fn ask_all(sockets: &mut [TcpStream], request: &[u8]) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("a request on a kept connection: {e}");
    for socket in &mut *sockets {
        socket.write_all(request).map_err(failed)?;
    }
    sockets
        .iter_mut()
        .try_for_each(read_response)
        .map_err(failed)
}

fn read_response(socket: &mut impl Read) -> std::io::Result<()> {
    let mut reading = Reading::begin();
    let mut buf = [0; 16 << 10];
    loop {
        let read = socket.read(&mut buf)?;
        match reading.take(&buf[..read]) {
            Progress::NotYet if read > 0 => {}
            Progress::Done { closes: false } => return Ok(()),
            progress => return Err(std::io::Error::other(format!("{progress:?}"))),
        }
    }
}

/// This program, and what it starts, may have as many descriptors as the system lets it.
pub(super) fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _as_before = setrlimit(Resource::Nofile, limit);
}

/// Long enough for a proxy under valgrind.
const PATIENCE: Duration = Duration::from_secs(60);
