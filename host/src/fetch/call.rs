//! One request to a host that a plugin names, on a connection of its own.

use std::net::SocketAddr;
use std::time::Duration;

use ::http::{Method, StatusCode};
use bytes::Bytes;
use tokio::time::timeout;

use super::http::{Received, connect, send};
use crate::message::{Headers, KnownHeader};
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
        let mut last = "it has no address".to_owned();
        for address in addresses {
            let made = timeout(LONGEST_CONNECT, connect(*address, tls)).await;
            match made.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
                Ok(transport) => {
                    let line = |error: std::io::Error| format!("{address}: {error}");
                    send(&transport, &self.request()).await.map_err(line)?;
                    let mut received = Received::new(&transport);
                    return self.answer(&mut received).await.map_err(line);
                }
                Err(error) => last = format!("{address}: {error}"),
            }
        }
        Err(last)
    }

    async fn answer(&self, received: &mut Received<'_>) -> std::io::Result<HostAnswer> {
        let (head, mut headers) = received.head(self.method).await?;
        let body = received.body(&head, self.limit_bytes).await?;
        headers.remove_hop_by_hop();
        Ok(HostAnswer {
            status: head.status,
            headers,
            body: body.into(),
        })
    }

    /// RFC 9112 §3. The connection ends with the response; framing and host are ours.
    fn request(&self) -> Vec<u8> {
        let mut headers = self.headers.clone();
        headers.remove_hop_by_hop();
        headers.remove(KnownHeader::Expect);
        headers.remove(KnownHeader::ContentLength);
        headers.set(KnownHeader::Host, self.authority.as_bytes());
        headers.set(KnownHeader::Connection, b"close");
        let has_content = !self.body.is_empty() || *self.method == Method::POST;
        if has_content || *self.method == Method::PUT || *self.method == Method::PATCH {
            let length = self.body.len().to_string();
            headers.set(KnownHeader::ContentLength, length.as_bytes());
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
