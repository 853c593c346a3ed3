//! Host calls as data: a script says what a hook calls, and each result is a line. The same script has the same results in a gateway and
//! in the fake host of [`testing`](crate::testing): what a differential test looks at.
//!
//! For tests of the gateway; with the feature `script`, and no part of the interface that plugins are promised.

use std::borrow::Cow;
use std::fmt::Write;

use castling_abi::{
    Digest, FileFact, Grant, HeaderMap, KvExpected, Number, Property, Signature, Status, TlsFact,
    call, header_list, kv, metric,
};
use serde::{Deserialize, Serialize};

use crate::host;

/// A header section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Section {
    /// The request's.
    Request,
    /// The response's.
    Response,
    /// A body's trailers.
    Trailers,
}

/// A host call with its arguments. A value `LONG:70000` stands for one of so many bytes. Ids are those of `castling_abi`; one that there is not is passed over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(
    missing_docs,
    reason = "each is the call of its name, with the arguments of that"
)]
pub enum Call {
    PropertyGet(u32),
    PropertySet(u32, Vec<u8>),
    NumberGet(u32),
    TlsGet(u32),
    HeaderGet(Section, Vec<u8>),
    HeadersGet(Section, Vec<u8>),
    HeaderSet(Section, Vec<u8>, Vec<u8>),
    HeaderAdd(Section, Vec<u8>, Vec<u8>),
    HeaderRemove(Section, Vec<u8>),
    StatusGet,
    StatusSet(u16),
    VarGet(Vec<u8>),
    VarSet(Vec<u8>, Vec<u8>),
    VarCompute(Vec<u8>),
    StateGet,
    StateSet(usize),
    Answer(u16, Vec<(Vec<u8>, Vec<u8>)>, usize),
    ResponseBegin(u16, Vec<(Vec<u8>, Vec<u8>)>, i64),
    ResponseWrite(usize),
    ResponseTrailers(Vec<(Vec<u8>, Vec<u8>)>),
    ChunkGet,
    ChunkSet(Vec<u8>),
    ChunkEnd,
    ChunkEmit(Vec<u8>),
    BodySkip,
    BodyRead(Section, usize),
    BodyPeek(usize),
    BodyGet(Section),
    CallsSend(Vec<Out>),
    CallStatus(u32),
    CallErrorKind(u32),
    CallHeader(u32),
    CallBody(u32),
    Delay(u32),
    CounterAdd(Vec<u8>, Vec<u8>, i64, i64),
    CounterGet(Vec<u8>, Vec<u8>),
    RateTake(Vec<u8>, Vec<u8>, i64, i64),
    GrantCheck(u32, Vec<u8>),
    ConfigGrant(u32, Vec<u8>),
    UpstreamSet(Vec<u8>),
    PeersGet,
    PeersDraw,
    PeerTags(u32),
    KvGet(Vec<u8>, Vec<u8>),
    KvPut(Vec<u8>, Vec<u8>, Vec<u8>, i64, u32),
    KvDelete(Vec<u8>, Vec<u8>, u32),
    KvList(Vec<u8>, Vec<u8>, Vec<u8>, usize),
    KvIncrement(Vec<u8>, Vec<u8>, i64, i64),
    KvGetAll(Vec<u8>, Vec<Vec<u8>>),
    KvPutAll(Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>, i64),
    KvDeleteAll(Vec<u8>, Vec<Vec<u8>>),
    KvFlight(Vec<u8>, Vec<u8>, u32),
    KvFlightEnd(Vec<u8>, Vec<u8>),
    GaugeEnter(Vec<u8>, Vec<u8>, u32),
    GaugeLeave(Vec<u8>, Vec<u8>),
    GaugeCount(Vec<u8>, Vec<u8>),
    TopicPublish(Vec<u8>, usize),
    MessageGet,
    MetricDefine,
    MetricSeries(u32, Vec<Vec<u8>>),
    MetricAdd(u32, f64),
    MetricSet(u32, f64),
    MetricObserve(u32, f64),
    FileOpen(Vec<u8>),
    FileLength(u32),
    FileRead(u32, i64, usize),
    TcpConnect(Vec<u8>),
    TcpClose(u32),
    CallOpen(Out, i64),
    CallWrite(u32, usize),
    CallFinish(u32),
    CallReplyHeader(u32),
    CallRead(u32, usize),
    CallClose(u32),
    CallFailureKind,
    Digest(u32, Vec<u8>),
    Hmac(u32, Vec<u8>, Vec<u8>),
    Seal(Vec<u8>, Vec<u8>, Vec<u8>),
    Unseal(Vec<u8>, Vec<u8>, Vec<u8>),
    SignatureVerify(u32, Vec<u8>, Vec<u8>, Vec<u8>),
    PasswordVerify(Vec<u8>, Vec<u8>),
}

