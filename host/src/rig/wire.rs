//! Bytes from clients, peers and operators through what reads them first: heads, bodies, paths, configs. For fuzz
//! targets.
//!
//! Each function panics when one of the promises in its comment is broken; an input that is refused is no fault.

use std::fmt::Debug;
use std::path::Path;

use bytes::BytesMut;
use http::{HeaderName, HeaderValue, Method, Request, Uri};

use super::heads;
use crate::config;
use crate::fetch::dns;
use crate::http1::{
    self, BodyDecoder, BodyError, Framing, HeadError, HeadProgress, ParsedRequest, ParsedResponse,
};
use crate::http2;
use crate::message::HeadLimits;
use crate::message::{
    HeadRoom, Headers, Piece, cookies, is_valid_path, is_valid_value, path, query,
};
use crate::transport::proxy_protocol::{self, Parsed};

/// Reads requests as they come on one connection, each with its body, under every setting of what is doubtful.
/// Promises: a head is the same in however many pieces it comes; what is passed on of it is read as the one message
/// that it is.
pub fn requests(bytes: &[u8]) {
    for (any_names, non_ascii_target) in
        [(false, false), (true, false), (false, true), (true, true)]
    {
        let limits = HeadLimits {
            any_names,
            non_ascii_target,
            ..HeadLimits::of(MAX_HEAD_BYTES)
        };
        let read =
            |pieces: &[&[u8]]| in_pieces(pieces, |buf, progress| request(buf, progress, &limits));
        let mut rest = bytes.to_vec();
        for _ in 0..MAX_MESSAGES {
            let whole = read(&[&rest]);
            for pieces in pieces_of(&rest) {
                same(&whole, &read(&pieces), request_fields);
            }
            let Ok(Some((parsed, behind))) = whole else {
                break;
            };
            heads::check_request(&parsed.head);
            let Some(behind) = body(parsed.body, &behind) else {
                break;
            };
            rest = behind;
        }
    }
}

/// Reads a peer's responses to a `GET` and to a `HEAD`, interim ones and bodies included. Promises as for [`requests`].
pub fn responses(bytes: &[u8]) {
    let limits = HeadLimits::of(MAX_HEAD_BYTES);
    for method in [Method::GET, Method::HEAD] {
        let read = |pieces: &[&[u8]]| {
            in_pieces(pieces, |buf, progress| {
                response(buf, progress, &limits, &method)
            })
        };
        let mut rest = bytes.to_vec();
        for _ in 0..MAX_MESSAGES {
            let whole = read(&[&rest]);
            for pieces in pieces_of(&rest) {
                same(&whole, &read(&pieces), |read| format!("{read:?}"));
            }
            let Ok(Some(((parsed, headers), behind))) = whole else {
                break;
            };
            heads::check_response(parsed.status, &headers);
            let Some(behind) = body(parsed.body, &behind) else {
                break;
            };
            rest = behind;
        }
    }
}

/// Reads a chunked body. Promises: the same bytes, trailers and end in however many pieces it comes; trailers that are
/// passed on are read as they are.
pub fn chunked_body(bytes: &[u8]) {
    body(Framing::Chunked, bytes);
}

/// Takes a request's head that came by HTTP/2: a method, `:path` and `:authority` in a line each, then fields, a name and a value
/// behind a colon. Promises: what is passed on of it by HTTP/1 is read as the one message that it is, and says the same.
pub fn http2_head(bytes: &[u8]) {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let (method, path, authority) = (next(), next(), next());
    let uri = Uri::builder()
        .scheme("https")
        .authority(authority)
        .path_and_query(path);
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method), uri.build()) else {
        return;
    };
    let mut request = Request::new(());
    (*request.method_mut(), *request.uri_mut()) = (method, uri);
    for line in lines {
        let colon = line.iter().position(|&byte| byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.get(1..).unwrap_or_default();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            request.headers_mut().append(name, value);
        }
    }
    let limits = HeadLimits::of(MAX_HEAD_BYTES);
    let mut room = HeadRoom::default();
    let Ok(mut read) = http2::read_request(&request, true, &limits, &mut room) else {
        return;
    };
    read.head.headers.remove_hop_by_hop();
    heads::check_request(&read.head);
}

/// Reads a PROXY header. Promises: it ends where it ends, whatever is behind it and in however many pieces it comes.
pub fn proxy_header(bytes: &[u8]) {
    let read = proxy_protocol::parse(bytes);
    let Ok(Parsed::Header(header)) = read else {
        return;
    };
    assert_eq!(proxy_protocol::parse(&bytes[..header.bytes]), read);
    for there in 0..header.bytes {
        let part = proxy_protocol::parse(&bytes[..there]);
        let is_part =
            matches!(part, Ok(Parsed::Needs(needed)) if there < needed && needed <= header.bytes);
        assert!(is_part, "{there} bytes of it: {part:?}");
    }
}

