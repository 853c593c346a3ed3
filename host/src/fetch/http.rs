//! One GET on a connection of its own, by our own TLS and codec.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;

use ::http::header::{CONTENT_ENCODING, ETAG, LAST_MODIFIED};
use ::http::{HeaderName, Method, StatusCode};
use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;

use super::Validators;
use crate::config::PeersUrl;
use crate::http1::{BodyDecoder, HeadProgress, ParsedResponse, parse_response};
use crate::message::{HeadLimits, Headers, Piece};
use crate::transport::tls::{ClientTls, Offer, PeerTls, SystemRoots};
use crate::transport::{Socket, Transport};

/// Answer of a server.
pub(super) enum Fetched {
    /// 304.
    NotModified,
    /// 200.
    Body {
        body: Vec<u8>,
        validators: Validators,
    },
}

/// Largest body: 16,384 peers with all that can be said of each have room in it.
const MAX_BODY_BYTES: usize = 4 << 20;

const HEAD: HeadLimits = HeadLimits::of(16 << 10);

/// Heads of interim responses that may come before the answer.
const MOST_INTERIMS: usize = 8;

/// Longest ETag or date that is sent back.
const MAX_VALIDATOR_BYTES: usize = 1024;

const READ_BYTES: usize = 16 << 10;

/// Asks the first of these addresses that can be connected to. The error is a line for a person.
pub(super) async fn get(
    url: &PeersUrl,
    addresses: &[SocketAddr],
    known: &Validators,
) -> Result<Fetched, String> {
    let tls = tls(url)?;
    let mut last = "it has no address".to_owned();
    for address in addresses {
        match connect(*address, tls.as_ref()).await {
            Ok(transport) => {
                let got = exchange(&transport, url, known).await;
                return got.map_err(|error| format!("{address}: {error}"));
            }
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(last)
}

/// TLS to the URL's host. `None`: the URL is a plain one.
fn tls(url: &PeersUrl) -> Result<Option<PeerTls>, String> {
    let Some(tls) = &url.tls else {
        return Ok(None);
    };
    let (roots, turns) = (SystemRoots::new(&url.system_roots), Rc::default());
    let client = ClientTls::new("peers_url", tls, &[], &roots, &turns)?;
    client.peer(&url.authority).map(Some)
}

pub(super) async fn connect(address: SocketAddr, tls: Option<&PeerTls>) -> io::Result<Transport> {
    let socket = Socket::from(TcpStream::connect(address).await?);
    let Some(tls) = tls else {
        return Ok(Transport::new(socket));
    };
    let made = tls.connect(&socket, Offer::Http1).await?;
    Ok(Transport::with_tls(socket, made))
}

async fn exchange(
    transport: &Transport,
    url: &PeersUrl,
    known: &Validators,
) -> Result<Fetched, String> {
    let line = |error: io::Error| error.to_string();
    send(transport, &request(url, known)).await.map_err(line)?;
    let mut received = Received::new(transport);
    let (head, headers) = received.head(&Method::GET).await.map_err(line)?;
    match head.status {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED if !known.is_empty() => return Ok(Fetched::NotModified),
        StatusCode::NOT_MODIFIED => return Err("status 304, which was not asked for".to_owned()),
        status if status.is_redirection() => {
            return Err(format!("status {}: it is not followed", status.as_u16()));
        }
        status => return Err(format!("status {}", status.as_u16())),
    }
    let coding = headers.get(&CONTENT_ENCODING);
    if let Some(coding) = coding.filter(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        let coding = String::from_utf8_lossy(coding);
        return Err(format!("content-encoding {coding:?}: expected none"));
    }
    Ok(Fetched::Body {
        body: received.body(&head, MAX_BODY_BYTES).await.map_err(line)?,
        validators: Validators {
            etag: validator(&headers, &ETAG),
            last_modified: validator(&headers, &LAST_MODIFIED),
        },
    })
}

/// A head without a body (RFC 9112 §3), for the list, or for whether it has changed (RFC 9110 §13.1).
fn request(url: &PeersUrl, known: &Validators) -> Vec<u8> {
    let mut text = format!(
        "GET {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\naccept-encoding: identity\r\n",
        url.target,
        host(url)
    )
    .into_bytes();
    let mut field = |name: &str, value: &[u8]| {
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
    };
    let has = |name: &str| url.headers.iter().any(|(given, _)| given == name);
    for (name, value) in DEFAULTS.iter().filter(|(name, _)| !has(name)) {
        field(name, value.as_bytes());
    }
    for (name, value) in &url.headers {
        field(name, &value.0);
    }
    // Both: one that knows the ETag looks at it alone (RFC 9110 §13.1.3).
    if let Some(etag) = &known.etag {
        field("if-none-match", etag.as_bytes());
    }
    if let Some(date) = &known.last_modified {
        field("if-modified-since", date.as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    text
}

/// Authority of the URL, without the port that goes without saying.
fn host(url: &PeersUrl) -> &str {
    let default_port = if url.tls.is_some() { ":443" } else { ":80" };
    url.authority
        .strip_suffix(default_port)
        .unwrap_or(&url.authority)
}

const DEFAULTS: [(&str, &str); 2] = [
    ("accept", "application/json, application/toml, */*;q=0.5"),
    (
        "user-agent",
        concat!("castling/", env!("CARGO_PKG_VERSION")),
    ),
];

/// A field of one value that can be sent back as it is.
fn validator(headers: &Headers, name: &HeaderName) -> Option<String> {
    let value = headers.get(name)?;
    let is_plain =
        value.len() <= MAX_VALIDATOR_BYTES && value.iter().all(|byte| (b' '..=b'~').contains(byte));
    let text = is_plain.then(|| String::from_utf8_lossy(value).into_owned());
    text.filter(|text| !text.is_empty())
}

pub(super) async fn send(transport: &Transport, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match transport.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll_fn(|cx| transport.poll_write_ready(cx)).await?;
            }
            Err(error) => return Err(error),
        }
    }
    poll_fn(|cx| transport.poll_sealed(cx)).await;
    Ok(())
}

/// Bytes of an answer as they come.
pub(super) struct Received<'a> {
    transport: &'a Transport,
    buffer: BytesMut,
}

