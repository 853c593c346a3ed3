//! The client library's HTTP: one request a connection, by our own TLS and codec. A helper does nothing else meanwhile, so that it
//! may wait in the system's calls.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName};

use crate::config::Der;
use crate::http1::{BodyDecoder, HeadProgress, ParsedResponse, parse_response};
use crate::message::{HeadLimits, Headers, Piece};

/// Connections to an authority, whose TLS these roots vouch for.
#[derive(Clone)]
pub(super) struct AuthorityClient {
    tls: Arc<ClientConfig>,
    told: Told,
}

/// Words of the last refusal that the library does not pass on.
#[derive(Clone, Default)]
pub(super) struct Told {
    /// Seconds of Retry-After of the last answer; 0: none.
    retry_after: Arc<AtomicU64>,
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for the next bytes.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest exchange.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Largest body: a chain is some KiB.
const MAX_BODY_BYTES: usize = 1 << 20;

const HEAD: HeadLimits = HeadLimits::of(64 << 10);

impl Told {
    pub(super) fn retry_after(&self) -> Option<u64> {
        Some(self.retry_after.load(Relaxed)).filter(|seconds| *seconds > 0)
    }

    fn note(&self, result: &Result<Response<Bytes>, String>) {
        let retry_after = result
            .as_ref()
            .ok()
            .and_then(|response| response.headers().get(header::RETRY_AFTER)?.to_str().ok())
            .and_then(seconds_of);
        self.retry_after.store(retry_after.unwrap_or(0), Relaxed);
    }
}

/// Retry-After is seconds or a date (RFC 9110 §10.2.3).
fn seconds_of(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(seconds);
    }
    let at = httpdate::parse_http_date(text).ok()?;
    let left = at.duration_since(std::time::SystemTime::now()).ok()?;
    Some(left.as_secs())
}

impl AuthorityClient {
    /// The error is a line for a person.
    pub(super) fn new(roots: &[Der]) -> Result<Self, String> {
        let mut store = RootCertStore::empty();
        for Der(der) in roots {
            // The system's may have one that is of no use for this.
            let _ = store.add(CertificateDer::from(der.as_slice()).into_owned());
        }
        if store.is_empty() {
            return Err("no authority vouches for the directory's TLS".to_owned());
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(store)
            .with_no_client_auth();
        Ok(Self {
            tls: Arc::new(config),
            told: Told::default(),
        })
    }

    pub(super) fn told(&self) -> Told {
        self.told.clone()
    }
}

impl HttpClient for AuthorityClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (parts, body) = request.into_parts();
        // The library lends bytes of a body that is a response's.
        let mut body = BytesResponse::from(Response::new(body)).body;
        let (tls, told) = (Arc::clone(&self.tls), self.told.clone());
        Box::pin(async move {
            let body = body.into_bytes().await.map_err(Error::Other)?;
            let result = exchange(&tls, &parts, &body);
            told.note(&result);
            let (parts, body) = result
                .map_err(|error| Error::Other(error.into()))?
                .into_parts();
            Ok(BytesResponse {
                parts,
                body: Box::new(body),
            })
        })
    }
}

/// The error is a line for a person.
fn exchange(
    tls: &Arc<ClientConfig>,
    request: &http::request::Parts,
    body: &[u8],
) -> Result<Response<Bytes>, String> {
    let uri = &request.uri;
    let (Some("https"), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err(format!("{uri} is no https URL"));
    };
    let about = |error: &dyn std::fmt::Display| format!("{host}: {error}");
    let mut stream = connect(tls, host, uri.port_u16().unwrap_or(443)).map_err(|e| about(&e))?;
    let sent = send(&mut stream, request, body);
    sent.and_then(|()| receive(&mut stream, &request.method))
        .map_err(|error| about(&error))
}

fn connect(tls: &Arc<ClientConfig>, host: &str, port: u16) -> io::Result<Stream> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(bare.to_owned()).map_err(io::Error::other)?;
    let mut last = io::Error::other("it has no address");
    for address in (bare, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(socket) => {
                socket.set_read_timeout(Some(READ_TIMEOUT))?;
                socket.set_write_timeout(Some(READ_TIMEOUT))?;
                let connection =
                    ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
                return Ok(StreamOwned::new(connection, socket));
            }
            Err(error) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
        }
    }
    Err(last)
}

