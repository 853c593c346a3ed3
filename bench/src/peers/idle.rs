//! Connections whose requests are answered one after the other, and that are kept without any.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

use super::framing::{Progress, Reading};

/// Connections, each answered once. They end when they are dropped.
pub(super) fn open(
    address: SocketAddr,
    connections: usize,
    request: &[u8],
) -> Result<Vec<TcpStream>, String> {
    let open = |_| {
        let mut socket = connect(address)?;
        ask(&mut socket, request).map(|()| socket)
    };
    (0..connections).map(open).collect()
}

pub(crate) fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let connect = || {
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        Ok(socket)
    };
    connect().map_err(|e: std::io::Error| format!("a connection to {address}: {e}"))
}

/// Sends one request and reads its response to the end; an error where it is not a 200 after which the connection goes on.
pub(crate) fn ask(socket: &mut TcpStream, request: &[u8]) -> Result<(), String> {
    ask_all(std::slice::from_mut(socket), request)
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

fn read_response(socket: &mut TcpStream) -> std::io::Result<()> {
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
