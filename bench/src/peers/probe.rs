//! Single requests: whether a peer answers, and whether it does what a case says that it does. Figures of proxies that
//! do different things are of no use to anybody.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::origin::{BODIES, PHRASE, SEEN};
use super::peer::Running;

/// Response that came back.
pub(crate) struct Reply {
    pub(super) status: u16,
    /// The status line and the headers, in lower case.
    pub(super) head: String,
    /// Body as it is on the wire: chunks with their sizes.
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

/// Whether the proxy does what its logic is named after.
pub(crate) fn conforms(running: &Running) -> Result<(), String> {
    let check = Check { running };
    let logic = running.peer.logic.unwrap_or("plain");
    match logic.split('-').next().unwrap_or(logic) {
        "gate" | "three" => check.gate(logic == "three"),
        "substitute" => check.substitutes(),
        "compute" => check.computes(),
        _ => check.passes_on(),
    }
    .map_err(|error| format!("{} ({logic}): {error}", running.peer.id))
}

struct Check<'a> {
    running: &'a Running,
}

impl Check<'_> {
    fn passes_on(&self) -> Result<(), String> {
        for (path, len) in BODIES {
            let reply = self.get(path, &[KEY])?;
            // A filtered body may come in chunks.
            if reply.status != 200 || reply.body.len() < len {
                return Err(format!(
                    "{path}: {} with {} bytes",
                    reply.status,
                    reply.body.len()
                ));
            }
        }
        Ok(())
    }

    fn gate(&self, checks_tokens: bool) -> Result<(), String> {
        self.passes_on()?;
        let refusal = if checks_tokens { 401 } else { 403 };
        let without = self.get("/34", &[])?.status;
        if without != refusal {
            return Err(format!("without a key: {without}"));
        }
        let seen = self.get(SEEN, &[KEY])?;
        if !seen.head.contains("\r\nx-gate: passed") {
            return Err(format!("no x-gate in the response: {}", seen.head));
        }
        has(&seen.body, "x-consumer: s3cret")
    }

    fn substitutes(&self) -> Result<(), String> {
        let body = self.get("/64k", &[KEY])?.body;
        match body.matches("https://www.example.com").count() {
            64 if !body.contains(PHRASE) => Ok(()),
            n => Err(format!("{n} of 64 were replaced")),
        }
    }

    fn computes(&self) -> Result<(), String> {
        let seen = self.get(SEEN, &[("x-compute", "10")])?;
        has(&seen.body, "x-computed: ")
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Reply, String> {
        get(self.running.address, path, headers)
    }
}

fn has(seen: &str, header: &str) -> Result<(), String> {
    match seen.to_ascii_lowercase().contains(header) {
        true => Ok(()),
        false => Err(format!("the origin has not seen {header:?}: {seen}")),
    }
}

/// Fields that every request of the benchmark carries, so that all cases send the same.
pub(crate) const KEY: (&str, &str) = ("x-api-key", "s3cret");

const PATIENCE: Duration = Duration::from_secs(20);