/// A call out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is the part of its name")]
pub struct Out {
    pub upstream: Vec<u8>,
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub body_bytes: usize,
}

impl Call {
    /// Makes the call, and says what came of it.
    pub fn perform(&self) -> String {
        match self.make() {
            Some(Said::Number(number)) => self.line(number, None),
            Some(Said::Bytes(number, bytes)) => self.line(number, Some(&bytes)),
            None => "no such id".to_owned(),
        }
    }

    /// Says what came of the call: the number that it has returned, and the bytes that it has handed out where that is no status. What
    /// differs from one run to the next is left out.
    pub fn line(&self, number: i64, bytes: Option<&[u8]>) -> String {
        let mut line = String::new();
        told(&mut line, self.comparable(number));
        let is_shown = !matches!(self, Self::StateGet | Self::PeersDraw | Self::Seal(..));
        if let Some(bytes) = bytes.filter(|_| is_shown && number >= 0) {
            let _ = write!(line, " {}", bytes.escape_ascii());
        }
        line
    }

    fn comparable(&self, number: i64) -> i64 {
        let is_time = |id: &u32| {
            let number = Number::from_raw(*id);
            matches!(
                number,
                Some(Number::DurationMicros | Number::UpstreamMicros)
            )
        };
        match self {
            Self::NumberGet(id) if is_time(id) => number.min(0),
            // Fields of the peer's own come with it: that it can be read is what counts.
            Self::CallHeader(_) | Self::CallReplyHeader(_) | Self::TcpConnect(_) => number.min(0),
            // An instance that has served others knows more series.
            Self::MetricSeries(..) => number.min(0),
            // How long it is until the bucket is empty is a matter of time.
            Self::RateTake(..) => match number {
                0.. => 0,
                ..-1000 => -1001,
                status => status,
            },
            _ => number,
        }
    }

