//! The client library's HTTP: one request a connection, by our own TLS and codec. A helper does nothing else meanwhile, so that it
//! may wait in the system's calls.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::config::Der;
use crate::http1::{BodyDecoder, HeadProgress, ParsedResponse, parse_response};
use crate::message::{HeadLimits, Headers, Piece};

/// Connections to an authority, whose TLS these roots vouch for.
#[derive(Clone)]
pub(super) struct AuthorityClient {
    tls: Arc<ClientConfig>,
    directory: Option<Uri>,
    told: Told,
}

/// Words of the last answer that the library does not pass on.
#[derive(Clone, Default)]
pub(super) struct Told {
    /// The last question and the status of its answer.
    exchange: Arc<Mutex<String>>,
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

    /// The last exchange: what was asked, and the status of the answer.
    pub(super) fn exchange(&self) -> String {
        let exchange = self.exchange.lock();
        exchange.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, request: &Parts, result: &Result<Response<Bytes>, String>) {
        if let Ok(response) = result {
            let mut exchange = self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
            *exchange = exchange_of(request, response.status());
        }
        let retry_after = result
            .as_ref()
            .ok()
            .and_then(|response| response.headers().get(header::RETRY_AFTER)?.to_str().ok())
            .and_then(seconds_of);
        self.retry_after.store(retry_after.unwrap_or(0), Relaxed);
    }
}

fn exchange_of(request: &Parts, status: StatusCode) -> String {
    format!("{} {}: {status}", request.method, request.uri)
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
    pub(super) fn new(roots: &[Der], directory: &str) -> Result<Self, String> {
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
            directory: directory.parse().ok(),
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
        let is_directory = self.directory.as_ref() == Some(&parts.uri);
        Box::pin(async move {
            let body = body.into_bytes().await.map_err(Error::Other)?;
            let result = exchange(&tls, &parts, &body);
            told.note(&parts, &result);
            let (parts, body) = result
                .and_then(|response| usable(&parts, response, is_directory))
                .map_err(|error| Error::Other(error.into()))?
                .into_parts();
            Ok(BytesResponse {
                parts,
                body: Box::new(body),
            })
        })
    }
}

/// Looks at an answer before the library does, which says less of what is wrong, and panics over some. The error is a line for a person.
fn usable(
    request: &Parts,
    mut response: Response<Bytes>,
    is_directory: bool,
) -> Result<Response<Bytes>, String> {
    let (status, body) = (response.status(), response.body());
    let about = |what: &str| Err(format!("{}: {what}", exchange_of(request, status)));
    let problem = || match serde_json::from_slice::<Problem>(body) {
        Ok(problem) if problem.detail.is_some() || problem.r#type.is_some() => Some(problem),
        Ok(_) | Err(_) => None,
    };
    let is_json = || serde_json::from_slice::<IgnoredAny>(body).is_ok();
    let is_pem = || body.windows(PEM_BEGIN.len()).any(|part| part == PEM_BEGIN);
    if status.is_redirection() {
        return about("a redirect, which is not followed");
    }
    if !status.is_success() {
        match problem() {
            // The library does not look for one here.
            Some(problem) if is_directory => return about(&problem.to_string()),
            Some(_) => {}
            None => return about("no problem document that says why"),
        }
    } else if is_directory {
        if let Err(what) = check_directory(body) {
            return about(&what);
        }
    } else if !body.is_empty() && !is_json() && !is_pem() {
        return about("neither JSON nor a certificate");
    }
    limit_retry_after(response.headers_mut());
    Ok(response)
}

/// Looks whether a directory has URLs where the library takes them for granted.
fn check_directory(body: &[u8]) -> Result<(), String> {
    let directory: serde_json::Map<String, Value> = serde_json::from_slice(body)
        .map_err(|error| format!("no directory of an authority: {error}"))?;
    for (key, is_required) in DIRECTORY_KEYS {
        let is_url = |text: &str| {
            let uri: Result<Uri, _> = text.parse();
            uri.is_ok_and(|uri| uri.scheme_str() == Some("https") && uri.host().is_some())
        };
        match directory.get(key) {
            Some(Value::String(url)) if is_url(url) => {}
            None | Some(Value::Null) if !is_required => {}
            None => return Err(format!("no directory of an authority: {key} is missing")),
            Some(other) => return Err(format!("the directory's {key} is no https URL: {other}")),
        }
    }
    Ok(())
}