fn send(stream: &mut Stream, request: &http::request::Parts, body: &[u8]) -> io::Result<()> {
    let mut text = Vec::new();
    write!(
        text,
        "{} {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n",
        request.method,
        request
            .uri
            .path_and_query()
            .map_or("/", |path| path.as_str()),
        authority_of(&request.uri),
    )?;
    for (name, value) in &request.headers {
        write!(text, "{name}: ")?;
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    if request.method == Method::POST {
        write!(text, "content-length: {}\r\n", body.len())?;
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(body);
    stream.write_all(&text)?;
    stream.flush()
}

fn authority_of(uri: &Uri) -> &str {
    uri.authority().map_or("", |authority| authority.as_str())
}

fn receive(stream: &mut Stream, method: &Method) -> io::Result<Response<Bytes>> {
    let until = Instant::now() + EXCHANGE_TIMEOUT;
    let (mut buffer, mut progress) = (BytesMut::new(), HeadProgress::new());
    let mut headers = Headers::new();
    let head = loop {
        let parsed = parse_response(&mut buffer, &mut progress, &HEAD, method, &mut headers);
        match parsed.map_err(io::Error::other)? {
            Some(head) if head.status.is_informational() => {}
            Some(head) => break head,
            None if read_more(stream, &mut buffer, until)? => {}
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    };
    let body = receive_body(stream, &mut buffer, &head, until)?;
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = fields(&headers);
    Ok(response)
}

fn receive_body(
    stream: &mut Stream,
    buffer: &mut BytesMut,
    head: &ParsedResponse,
    until: Instant,
) -> io::Result<Bytes> {
    let mut decoder = BodyDecoder::new(head.body);
    let mut body = BytesMut::new();
    loop {
        match decoder.decode(buffer).map_err(io::Error::other)? {
            Piece::Data(data) if body.len() + data.len() <= MAX_BODY_BYTES => {
                body.extend_from_slice(&data);
            }
            Piece::Data(_) => {
                return Err(io::Error::other("its answer is larger than 1 MiB"));
            }
            Piece::NeedMore if read_more(stream, buffer, until)? => {}
            Piece::NeedMore => decoder.finish_at_eof().map_err(io::Error::other)?,
            Piece::End => return Ok(body.freeze()),
        }
    }
}

/// False: nothing more comes.
fn read_more(stream: &mut Stream, buffer: &mut BytesMut, until: Instant) -> io::Result<bool> {
    if Instant::now() > until {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!(
                "its answer takes more than {} s",
                EXCHANGE_TIMEOUT.as_secs()
            ),
        ));
    }
    let mut bytes = [0; 8 << 10];
    match stream.read(&mut bytes) {
        Ok(read) => {
            buffer.extend_from_slice(&bytes[..read]);
            Ok(read > 0)
        }
        // Servers that end without close_notify are many; whether the answer is whole, its framing says.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer for {} s", READ_TIMEOUT.as_secs()),
        )),
        Err(error) => Err(error),
    }
}

fn fields(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers.iter() {
        // Fields that the library's types do not take, it does not look for.
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            map.append(name, value);
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_come_back_is_seconds_or_a_date() {
        assert_eq!(seconds_of("120"), Some(120));
        assert_eq!(seconds_of("Mon, 01 Jan 2001 00:00:00 GMT"), None);
        let later = std::time::SystemTime::now() + Duration::from_secs(3600);
        let seconds = seconds_of(&httpdate::fmt_http_date(later)).unwrap();
        assert!((3500..=3600).contains(&seconds), "{seconds}");
        assert_eq!(seconds_of("soon"), None);
    }

    #[test]
    fn without_authorities_nobody_is_asked() {
        assert!(AuthorityClient::new(&[]).is_err());
        assert!(AuthorityClient::new(&[Der(b"nonsense".to_vec())]).is_err());
    }
}