    fn make(&self) -> Option<Said> {
        Some(match self {
            Self::PropertyGet(_)
            | Self::PropertySet(..)
            | Self::NumberGet(_)
            | Self::TlsGet(_)
            | Self::HeaderGet(..)
            | Self::HeadersGet(..)
            | Self::HeaderSet(..)
            | Self::HeaderAdd(..)
            | Self::HeaderRemove(..)
            | Self::StatusGet
            | Self::StatusSet(_) => return self.of_heads(),
            Self::VarGet(name) => read(|out| host::var_get(name, out)),
            Self::VarSet(name, value) => number(host::var_set(name, &long(value))),
            Self::VarCompute(name) => number(host::var_compute(name)),
            Self::StateGet => read(host::state_get),
            Self::StateSet(bytes) => number(host::state_set(&vec![b's'; *bytes])),
            Self::Answer(status, headers, body_bytes) => {
                let body = vec![b'a'; *body_bytes];
                number(host::answer(*status, &fields(headers)?, &body))
            }
            Self::ResponseBegin(status, headers, length) => {
                number(host::response_begin(*status, &fields(headers)?, *length))
            }
            Self::ResponseWrite(bytes) => number(host::response_write(&vec![b'w'; *bytes])),
            Self::ResponseTrailers(list) => number(host::response_trailers(&fields(list)?)),
            Self::ChunkGet
            | Self::ChunkSet(_)
            | Self::ChunkEnd
            | Self::ChunkEmit(_)
            | Self::BodySkip
            | Self::BodyRead(..)
            | Self::BodyPeek(_)
            | Self::BodyGet(_) => return Some(self.of_bodies()),
            Self::CallsSend(calls) => number(host::calls_send(&records(calls)?)),
            Self::CallStatus(index) => number(host::call_status(*index)),
            Self::CallErrorKind(index) => number(host::call_error_kind(*index)),
            Self::CallHeader(index) => number(host::call_headers(*index, &mut [])),
            Self::CallBody(index) => read(|out| host::call_body(*index, out)),
            Self::Delay(milliseconds) => number(host::delay(*milliseconds)),
            Self::UpstreamSet(name) => number(host::upstream_set(name)),
            Self::PeersGet => read(host::peers_get),
            Self::PeersDraw => read(host::peers_draw),
            Self::PeerTags(index) => read(|out| host::peer_tags(*index, out)),
            Self::TcpConnect(upstream) => number(host::tcp_connect(upstream, 1000)),
            Self::TcpClose(connection) => number(host::tcp_close(*connection)),
            _ => return self.of_zones_and_more(),
        })
    }

    fn of_heads(&self) -> Option<Said> {
        Some(match self {
            Self::PropertyGet(id) => {
                let property = Property::from_raw(*id)?;
                read(|out| host::property_get(property, out))
            }
            Self::PropertySet(id, value) => {
                number(host::property_set(Property::from_raw(*id)?, &long(value)))
            }
            Self::NumberGet(id) => Said::Number(host::number_get(Number::from_raw(*id)?)),
            Self::TlsGet(id) => {
                let fact = TlsFact::from_raw(*id)?;
                read(|out| host::tls_get(fact, out))
            }
            Self::HeaderGet(map, name) => read(|out| host::header_get((*map).into(), name, out)),
            Self::HeadersGet(map, name) => read(|out| host::headers_get((*map).into(), name, out)),
            Self::HeaderSet(map, name, value) => {
                number(host::header_set((*map).into(), name, &long(value)))
            }
            Self::HeaderAdd(map, name, value) => {
                number(host::header_add((*map).into(), name, &long(value)))
            }
            Self::HeaderRemove(map, name) => number(host::header_remove((*map).into(), name)),
            Self::StatusGet => number(host::status_get()),
            Self::StatusSet(status) => number(host::status_set(*status)),
            _ => return None,
        })
    }

    fn of_bodies(&self) -> Said {
        match self {
            Self::ChunkSet(data) => number(host::chunk_set(&long(data))),
            Self::ChunkEnd => number(host::chunk_end()),
            Self::ChunkEmit(part) => number(host::chunk_emit(part)),
            Self::BodySkip => number(host::body_skip()),
            Self::BodyRead(map, limit) => number(host::body_read((*map).into(), *limit)),
            Self::BodyPeek(bytes) => Said::Number(host::body_peek(*bytes)),
            Self::BodyGet(map) => read(|out| host::body_get((*map).into(), out)),
            _ => read(host::chunk_get),
        }
    }

