//! Connections that have made one request each and make no more.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

use super::framing::{Progress, Reading};

/// As many connections, each answered once. They end when they are dropped.
pub(super) fn open(
    address: SocketAddr,
    connections: usize,
    request: &[u8],
) -> Result<Vec<TcpStream>, String> {
    let open = |_| one(address, request).map_err(|e| format!("an idle connection: {e}"));
    (0..connections).map(open).collect()
}

/// This program, and what it starts, may have as many descriptors as the system lets it.
pub(super) fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _as_before = setrlimit(Resource::Nofile, limit);
}

fn one(address: SocketAddr, request: &[u8]) -> std::io::Result<TcpStream> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(request)?;
    let mut reading = Reading::begin();
    let mut buf = [0; 4096];
    loop {
        let read = socket.read(&mut buf)?;
        match reading.take(&buf[..read]) {
            Progress::NotYet if read > 0 => {}
            Progress::Done { closes: false } => return Ok(socket),
            progress => return Err(std::io::Error::other(format!("{progress:?}"))),
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