impl<'a> Received<'a> {
    pub(super) fn new(transport: &'a Transport) -> Self {
        Self {
            transport,
            buffer: BytesMut::new(),
        }
    }

    /// The answer's head; interim ones are passed over.
    pub(super) async fn head(&mut self, method: &Method) -> io::Result<(ParsedResponse, Headers)> {
        let (mut progress, mut interims) = (HeadProgress::new(), 0);
        loop {
            let mut headers = Headers::new();
            let buffer = &mut self.buffer;
            let parsed = parse_response(buffer, &mut progress, &HEAD, method, &mut headers);
            match parsed.map_err(io::Error::other)? {
                Some(head) if !head.status.is_informational() => return Ok((head, headers)),
                Some(_) if interims == MOST_INTERIMS => {
                    return Err(io::Error::other("no end of interim responses"));
                }
                Some(_) => {
                    interims += 1;
                    progress = HeadProgress::new();
                }
                None if self.more().await? => {}
                None => return Err(ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    pub(super) async fn body(
        &mut self,
        head: &ParsedResponse,
        limit_bytes: usize,
    ) -> io::Result<Vec<u8>> {
        let (mut decoder, mut body) = (BodyDecoder::new(head.body), Vec::new());
        loop {
            match decoder.decode(&mut self.buffer).map_err(io::Error::other)? {
                Piece::Data(data) if body.len() + data.len() <= limit_bytes => {
                    body.extend_from_slice(&data);
                }
                Piece::Data(_) => {
                    let text = format!("its body is larger than {limit_bytes} bytes");
                    return Err(io::Error::other(text));
                }
                Piece::NeedMore if self.more().await? => {}
                Piece::NeedMore => decoder.finish_at_eof().map_err(io::Error::other)?,
                Piece::End => return Ok(body),
            }
        }
    }

    /// Next piece of the body. `None`: that was its end.
    pub(super) async fn piece(&mut self, decoder: &mut BodyDecoder) -> io::Result<Option<Bytes>> {
        loop {
            match decoder.decode(&mut self.buffer).map_err(io::Error::other)? {
                Piece::Data(data) => return Ok(Some(data)),
                Piece::NeedMore if self.more().await? => {}
                Piece::NeedMore => decoder.finish_at_eof().map_err(io::Error::other)?,
                Piece::End => return Ok(None),
            }
        }
    }

    /// Waits until something of an answer is there, or its end.
    pub(super) async fn begin(&mut self) -> io::Result<()> {
        while self.buffer.is_empty() && self.more().await? {}
        Ok(())
    }

    /// Reads more. False: nothing more comes.
    async fn more(&mut self) -> io::Result<bool> {
        loop {
            self.buffer.reserve(READ_BYTES);
            match self.transport.try_read(&mut self.buffer) {
                Ok(read) => return Ok(read.bytes > 0),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    poll_fn(|cx| self.transport.poll_read_ready(cx)).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