/// Keeps a time to come back within bounds: the library adds it to the time that it is now.
fn limit_retry_after(headers: &mut HeaderMap) {
    let asked = headers.get(header::RETRY_AFTER).map(|value| value.to_str());
    if let Some(Ok(text)) = asked
        && seconds_of(text).is_some_and(|seconds| seconds > LONGEST_RETRY_SECONDS)
    {
        headers.insert(header::RETRY_AFTER, LONGEST_RETRY_SECONDS.into());
    }
}

/// URLs of a directory that the library asks, and whether it has to have them.
const DIRECTORY_KEYS: [(&str, bool); 4] = [
    ("newNonce", true),
    ("newAccount", true),
    ("newOrder", true),
    ("renewalInfo", false),
];

const PEM_BEGIN: &[u8] = b"-----BEGIN ";

const LONGEST_RETRY_SECONDS: u64 = 7 * 24 * 3600;

/// The error is a line for a person.
fn exchange(
    tls: &Arc<ClientConfig>,
    request: &Parts,
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

fn send(stream: &mut Stream, request: &Parts, body: &[u8]) -> io::Result<()> {
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
        let client = |roots: &[Der]| AuthorityClient::new(roots, "https://ca/dir");
        assert!(client(&[]).is_err());
        assert!(client(&[Der(b"nonsense".to_vec())]).is_err());
    }

    /// Verdict on an answer to a question about the directory, or another one.
    fn answered(is_directory: bool, status: u16, body: &str) -> Result<Response<Bytes>, String> {
        let request = Request::get("https://ca/x").body(()).unwrap();
        let response = Response::builder()
            .status(status)
            .header(header::RETRY_AFTER, u64::MAX)
            .body(Bytes::copy_from_slice(body.as_bytes()));
        usable(&request.into_parts().0, response.unwrap(), is_directory)
    }

    #[test]
    fn an_answer_of_no_use_is_told_with_its_url_and_status() {
        let whole = r#"{"newNonce": "https://ca/a", "newAccount": "https://ca/b", "newOrder": "https://ca/c"}"#;
        let limited = r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "later"}"#;
        answered(true, 200, whole).unwrap();
        let of_file = whole.replace("https://ca/a", "file:///etc/passwd");
        let missing = whole.replace("newOrder", "newOther");
        let odd = whole.replace("}", r#", "renewalInfo": 5}"#);
        for (status, body, error) in [
            (302, "", "302 Found: a redirect, which is not followed"),
            (
                500,
                "<html>",
                "500 Internal Server Error: no problem document that says why",
            ),
            (
                503,
                limited,
                "503 Service Unavailable: API error: later (urn:ietf:params:acme:error:rateLimited)",
            ),
            (
                200,
                "<html>",
                "200 OK: no directory of an authority: expected value at line 1 column 1",
            ),
            (
                200,
                &missing,
                "200 OK: no directory of an authority: newOrder is missing",
            ),
            (
                200,
                &of_file,
                "200 OK: the directory's newNonce is no https URL: \"file:///etc/passwd\"",
            ),
            (
                200,
                &odd,
                "200 OK: the directory's renewalInfo is no https URL: 5",
            ),
        ] {
            let told = answered(true, status, body).unwrap_err();
            assert_eq!(told, format!("GET https://ca/x: {error}"));
        }
        for (status, body) in [
            (200, ""),
            (200, "{}"),
            (200, "-----BEGIN CERTIFICATE-----"),
            (429, limited),
        ] {
            answered(false, status, body).unwrap();
        }
        for (status, body) in [(307, "{}"), (200, "<html>"), (404, "{}"), (400, "no")] {
            let told = answered(false, status, body).unwrap_err();
            assert!(told.starts_with("GET https://ca/x: "), "{told}");
        }
    }

    #[test]
    fn a_time_to_come_back_has_its_bounds() {
        let limited = answered(false, 200, "{}").unwrap();
        assert_eq!(limited.headers()[header::RETRY_AFTER], "604800");
        for text in [
            "604800",
            "soon",
            "99999999999999999999999",
            "Mon, 01 Jan 2001 00:00:00 GMT",
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(text));
            limit_retry_after(&mut headers);
            assert_eq!(headers[header::RETRY_AFTER], text);
        }
    }
}