/// Reads what a name server sends, and the system's files on names. Promises: addresses are those of hosts, and a service's
/// host can be in a field; a response to another question is passed over.
pub fn name_answer(bytes: &[u8]) {
    dns::check_response(bytes);
    let text = String::from_utf8_lossy(bytes);
    let read = dns::ResolvConf::read(&text);
    assert!((1..=3).contains(&read.servers.len()) && read.search.len() <= 6);
    dns::Hosts::read(&text).of("localhost");
}

/// Reads a text as a request's path. Promises: a path that was read is a valid one, is read as itself again, and has no
/// detours left, neither for the gateway nor for a peer that decodes it.
pub fn request_path(text: &str) {
    if !is_valid_path(text) {
        return;
    }
    let as_sent = path::key_as_sent(text);
    assert!(as_sent.is_none_or(|key| has_no_detours(&key)));
    let Ok(read) = path::read(text) else {
        assert!(!path::is_strict(text), "a strict path cannot be read");
        return;
    };
    assert!(is_valid_path(&read.text), "{} cannot be sent", read.text);
    assert!(has_no_detours(&read.text), "{} has detours", read.text);
    assert!(has_no_detours(&read.key), "{} has detours", read.key);
    assert_eq!(path::read(&read.text).as_ref(), Ok(&read));
    assert!(
        path::key_as_sent(&read.text).is_some(),
        "a peer leaves the root"
    );
}

/// Reads a query and a field of cookies for a name, on three lines. Promises: values that were found, once encoded again, are found
/// again.
pub fn query_and_cookies(text: &str) {
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (name, parameters, field) = (line(), line(), line());
    let found: Vec<_> = query::values(parameters, name.as_bytes()).collect();
    let encoded =
        |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("%{byte:02x}")).collect() };
    let again: Vec<_> = found
        .iter()
        .map(|value| format!("{}={}", encoded(name.as_bytes()), encoded(value)))
        .collect();
    let again = again.join("&");
    let found_again: Vec<_> = query::values(&again, name.as_bytes()).collect();
    assert_eq!(found_again, found);
    assert!(found.is_empty() || query::first_in_any_case(parameters, name).is_some());

    if !is_valid_value(field.as_bytes()) {
        return;
    }
    let of_field = |field: &[u8]| {
        let mut headers = Headers::new();
        headers.add(&http::header::COOKIE, field);
        let values = cookies::values(&headers, name);
        values.map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    let found = of_field(field.as_bytes());
    let again = found
        .iter()
        .map(|value| [name.as_bytes(), b"=", value].concat());
    let again: Vec<_> = again.collect();
    if !found.is_empty() {
        assert_eq!(of_field(&again.join(&b"; "[..])), found);
    }
}

/// Reads a config. Promises: no error is without its place in the file (`FILE:LINE:COLUMN: `), and each is one line.
/// Says whether the config is good.
pub fn config_file(file: &Path) -> bool {
    let Err(errors) = config::load(file) else {
        return true;
    };
    let errors = errors.to_string();
    assert!(!errors.is_empty(), "refused without a reason");
    for error in errors.lines() {
        let place = error.strip_prefix(&format!("{}:", file.display()));
        let mut numbers = place.unwrap_or_default().splitn(3, ':');
        let is_number = |text: Option<&str>| text.is_some_and(|text| text.parse::<u32>().is_ok());
        let has_place = is_number(numbers.next()) && is_number(numbers.next());
        let message = numbers.next().and_then(|text| text.strip_prefix(' '));
        assert!(
            has_place && message.is_some_and(|message| !message.is_empty()),
            "no place: {error}"
        );
    }
    false
}

/// Reads a list of peers that is not in the config. Promises: each error is one line with its place.
pub fn peers_list(text: &str) {
    let Err(errors) = config::read_peers(Path::new("/fuzz/app.peers"), text) else {
        return;
    };
    for error in errors.to_string().lines() {
        assert!(error.starts_with("/fuzz/app.peers:"), "no place: {error}");
    }
}

/// A message's head and the bytes behind it; none while it is incomplete.
type Read<T> = Result<Option<(T, Vec<u8>)>, HeadError>;

fn request(
    buf: &mut BytesMut,
    progress: &mut HeadProgress,
    limits: &HeadLimits,
) -> Result<Option<ParsedRequest>, HeadError> {
    http1::parse_request(buf, progress, limits, &mut HeadRoom::default())
}

fn response(
    buf: &mut BytesMut,
    progress: &mut HeadProgress,
    limits: &HeadLimits,
    method: &Method,
) -> Result<Option<(ParsedResponse, Headers)>, HeadError> {
    let mut headers = Headers::new();
    let parsed = http1::parse_response(buf, progress, limits, method, &mut headers)?;
    Ok(parsed.map(|parsed| (parsed, headers)))
}

