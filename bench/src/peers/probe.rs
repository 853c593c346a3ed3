//! Single requests: whether a peer answers, and with what.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Response of a peer.
pub(crate) struct Reply {
    pub(super) status: u16,
    /// The status line and the headers, in lower case.
    pub(super) head: String,
    /// Bytes as on the wire: chunks with their sizes.
    pub(super) body: String,
}

/// Sends one request on a connection of its own.
pub(crate) fn get(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Reply, String> {
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: bench.example\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("Connection: close\r\n\r\n");
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all(request.as_bytes())?;
        let mut reply = Vec::new();
        socket.read_to_end(&mut reply)?;
        Ok(reply)
    };
    let reply = exchange().map_err(|e| e.to_string())?;
    let reply = String::from_utf8_lossy(&reply);
    let (head, body) = reply.split_once("\r\n\r\n").ok_or("no whole response")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok(Reply {
        status: status.ok_or_else(|| format!("no status in {head}"))?,
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    })
}

/// Header of every request of the benchmark, so that all cases send the same.
pub(crate) const KEY: (&str, &str) = ("x-api-key", "s3cret");

const PATIENCE: Duration = Duration::from_secs(20);
