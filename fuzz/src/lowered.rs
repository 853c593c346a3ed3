//! Calls of scripts as a guest makes them: the host's function, and its arguments.

use castling_abi::{
    Digest, Grant, HeaderMap, KvExpected, Number as NumberId, Property, Signature, TlsFact, rules,
};
use castling_sdk::script::{self, Call, Section};

/// A call of a host function.
pub(crate) struct Lowered {
    pub(crate) function: &'static str,
    pub(crate) arguments: Vec<Argument>,
}

/// An argument, or two.
pub(crate) enum Argument {
    Number(u64),
    /// Address and length.
    Bytes(Vec<u8>),
    /// Address and length of a room for what is handed out.
    Room,
    /// A room of so many bytes.
    RoomOf(usize),
    /// Address of a room for an `i64`.
    NumberRoom,
}

use Argument::{Bytes, Number, NumberRoom, Room, RoomOf};

impl Lowered {
    /// `None`: the call has an argument that cannot be passed, or it is none of those that are made here.
    pub(crate) fn of(call: &Call) -> Option<Self> {
        Self::of_heads(call)
            .or_else(|| Self::of_bodies(call))
            .or_else(|| Self::of_zones(call))
            .or_else(|| Self::of_kv_zones(call))
            .or_else(|| Self::of_others(call))
            .or_else(|| Self::of_crypto(call))
    }

    /// Bytes that were handed out into the call's room, where it has one.
    pub(crate) fn handed_out(&self, result: i64, room: &[u8]) -> Option<Vec<u8>> {
        let mut arguments = self.arguments.iter();
        arguments.find_map(|argument| match argument {
            Room | RoomOf(_) => {
                let length = usize::try_from(result).unwrap_or(0);
                Some(room.get(..length).unwrap_or_default().to_vec())
            }
            NumberRoom => {
                let number = room.first_chunk().copied().unwrap_or_default();
                Some(i64::from_le_bytes(number).to_string().into_bytes())
            }
            Number(_) | Bytes(_) => None,
        })
    }

    fn of_heads(call: &Call) -> Option<Self> {
        let (rule, arguments) = match call {
            Call::PropertyGet(id) => {
                Property::from_raw(*id)?;
                (rules::PROPERTY_GET, vec![id_of(id), Room])
            }
            Call::PropertySet(id, value) => {
                Property::from_raw(*id)?;
                (rules::PROPERTY_SET, vec![id_of(id), long(value)])
            }
            Call::NumberGet(id) => {
                NumberId::from_raw(*id)?;
                (rules::NUMBER_GET, vec![id_of(id)])
            }
            Call::HeaderGet(map, name) => {
                (rules::HEADER_GET, vec![section(*map), bytes(name), Room])
            }
            Call::HeadersGet(map, name) => {
                (rules::HEADERS_GET, vec![section(*map), bytes(name), Room])
            }
            Call::HeaderSet(map, name, value) => (
                rules::HEADER_SET,
                vec![section(*map), bytes(name), long(value)],
            ),
            Call::HeaderAdd(map, name, value) => (
                rules::HEADER_ADD,
                vec![section(*map), bytes(name), long(value)],
            ),
            Call::HeaderRemove(map, name) => {
                (rules::HEADER_REMOVE, vec![section(*map), bytes(name)])
            }
            Call::StatusGet => (rules::STATUS_GET, vec![]),
            Call::StatusSet(status) => (rules::STATUS_SET, vec![Number((*status).into())]),
            Call::VarGet(name) => (rules::VAR_GET, vec![bytes(name), Room]),
            Call::VarSet(name, value) => (rules::VAR_SET, vec![bytes(name), long(value)]),
            Call::VarCompute(name) => (rules::VAR_COMPUTE, vec![bytes(name)]),
            Call::StateGet => (rules::STATE_GET, vec![Room]),
            Call::StateSet(bytes) => (rules::STATE_SET, vec![filled(b's', *bytes)]),
            Call::Answer(status, headers, body_bytes) => {
                let headers = script::fields(headers)?;
                let status = Number((*status).into());
                (
                    rules::ANSWER,
                    vec![status, Bytes(headers), filled(b'a', *body_bytes)],
                )
            }
            _ => return None,
        };
        Some(Self::new(rule.name, arguments))
    }

