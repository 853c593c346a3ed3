//! One request to a host that a plugin names, on a connection of its own.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ::http::{Method, StatusCode};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::http::{Received, connect, send};
use crate::http1::BodyDecoder;
use crate::message::{Headers, KnownHeader, ReplyHead};
use crate::transport::Transport;
use crate::transport::tls::PeerTls;

/// A request, and where it goes.
pub struct HostCall<'a> {
    pub method: &'a Method,
    /// Path and query.
    pub target: &'a [u8],
    /// Host, and the port where it is not the usual one.
    pub authority: &'a str,
    pub headers: &'a Headers,
    pub body: &'a [u8],
    /// Largest body of the response.
    pub limit_bytes: usize,
}

/// How the end of a request's body is told.
#[derive(Clone, Copy)]
enum Framing {
    Length(u64),
    Chunked,
}

/// A body whose pieces come from here, an empty one as its end, and its length where that is known.
pub type HostBody = (Option<u64>, mpsc::Receiver<Bytes>);

/// Response to it.
pub struct HostAnswer {
    pub status: StatusCode,
    pub headers: Headers,
    pub body: Bytes,
}

/// Longest time to connect to one address, with TLS: another one may answer.
const LONGEST_CONNECT: Duration = Duration::from_secs(5);

impl HostCall<'_> {
    /// Sends it to the first of these addresses that can be connected to, and to no other one. The error is a line for a person.
    pub async fn send(
        &self,
        addresses: &[SocketAddr],
        tls: Option<&PeerTls>,
    ) -> Result<HostAnswer, String> {
        let (address, transport) = connect_any(addresses, tls).await?;
        let answered = async {
            let length = self.tells_length().then_some(self.body.len() as u64);
            send(&transport, &self.request(length.map(Framing::Length))).await?;
            self.answer(&mut Received::new(&transport)).await
        };
        answered
            .await
            .map_err(|error| format!("{address}: {error}"))
    }

    /// Sends it so, too, with a body that comes piece by piece, where it is not there whole, and hands the answer on as it comes. An
    /// answer that comes before the body's end ends that.
    pub async fn stream(
        &self,
        addresses: &[SocketAddr],
        tls: Option<&PeerTls>,
        body: Option<HostBody>,
        (head, pieces): (oneshot::Sender<ReplyHead>, mpsc::Sender<Bytes>),
    ) -> Result<(), String> {
        let (address, transport) = connect_any(addresses, tls).await?;
        let passed = async {
            let mut received = Received::new(&transport);
            let framing = match &body {
                None => (self.tells_length()).then_some(Framing::Length(self.body.len() as u64)),
                Some((length, _)) => Some(length.map_or(Framing::Chunked, Framing::Length)),
            };
            send(&transport, &self.request(framing)).await?;
            if let Some((length, body)) = body {
                upload(&transport, &mut received, body, length.is_none()).await?;
            }
            let (parsed, mut headers) = received.head(self.method).await?;
            headers.remove_hop_by_hop();
            let status = parsed.status;
            // Failure: the call was given up, and this ends with it.
            let _ = head.send(ReplyHead { status, headers });
            let mut decoder = BodyDecoder::new(parsed.body);
            while let Some(piece) = received.piece(&mut decoder).await? {
                let _ = pieces.send(piece).await;
            }
            Ok(())
        };
        let line = |error: io::Error| format!("{address}: {error}");
        passed.await.map_err(line)
    }

    async fn answer(&self, received: &mut Received<'_>) -> io::Result<HostAnswer> {
        let (head, mut headers) = received.head(self.method).await?;
        let body = received.body(&head, self.limit_bytes).await?;
        headers.remove_hop_by_hop();
        Ok(HostAnswer {
            status: head.status,
            headers,
            body: body.into(),
        })
    }

    /// Whether the request says how long its body is, also where it has none (RFC 9110 §8.6).
    fn tells_length(&self) -> bool {
        let content = [Method::POST, Method::PUT, Method::PATCH];
        !self.body.is_empty() || content.contains(self.method)
    }

    /// RFC 9112 §3. The connection ends with the response; framing and host are ours.
    fn request(&self, framing: Option<Framing>) -> Vec<u8> {
        let mut headers = self.headers.clone();
        headers.remove_hop_by_hop();
        headers.remove(KnownHeader::Expect);
        headers.remove(KnownHeader::ContentLength);
        headers.set(KnownHeader::Host, self.authority.as_bytes());
        headers.set(KnownHeader::Connection, b"close");
        match framing {
            None => {}
            Some(Framing::Length(bytes)) => {
                headers.set(KnownHeader::ContentLength, bytes.to_string().as_bytes());
            }
            Some(Framing::Chunked) => headers.set(KnownHeader::TransferEncoding, b"chunked"),
        }
        let mut text = Vec::with_capacity(1024 + self.body.len());
        text.extend_from_slice(self.method.as_str().as_bytes());
        text.push(b' ');
        text.extend_from_slice(self.target);
        text.extend_from_slice(b" HTTP/1.1\r\n");
        headers.write_lines(&mut text, 0);
        text.extend_from_slice(b"\r\n");
        text.extend_from_slice(self.body);
        text
    }
}

/// The first of these addresses that can be connected to.
async fn connect_any(
    addresses: &[SocketAddr],
    tls: Option<&PeerTls>,
) -> Result<(SocketAddr, Transport), String> {
    let mut last = "it has no address".to_owned();
    for address in addresses {
        let made = timeout(LONGEST_CONNECT, connect(*address, tls)).await;
        match made.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(transport) => return Ok((*address, transport)),
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(last)
}

/// Sends a body's pieces until its end, or until an answer begins.
async fn upload(
    transport: &Transport,
    received: &mut Received<'_>,
    mut body: mpsc::Receiver<Bytes>,
    is_chunked: bool,
) -> io::Result<()> {
    loop {
        let piece = tokio::select! {
            piece = body.recv() => piece,
            begun = received.begin() => return begun,
        };
        match piece {
            Some(piece) if piece.is_empty() => {
                return match is_chunked {
                    true => send(transport, b"0\r\n\r\n").await,
                    false => Ok(()),
                };
            }
            Some(piece) => {
                let sent = async {
                    if is_chunked {
                        send(transport, format!("{:x}\r\n", piece.len()).as_bytes()).await?;
                    }
                    send(transport, &piece).await?;
                    match is_chunked {
                        true => send(transport, b"\r\n").await,
                        false => Ok(()),
                    }
                };
                tokio::select! {
                    biased;
                    // Failures are told by what is read next: the host may have answered before.
                    sent = sent => if sent.is_err() { return Ok(()) },
                    begun = received.begin() => return begun,
                }
            }
            // The plugin has seen that it answers.
            None => return Ok(()),
        }
    }
}