    fn of_zones_and_more(&self) -> Option<Said> {
        Some(match self {
            Self::CounterAdd(zone, key, amount, window) => {
                Said::Number(host::counter_add(zone, key, *amount, *window))
            }
            Self::CounterGet(zone, key) => Said::Number(host::counter_get(zone, key)),
            Self::RateTake(zone, key, interval, burst) => {
                Said::Number(host::rate_take(zone, key, *interval, *burst))
            }
            Self::GrantCheck(grant, name) => {
                number(host::grant_check(Grant::from_raw(*grant)?, name))
            }
            Self::ConfigGrant(grant, name) => {
                number(host::config_grant(Grant::from_raw(*grant)?, name))
            }
            Self::GaugeEnter(zone, key, max) => number(host::gauge_enter(zone, key, *max)),
            Self::GaugeLeave(zone, key) => number(host::gauge_leave(zone, key)),
            Self::GaugeCount(zone, key) => Said::Number(host::gauge_count(zone, key)),
            Self::TopicPublish(zone, bytes) => {
                number(host::topic_publish(zone, &vec![b't'; *bytes]))
            }
            Self::MessageGet => read(host::message_get),
            Self::MetricDefine => number(host::metric_define(&[])),
            Self::MetricSeries(metric, values) => {
                number(host::metric_series(*metric, &texts(values)?))
            }
            Self::MetricAdd(series, value) => number(host::metric_add(*series, *value)),
            Self::MetricSet(series, value) => number(host::metric_set(*series, *value)),
            Self::MetricObserve(series, value) => number(host::metric_observe(*series, *value)),
            Self::FileOpen(name) => number(host::file_open(name)),
            Self::FileLength(file) => Said::Number(host::file_fact(*file, FileFact::Length)),
            Self::FileRead(file, offset, most) => {
                let mut room = vec![0; *most];
                let read = host::file_read(*file, *offset, &mut room);
                room.truncate(usize::try_from(read).unwrap_or(0));
                Said::Bytes(read.into(), room)
            }
            _ => return self.of_kv_zones(),
        })
    }

    fn of_kv_zones(&self) -> Option<Said> {
        Some(match self {
            Self::KvGet(zone, key) => read(|out| host::kv_get(zone, key, out)),
            Self::KvPut(zone, key, value, ttl, expected) => {
                let expected = (KvExpected::from_raw(*expected)?, &b"1"[..]);
                number(host::kv_put(zone, key, &long(value), *ttl, expected))
            }
            Self::KvDelete(zone, key, expected) => {
                let expected = (KvExpected::from_raw(*expected)?, &b"1"[..]);
                number(host::kv_delete(zone, key, expected))
            }
            Self::KvList(zone, prefix, after, limit) => {
                read(|out| host::kv_list(zone, prefix, after, *limit, out))
            }
            Self::KvIncrement(zone, key, by, ttl) => {
                let mut sum = 0;
                let done = host::kv_increment(zone, key, *by, *ttl, &mut sum);
                Said::Bytes(done.into(), sum.to_string().into_bytes())
            }
            Self::KvGetAll(zone, keys) => {
                let keys = self::keys(keys)?;
                read(|out| host::kv_get_all(zone, &keys, out))
            }
            Self::KvPutAll(zone, entries, ttl) => {
                number(host::kv_put_all(zone, &fields(entries)?, *ttl))
            }
            Self::KvDeleteAll(zone, keys) => number(host::kv_delete_all(zone, &self::keys(keys)?)),
            Self::KvFlight(zone, key, wait) => number(host::kv_flight(zone, key, *wait)),
            Self::KvFlightEnd(zone, key) => number(host::kv_flight_end(zone, key)),
            _ => return self.of_streamed_calls(),
        })
    }

    fn of_streamed_calls(&self) -> Option<Said> {
        Some(match self {
            Self::CallOpen(out, length) => {
                let record = records(std::slice::from_ref(out))?;
                number(host::call_open(&record, *length))
            }
            Self::CallWrite(call, bytes) => number(host::call_write(*call, &vec![b'p'; *bytes])),
            Self::CallFinish(call) => number(host::call_finish(*call)),
            Self::CallReplyHeader(call) => number(host::call_reply_headers(*call, &mut [])),
            Self::CallRead(call, most) => {
                let mut room = vec![0; *most];
                let read = host::call_read(*call, &mut room);
                room.truncate(usize::try_from(read).unwrap_or(0));
                Said::Bytes(read.into(), room)
            }
            Self::CallClose(call) => number(host::call_close(*call)),
            Self::CallFailureKind => number(host::call_failure_kind()),
            _ => return self.of_crypto(),
        })
    }