    fn of_bodies(call: &Call) -> Option<Self> {
        let (rule, arguments) = match call {
            Call::ChunkGet => (rules::CHUNK_GET, vec![Room]),
            Call::ChunkSet(data) => (rules::CHUNK_SET, vec![long(data)]),
            Call::ChunkEnd => (rules::CHUNK_END, vec![]),
            Call::BodySkip => (rules::BODY_SKIP, vec![]),
            Call::BodyGet(map) => (rules::BODY_GET, vec![section(*map), Room]),
            Call::ResponseTrailers(list) => {
                let fields = script::fields(list)?;
                (rules::RESPONSE_TRAILERS, vec![Bytes(fields)])
            }
            Call::CallStatus(index) => (rules::CALL_STATUS, vec![id_of(index)]),
            Call::CallErrorKind(index) => (rules::CALL_ERROR_KIND, vec![id_of(index)]),
            Call::CallHeader(index) => (rules::CALL_HEADERS, vec![id_of(index), RoomOf(0)]),
            Call::CallBody(index) => (rules::CALL_BODY, vec![id_of(index), Room]),
            _ => return None,
        };
        Some(Self::new(rule.name, arguments))
    }

    fn of_zones(call: &Call) -> Option<Self> {
        let (rule, arguments) = match call {
            Call::CounterAdd(zone, key, amount, window) => {
                let numbers = [signed(*amount), signed(*window)];
                (rules::COUNTER_ADD, key_and(zone, key, numbers))
            }
            Call::CounterGet(zone, key) => (rules::COUNTER_GET, key_and(zone, key, [])),
            Call::RateTake(zone, key, interval, burst) => {
                let numbers = [signed(*interval), signed(*burst)];
                (rules::RATE_TAKE, key_and(zone, key, numbers))
            }
            Call::GaugeEnter(zone, key, max) => {
                (rules::GAUGE_ENTER, key_and(zone, key, [id_of(max)]))
            }
            Call::GaugeLeave(zone, key) => (rules::GAUGE_LEAVE, key_and(zone, key, [])),
            Call::GaugeCount(zone, key) => (rules::GAUGE_COUNT, key_and(zone, key, [])),
            Call::TopicPublish(zone, length) => (
                rules::TOPIC_PUBLISH,
                vec![bytes(zone), filled(b't', *length)],
            ),
            Call::MessageGet => (rules::MESSAGE_GET, vec![Room]),
            _ => return None,
        };
        Some(Self::new(rule.name, arguments))
    }

    fn of_kv_zones(call: &Call) -> Option<Self> {
        let expected = |raw: u32| {
            KvExpected::from_raw(raw)?;
            Some([id_of(&raw), bytes(b"1")])
        };
        let (rule, arguments) = match call {
            Call::KvGet(zone, key) => (rules::KV_GET, key_and(zone, key, [Room])),
            Call::KvPut(zone, key, value, ttl, raw) => {
                let [raw, value_expected] = expected(*raw)?;
                let rest = [long(value), signed(*ttl), raw, value_expected];
                (rules::KV_PUT, key_and(zone, key, rest))
            }
            Call::KvDelete(zone, key, raw) => {
                (rules::KV_DELETE, key_and(zone, key, expected(*raw)?))
            }
            Call::KvList(zone, prefix, after, limit) => {
                let rest = [bytes(after), Number(*limit as u64), Room];
                (rules::KV_LIST, key_and(zone, prefix, rest))
            }
            Call::KvIncrement(zone, key, by, ttl) => {
                let rest = [signed(*by), signed(*ttl), NumberRoom];
                (rules::KV_INCREMENT, key_and(zone, key, rest))
            }
            Call::KvGetAll(zone, keys) => {
                let keys = script::keys(keys)?;
                (rules::KV_GET_ALL, vec![bytes(zone), Bytes(keys), Room])
            }
            Call::KvPutAll(zone, entries, ttl) => {
                let entries = script::fields(entries)?;
                let rest = vec![bytes(zone), Bytes(entries), signed(*ttl)];
                (rules::KV_PUT_ALL, rest)
            }
            Call::KvDeleteAll(zone, keys) => {
                let keys = script::keys(keys)?;
                (rules::KV_DELETE_ALL, vec![bytes(zone), Bytes(keys)])
            }
            Call::KvFlightEnd(zone, key) => (rules::KV_FLIGHT_END, key_and(zone, key, [])),
            _ => return None,
        };
        Some(Self::new(rule.name, arguments))
    }

