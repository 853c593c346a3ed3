//! Clients that speak HTTP/1: one request after the other on a connection.

use std::time::Instant;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::answer::Answer;
use super::socket::Socket;
use super::{AFTER_REFUSAL, Cause, Client, count};
use crate::DEADLINE;
use crate::show::marks::{Kind, Wrong};

impl Client {
    /// Life of a connection.
    pub(super) async fn connection_of_http1(&mut self) {
        // Before: the gateway may have accepted it before the client hears of it.
        let opened = Instant::now();
        let era = self.load.era.now();
        let connected = tokio::time::timeout(DEADLINE, self.connect()).await;
        let mut socket = match connected.unwrap_or_else(|late| Err(late.into())) {
            Ok(socket) => socket,
            Err(error) => {
                self.fail(0, Kind::Direct, Cause::Connect(error.to_string()), None, 0);
                tokio::time::sleep(AFTER_REFUSAL).await;
                return;
            }
        };
        count(&self.tally.connections);
        let place = socket.tcp().local_addr().ok().map(|own| (own, opened));
        let mut received = Vec::with_capacity(4096);
        for number in 0..self.group.requests {
            if number > 0 {
                self.rest().await;
                if self.is_stopped() {
                    return;
                }
                if is_closed(&socket) {
                    count(&self.tally.closed_idle);
                    return;
                }
            }
            let id = self.again.pop().unwrap_or_else(|| self.next_id());
            let kind = self.kind_of(id);
            let hex = format!("{id:016x}");
            let last = number + 1 == self.group.requests;
            // Half of the connections that end after this request are ended by the gateway.
            let request = request(kind, &hex, last && id.is_multiple_of(2));
            let exchanged = exchange(&mut socket, &mut received, request.as_bytes());
            let exchanged = tokio::time::timeout(DEADLINE, exchanged).await;
            let closes = match exchanged.unwrap_or(Err(Cause::Late)) {
                Ok(()) => {
                    match self.judge_whole(kind, &hex, &received, (number == 0).then_some(era)) {
                        Ok(closes) => closes,
                        Err((cause, closes)) => {
                            self.fail(id, kind, cause, place, number);
                            closes
                        }
                    }
                }
                Err(Cause::Closed) if number > 0 && self.load.resends && kind != Kind::Post => {
                    count(&self.tally.resent);
                    self.again.push(id);
                    return;
                }
                Err(cause) => return self.fail(id, kind, cause, place, number),
            };
            if closes {
                return;
            }
        }
    }

    /// Whether the connection ends with this answer, if the answer is right or not.
    fn judge_whole(
        &self,
        kind: Kind,
        id: &str,
        received: &[u8],
        began: Option<u64>,
    ) -> Result<bool, (Cause, bool)> {
        let mut chunked = Vec::new();
        let Ok(Some(answer)) = Answer::parse(received, &mut chunked) else {
            let what = "it was whole a moment ago".to_owned();
            return Err((Cause::Wrong(Wrong::Other(what)), true));
        };
        match self.judge(kind, id, &answer, began) {
            Ok(()) => Ok(answer.closes),
            Err(cause) => Err((cause, answer.closes)),
        }
    }
}

/// Whether the other side has ended the connection, as the kernel knows it at this moment.
fn is_closed(socket: &Socket) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    // Bytes that nobody asked for are met by the next answer's check.
    match rustix::net::recv(socket.tcp(), &mut [0_u8; 1], flags) {
        Ok((_, read)) => read == 0,
        Err(error) => error != Errno::AGAIN,
    }
}

fn request(kind: Kind, id: &str, closes: bool) -> String {
    let (method, body) = match kind {
        Kind::Post => ("POST", "Content-Length: 5\r\n\r\nhello"),
        Kind::Direct | Kind::Proxied | Kind::Filtered => ("GET", "\r\n"),
    };
    let path = kind.path();
    let close = if closes { "Connection: close\r\n" } else { "" };
    format!("{method} {path} HTTP/1.1\r\nHost: show\r\nX-Id: {id}\r\n{close}{body}")
}

/// Sends a request and reads until its answer is whole.
async fn exchange(
    socket: &mut Socket,
    received: &mut Vec<u8>,
    request: &[u8],
) -> Result<(), Cause> {
    received.clear();
    let mut chunked = Vec::new();
    if socket.write_all(request).await.is_err() {
        // Closed between the look at it and the write; an answer to a request that was not read is possible (408, say).
        let _what_it_said = socket.read_buf(received).await;
        return match received.is_empty() {
            true => Err(Cause::Closed),
            false => Err(Cause::Broken("at the write".to_owned(), received.len())),
        };
    }
    loop {
        match socket.read_buf(received).await {
            Ok(0) if received.is_empty() => return Err(Cause::Closed),
            Ok(0) => return Err(Cause::Cut(received.len())),
            Err(error) => return Err(Cause::Broken(error.to_string(), received.len())),
            Ok(_) => {}
        }
        match Answer::parse(received, &mut chunked) {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => {}
            Err(what) => return Err(Cause::Wrong(Wrong::Other(what))),
        }
    }
}