fn in_pieces<T>(
    pieces: &[&[u8]],
    mut parse: impl FnMut(&mut BytesMut, &mut HeadProgress) -> Result<Option<T>, HeadError>,
) -> Read<T> {
    let mut buf = BytesMut::new();
    let mut progress = HeadProgress::default();
    for (idx, piece) in pieces.iter().enumerate() {
        buf.extend_from_slice(piece);
        if let Some(parsed) = parse(&mut buf, &mut progress)? {
            let mut behind = buf.to_vec();
            pieces[idx + 1..]
                .iter()
                .for_each(|piece| behind.extend_from_slice(piece));
            return Ok(Some((parsed, behind)));
        }
    }
    Ok(None)
}

/// Ways to cut an input: byte by byte, in the middle, before its last byte.
fn pieces_of(bytes: &[u8]) -> [Vec<&[u8]>; 3] {
    let cut = |at: usize| {
        let (before, behind) = bytes.split_at(at);
        vec![before, behind]
    };
    [
        bytes.chunks(1).collect(),
        cut(bytes.len() / 2),
        cut(bytes.len().saturating_sub(1)),
    ]
}

/// Whether a head came out the same. Which error comes first may depend on the pieces; that none is taken for a message
/// may not.
fn same<T: Debug>(whole: &Read<T>, pieces: &Read<T>, fields: impl Fn(&T) -> String) {
    match (whole, pieces) {
        (Ok(Some((one, behind_one))), Ok(Some((other, behind_other)))) => {
            assert_eq!(fields(one), fields(other), "pieces change a head");
            assert_eq!(behind_one, behind_other, "pieces change where a head ends");
        }
        (Ok(Some(read)), other) => panic!("read only when whole: {read:?}, not {other:?}"),
        (other, Ok(Some(read))) => panic!("read only in pieces: {read:?}, not {other:?}"),
        (Ok(None) | Err(_), Ok(None) | Err(_)) => {}
    }
}

/// All that is known of a request. Fields are compared as they are, bytes beyond ASCII included.
fn request_fields(parsed: &ParsedRequest) -> String {
    let fields: Vec<_> = parsed.head.headers.iter().collect();
    format!("{parsed:?} {fields:?}")
}

/// Reads a body, whole and in pieces. The bytes behind it; none when it is refused or incomplete.
fn body(length: Framing, bytes: &[u8]) -> Option<Vec<u8>> {
    let whole = decoded(length, &[bytes]);
    for pieces in pieces_of(bytes) {
        assert_eq!(decoded(length, &pieces), whole, "pieces change a body");
    }
    if let Some(trailers) = &whole.trailers {
        let mut out = Vec::new();
        http1::write_trailers(&mut out, trailers);
        let again = decoded(Framing::Chunked, &[&out]);
        assert_eq!(again.end, Ok(true), "trailers cannot be read again");
        assert_eq!(again.trailers.as_ref(), Some(trailers));
        assert!(again.behind.is_empty(), "trailers have smuggled bytes");
    }
    (whole.end == Ok(true)).then_some(whole.behind)
}

/// Result of decoding a body.
#[derive(Debug, PartialEq)]
struct PieceBody {
    data: Vec<u8>,
    /// Whether it has ended.
    end: Result<bool, BodyError>,
    trailers: Option<Headers>,
    behind: Vec<u8>,
}

fn decoded(length: Framing, pieces: &[&[u8]]) -> PieceBody {
    let mut decoder = BodyDecoder::new(length);
    let (mut buf, mut data) = (BytesMut::new(), Vec::new());
    let mut end = Ok(false);
    let mut pieces = pieces.iter();
    while end == Ok(false) {
        match decoder.decode(&mut buf) {
            Ok(Piece::Data(piece)) => {
                assert!(!piece.is_empty(), "a piece of no bytes");
                data.extend_from_slice(&piece);
            }
            Ok(Piece::NeedMore) => match pieces.next() {
                Some(piece) => buf.extend_from_slice(piece),
                None => break,
            },
            Ok(Piece::End) => end = Ok(true),
            Err(error) => end = Err(error),
        }
    }
    let mut behind = Vec::new();
    if end == Ok(true) {
        behind.extend_from_slice(&buf);
        pieces.for_each(|piece| behind.extend_from_slice(piece));
    }
    PieceBody {
        data,
        end,
        trailers: decoder.take_trailers(),
        behind,
    }
}

/// Whether a path has no dot segment and no empty segment but the last.
fn has_no_detours(path: &str) -> bool {
    let inner = path.strip_suffix('/').unwrap_or(path);
    let mut segments = inner.split('/').skip(1);
    !segments.any(|segment| matches!(segment, "" | "." | ".."))
}

/// Limit that is more than an input has.
const MAX_HEAD_BYTES: usize = 8 << 10;

/// Messages that one input may hold.
const MAX_MESSAGES: usize = 8;