    fn of_crypto(&self) -> Option<Said> {
        Some(match self {
            Self::Digest(id, data) => {
                let algorithm = Digest::from_raw(*id)?;
                read(|out| host::digest(algorithm, &long(data), out))
            }
            Self::Hmac(id, key, data) => {
                let algorithm = Digest::from_raw(*id)?;
                read(|out| host::hmac(algorithm, key, data, out))
            }
            Self::Seal(key, aad, plain) => read(|out| host::seal(key, aad, plain, out)),
            Self::Unseal(key, aad, sealed) => read(|out| host::unseal(key, aad, sealed, out)),
            Self::SignatureVerify(id, key, message, signature) => {
                let algorithm = Signature::from_raw(*id)?;
                number(host::signature_verify(algorithm, key, message, signature))
            }
            Self::PasswordVerify(hash, password) => number(host::password_verify(hash, password)),
            _ => return None,
        })
    }
}

impl From<Section> for HeaderMap {
    fn from(section: Section) -> Self {
        match section {
            Section::Request => Self::Request,
            Section::Response => Self::Response,
            Section::Trailers => Self::Trailers,
        }
    }
}

/// Result of a call.
enum Said {
    Number(i64),
    /// The number that the call has returned, and what it has handed out where that is no status.
    Bytes(i64, Vec<u8>),
}

fn number(result: i32) -> Said {
    Said::Number(result.into())
}

/// Calls with room enough, the second time if need be.
fn read(mut call: impl FnMut(&mut [u8]) -> i32) -> Said {
    let mut room = vec![0; 64];
    let mut length = call(&mut room);
    if let Ok(needed) = usize::try_from(length)
        && needed > room.len()
    {
        room.resize(needed, 0);
        length = call(&mut room);
    }
    room.truncate(usize::try_from(length).unwrap_or(0));
    Said::Bytes(length.into(), room)
}

/// Bytes that a value stands for: `LONG:70000` for so many, any other for itself.
pub fn long(value: &[u8]) -> Cow<'_, [u8]> {
    let digits = value
        .strip_prefix(b"LONG:")
        .and_then(|it| str::from_utf8(it).ok());
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(bytes) => Cow::Owned(vec![b'v'; bytes]),
        None => Cow::Borrowed(value),
    }
}

fn told(said: &mut String, number: i64) {
    let status = i32::try_from(number).ok().and_then(Status::from_raw);
    let _ = match status {
        Some(status) => write!(said, "{}", status.name()),
        None => write!(said, "{number}"),
    };
}

/// A header list. `None`: it has something that fits into none.
pub fn fields(list: &[(Vec<u8>, Vec<u8>)]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for (name, value) in list {
        let value = long(value);
        bytes.extend(header_list::record_head(name, &value)?);
        bytes.extend([&name[..], &value].concat());
    }
    Some(bytes)
}

fn records(calls: &[Out]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for out in calls {
        let (headers, body) = (fields(&out.headers)?, vec![b'o'; out.body_bytes]);
        let parts: [&[u8]; 5] = [&out.upstream, &out.method, &out.target, &headers, &body];
        bytes.extend(call::record_head(5000, parts.map(<[u8]>::len))?);
        bytes.extend(parts.concat());
    }
    Some(bytes)
}

/// A list of keys, likewise.
pub fn keys(list: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for key in list {
        bytes.extend(kv::key_head(key)?);
        bytes.extend(key);
    }
    Some(bytes)
}

/// A list of texts, likewise.
pub fn texts(list: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for text in list {
        bytes.extend(metric::text_head(text)?);
        bytes.extend(text);
    }
    Some(bytes)
}