    fn of_others(call: &Call) -> Option<Self> {
        let (rule, arguments) = match call {
            Call::GrantCheck(grant, name) => {
                Grant::from_raw(*grant)?;
                (rules::GRANT_CHECK, vec![id_of(grant), bytes(name)])
            }
            Call::ConfigGrant(grant, name) => {
                Grant::from_raw(*grant)?;
                (rules::CONFIG_GRANT, vec![id_of(grant), bytes(name)])
            }
            Call::UpstreamSet(name) => (rules::UPSTREAM_SET, vec![bytes(name)]),
            Call::TlsGet(fact) => {
                TlsFact::from_raw(*fact)?;
                (rules::TLS_GET, vec![id_of(fact), Room])
            }
            Call::PeersGet => (rules::PEERS_GET, vec![Room]),
            Call::PeersDraw => (rules::PEERS_DRAW, vec![Room]),
            Call::PeerTags(index) => (rules::PEER_TAGS, vec![id_of(index), Room]),
            Call::MetricDefine => (rules::METRIC_DEFINE, vec![bytes(b"")]),
            Call::MetricSeries(metric, values) => {
                let values = script::texts(values)?;
                (rules::METRIC_SERIES, vec![id_of(metric), Bytes(values)])
            }
            Call::MetricAdd(series, value) => {
                (rules::METRIC_ADD, vec![id_of(series), float(*value)])
            }
            Call::MetricSet(series, value) => {
                (rules::METRIC_SET, vec![id_of(series), float(*value)])
            }
            Call::MetricObserve(series, value) => {
                (rules::METRIC_OBSERVE, vec![id_of(series), float(*value)])
            }
            Call::FileOpen(name) => (rules::FILE_OPEN, vec![bytes(name)]),
            Call::FileLength(file) => (rules::FILE_FACT, vec![id_of(file), Number(0)]),
            Call::FileRead(file, offset, most) => (
                rules::FILE_READ,
                vec![id_of(file), signed(*offset), RoomOf(*most)],
            ),
            _ => return None,
        };
        Some(Self::new(rule.name, arguments))
    }

    fn of_crypto(call: &Call) -> Option<Self> {
        let (rule, arguments) = match call {
            Call::Digest(id, data) => {
                Digest::from_raw(*id)?;
                (rules::DIGEST, vec![id_of(id), long(data), Room])
            }
            Call::Hmac(id, key, data) => {
                Digest::from_raw(*id)?;
                (rules::HMAC, vec![id_of(id), bytes(key), bytes(data), Room])
            }
            Call::Seal(key, aad, plain) => (
                rules::SEAL,
                vec![bytes(key), bytes(aad), bytes(plain), Room],
            ),
            Call::Unseal(key, aad, sealed) => (
                rules::UNSEAL,
                vec![bytes(key), bytes(aad), bytes(sealed), Room],
            ),
            Call::SignatureVerify(id, key, message, signature) => {
                Signature::from_raw(*id)?;
                let rest = [bytes(key), bytes(message), bytes(signature)];
                let arguments = [id_of(id)].into_iter().chain(rest).collect();
                (rules::SIGNATURE_VERIFY, arguments)
            }
            Call::CallReplyHeader(call) => {
                (rules::CALL_REPLY_HEADERS, vec![id_of(call), RoomOf(0)])
            }
            Call::CallFailureKind => (rules::CALL_FAILURE_KIND, vec![]),
            _ => return None,
        };
        Some(Self::new(rule.name, arguments))
    }

    fn new(function: &'static str, arguments: Vec<Argument>) -> Self {
        Self {
            function,
            arguments,
        }
    }
}

fn id_of(id: &u32) -> Argument {
    Number((*id).into())
}

fn signed(number: i64) -> Argument {
    Number(number as u64)
}

fn float(number: f64) -> Argument {
    Number(number.to_bits())
}

fn section(section: Section) -> Argument {
    Number(HeaderMap::from(section) as u64)
}

fn bytes(bytes: &[u8]) -> Argument {
    Bytes(bytes.to_vec())
}

fn long(value: &[u8]) -> Argument {
    Bytes(script::long(value).into_owned())
}

fn filled(byte: u8, bytes: usize) -> Argument {
    Bytes(vec![byte; bytes])
}

/// Zone and key, and what follows them.
fn key_and<const N: usize>(zone: &[u8], key: &[u8], rest: [Argument; N]) -> Vec<Argument> {
    [bytes(zone), bytes(key)].into_iter().chain(rest).collect()
}
