//! Host calls at random: few names and values, so that calls meet, and wrong ones among them. For whole scripts, and for the fuzz target
//! `scripts`.

use castling_sdk::script::{Call, Out, Section};
use castling_sdk::testing::ZoneKind;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;

/// Zones and their kinds.
pub(crate) const KINDS: [(&str, ZoneKind); 6] = [
    ("scripts", ZoneKind::Kv),
    ("results", ZoneKind::Kv),
    ("kv", ZoneKind::Kv),
    ("counter", ZoneKind::Counter),
    ("gauge", ZoneKind::Gauge),
    ("topic", ZoneKind::Topic),
];

/// A call of the plugin with this index. Keys of zones have the case's number in them, as zones outlive cases.
pub(crate) fn call(number: u32, index: usize) -> Union<BoxedStrategy<Call>> {
    let mut all = of_heads();
    all.extend(of_bodies());
    all.extend(of_zones(number, index));
    all.extend(of_others());
    all.extend(of_streamed_calls());
    all.extend(of_crypto());
    Union::new(all)
}

fn bytes(list: &[&str]) -> BoxedStrategy<Vec<u8>> {
    let list: Vec<Vec<u8>> = list.iter().map(|one| one.as_bytes().to_vec()).collect();
    select(list).boxed()
}

fn name() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        8 => bytes(&["x-a", "x-b", "X-T", "x-t", "x-none", "x-peer"]),
        2 => bytes(&["host", "Host", "etag", "content-length", "Connection", "te", "x y", ""]),
    ]
    .boxed()
}

fn value() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        8 => bytes(&["1", "two", "", "a\tb", "example.org:80"]),
        1 => bytes(&["a\r\nb: c", "a\u{7f}", "a b"]),
        1 => bytes(&["LONG:70000"]),
    ]
    .boxed()
}

fn section() -> BoxedStrategy<Section> {
    prop_oneof![
        5 => Just(Section::Request),
        5 => Just(Section::Response),
        1 => Just(Section::Trailers),
    ]
    .boxed()
}

fn of_heads() -> Vec<BoxedStrategy<Call>> {
    let text = bytes(&[
        "/x",
        "/a b",
        "no",
        "",
        "GET",
        "PATCH",
        "G T",
        "CONNECT",
        "a=1",
        "a#b",
        "example.net",
        "10.0.0.1",
        "a..b",
    ]);
    // Method, path, query, host, client's address, scheme, protocol, listener, route, upstream, the path as it is routed.
    let readable = select(vec![0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 14]);
    let settable = select(vec![0, 1, 2, 3, 4, 5, 9]);
    vec![
        readable.prop_map(Call::PropertyGet).boxed(),
        (settable, text)
            .prop_map(|(id, text)| Call::PropertySet(id, text))
            .boxed(),
        select(vec![1, 2, 3, 4, 5])
            .prop_map(Call::NumberGet)
            .boxed(),
        select(vec![0, 3, 99]).prop_map(Call::TlsGet).boxed(),
        (section(), name())
            .prop_map(|(s, n)| Call::HeaderGet(s, n))
            .boxed(),
        (section(), bytes(&["x-a", "x-t", "X-T", "x-none", "host"]))
            .prop_map(|(s, n)| Call::HeadersGet(s, n))
            .boxed(),
        (section(), name(), value())
            .prop_map(|(s, n, v)| Call::HeaderSet(s, n, v))
            .boxed(),
        (section(), name(), value())
            .prop_map(|(s, n, v)| Call::HeaderAdd(s, n, v))
            .boxed(),
        (section(), name())
            .prop_map(|(s, n)| Call::HeaderRemove(s, n))
            .boxed(),
        Just(Call::StatusGet).boxed(),
        select(vec![200, 404, 99, 100, 600])
            .prop_map(Call::StatusSet)
            .boxed(),
        bytes(&["a", "b", "A", "", "a-b"])
            .prop_map(Call::VarGet)
            .boxed(),
        bytes(&["a", "b", "A", "", "a-b"])
            .prop_map(Call::VarCompute)
            .boxed(),
        (bytes(&["a", "b", "A", "", "a-b"]), value())
            .prop_map(|(n, v)| Call::VarSet(n, v))
            .boxed(),
        Just(Call::StateGet).boxed(),
        select(vec![0, 5, 70_000]).prop_map(Call::StateSet).boxed(),
        (
            select(vec![200, 101, 600]),
            fields(),
            select(vec![0, 3, 2 << 20]),
        )
            .prop_map(|(s, f, b)| Call::Answer(s, f, b))
            .boxed(),
    ]
}

fn fields() -> BoxedStrategy<Vec<(Vec<u8>, Vec<u8>)>> {
    vec((name(), value()), 0..3).boxed()
}

fn of_bodies() -> Vec<BoxedStrategy<Call>> {
    vec![
        Just(Call::ChunkGet).boxed(),
        bytes(&["", "changed"]).prop_map(Call::ChunkSet).boxed(),
        Just(Call::ChunkSet(b"LONG:2097152".to_vec())).boxed(),
        Just(Call::ChunkEnd).boxed(),
        bytes(&["", "emitted"]).prop_map(Call::ChunkEmit).boxed(),
        Just(Call::BodySkip).boxed(),
        (section(), select(vec![0, 5, 1000, 2 << 20]))
            .prop_map(|(s, limit)| Call::BodyRead(s, limit))
            .boxed(),
        select(vec![0, 5, 1000, 2 << 20])
            .prop_map(Call::BodyPeek)
            .boxed(),
        section().prop_map(Call::BodyGet).boxed(),
        select(vec![0, 3]).prop_map(Call::ResponseWrite).boxed(),
        fields().prop_map(Call::ResponseTrailers).boxed(),
    ]
}

fn of_zones(number: u32, index: usize) -> Vec<BoxedStrategy<Call>> {
    let zone = || bytes(&["kv", "kv", "kv", "kv", "counter", "nope"]);
    let key = move || {
        let keys = ["1", "2"].map(|key| format!("{number}-{key}").into_bytes());
        prop_oneof![8 => select(keys.to_vec()), 1 => Just(Vec::new()), 1 => Just(format!("{number}-{}", "k".repeat(600)).into_bytes())]
            .boxed()
    };
    let count = move || {
        prop_oneof![8 => key(), 1 => Just(vec![b'k'; 5000])].prop_map(move |key| match key.len() {
            0 => format!("{number}-").into_bytes(),
            _ => key,
        })
    };
    // Each plugin's own: what two of one request get of the same key is for another test.
    let flight = move || {
        key().prop_map(move |key| match key.len() {
            0 => key,
            _ => [&key[..], format!("-{index}").as_bytes()].concat(),
        })
    };
    let counter = || bytes(&["counter", "counter", "counter", "gauge", "nope"]);
    let gauge = || bytes(&["gauge", "gauge", "gauge", "kv", "nope"]);
    let number_value = Just(5_i64.to_le_bytes().to_vec());
    let stored =
        prop_oneof![4 => bytes(&["1", "2", ""]), 1 => number_value, 1 => bytes(&["LONG:1048577"])];
    let ttl = || select(vec![0_i64, 0, 60_000, -1]);
    vec![
        (zone(), key()).prop_map(|(z, k)| Call::KvGet(z, k)).boxed(),
        (zone(), key(), stored, ttl(), 0..4_u32)
            .prop_map(|(z, k, v, t, e)| Call::KvPut(z, k, v, t, e))
            .boxed(),
        (zone(), key(), 0..4_u32)
            .prop_map(|(z, k, e)| Call::KvDelete(z, k, e))
            .boxed(),
        (zone(), key(), select(vec![0, 1, 10, 1001]))
            .prop_map(move |(z, after, limit)| {
                Call::KvList(z, format!("{number}-").into_bytes(), after, limit)
            })
            .boxed(),
        (zone(), key(), select(vec![1, -1, i64::MAX]), ttl())
            .prop_map(|(z, k, by, t)| Call::KvIncrement(z, k, by, t))
            .boxed(),
        (zone(), vec(key(), 0..3))
            .prop_map(|(z, k)| Call::KvGetAll(z, k))
            .boxed(),
        (zone(), vec((key(), bytes(&["1", "3"])), 0..3), ttl())
            .prop_map(|(z, e, t)| Call::KvPutAll(z, e, t))
            .boxed(),
        (zone(), vec(key(), 0..3))
            .prop_map(|(z, k)| Call::KvDeleteAll(z, k))
            .boxed(),
        (zone(), flight(), select(vec![1, 70_000]))
            .prop_map(|(z, k, w)| Call::KvFlight(z, k, w))
            .boxed(),
        (zone(), flight())
            .prop_map(|(z, k)| Call::KvFlightEnd(z, k))
            .boxed(),
        (
            counter(),
            count(),
            select(vec![0, 1, -1]),
            select(vec![0, 60_000]),
        )
            .prop_map(|(z, k, a, w)| Call::CounterAdd(z, k, a, w))
            .boxed(),
        (counter(), count())
            .prop_map(|(z, k)| Call::CounterGet(z, k))
            .boxed(),
        (
            counter(),
            count(),
            select(vec![0, 3_600_000_000_000]),
            select(vec![0, 1, i64::MAX]),
        )
            .prop_map(|(z, k, i, b)| {
                // A bucket is not a counter's count.
                Call::RateTake(z, [&k[..], b"r"].concat(), i, b)
            })
            .boxed(),
        (gauge(), key(), 0..3_u32)
            .prop_map(|(z, k, m)| Call::GaugeEnter(z, k, m))
            .boxed(),
        (gauge(), key())
            .prop_map(|(z, k)| Call::GaugeLeave(z, k))
            .boxed(),
        (gauge(), key())
            .prop_map(|(z, k)| Call::GaugeCount(z, k))
            .boxed(),
        (bytes(&["topic", "kv", "nope"]), select(vec![0, 10, 5000]))
            .prop_map(|(z, b)| Call::TopicPublish(z, b))
            .boxed(),
    ]
}

fn of_others() -> Vec<BoxedStrategy<Call>> {
    let grant = bytes(&["app", "calls", "nope", "kv", "counter", "gauge", "topic"]);
    vec![
        vec(out(), 0..3).prop_map(Call::CallsSend).boxed(),
        (0..3_u32).prop_map(Call::CallStatus).boxed(),
        (0..3_u32).prop_map(Call::CallErrorKind).boxed(),
        (0..3_u32).prop_map(Call::CallHeader).boxed(),
        (0..3_u32).prop_map(Call::CallBody).boxed(),
        select(vec![0, 1, 70_000]).prop_map(Call::Delay).boxed(),
        bytes(&["app", "nope"]).prop_map(Call::UpstreamSet).boxed(),
        Just(Call::UpstreamSet(Vec::new())).boxed(),
        (0..6_u32, grant.clone())
            .prop_map(|(g, n)| Call::GrantCheck(g, n))
            .boxed(),
        (0..6_u32, grant)
            .prop_map(|(g, n)| Call::ConfigGrant(g, n))
            .boxed(),
        Just(Call::PeersDraw).boxed(),
        (0..2_u32).prop_map(Call::PeerTags).boxed(),
        Just(Call::MessageGet).boxed(),
        Just(Call::MetricDefine).boxed(),
        (
            select(vec![0, 1, 1_000_000]),
            select(vec![1.0, -1.0, f64::INFINITY]),
        )
            .prop_map(|(s, v)| Call::MetricAdd(s, v))
            .boxed(),
        (select(vec![0, 1, 1_000_000]), select(vec![1.0, f64::NAN]))
            .prop_map(|(s, v)| Call::MetricSet(s, v))
            .boxed(),
        (select(vec![0, 1]), Just(1.0))
            .prop_map(|(s, v)| Call::MetricObserve(s, v))
            .boxed(),
        (select(vec![0, 1, 9]), vec(bytes(&["x", "y"]), 0..3))
            .prop_map(|(m, v)| Call::MetricSeries(m, v))
            .boxed(),
        bytes(&["nope"]).prop_map(Call::FileOpen).boxed(),
        Just(Call::FileLength(0)).boxed(),
        select(vec![-1, 0])
            .prop_map(|offset| Call::FileRead(0, offset, 8))
            .boxed(),
        bytes(&["calls", "nope"]).prop_map(Call::TcpConnect).boxed(),
        (0..2_u32).prop_map(Call::TcpClose).boxed(),
    ]
}

fn out() -> BoxedStrategy<Out> {
    let upstream = || bytes(&["calls", "calls", "nope", "http://nope.test", "http://"]);
    let out = (
        upstream(),
        bytes(&["GET", "POST", "CONNECT", "G T"]),
        bytes(&["/out", "/out?a=b", "out", "/a b"]),
        vec((bytes(&["x-a", "te", "x y"]), bytes(&["1", "a\r\n"])), 0..2),
        select(vec![0, 3, 2 << 20]),
    );
    out.prop_map(|(upstream, method, target, headers, body_bytes)| Out {
        upstream,
        method,
        target,
        headers,
        body_bytes,
    })
    .boxed()
}

/// Calls of small numbers: those that are open, and others.
fn of_streamed_calls() -> Vec<BoxedStrategy<Call>> {
    let number = || prop_oneof![6 => 0..2_u32, 1 => Just(2_u32), 1 => Just(u32::MAX)];
    let length = select(vec![0, 0, 3, 3, -1, -1, -2, i64::MIN]);
    vec![
        // Twice, or the others would mostly be of none.
        (opened(), length.clone())
            .prop_map(|(o, l)| Call::CallOpen(o, l))
            .boxed(),
        (out(), length)
            .prop_map(|(o, l)| Call::CallOpen(o, l))
            .boxed(),
        (number(), select(vec![0, 1, 3, 2 << 20]))
            .prop_map(|(c, b)| Call::CallWrite(c, b))
            .boxed(),
        number().prop_map(Call::CallFinish).boxed(),
        number().prop_map(Call::CallReplyHeader).boxed(),
        (number(), select(vec![0, 5, 4096]))
            .prop_map(|(c, m)| Call::CallRead(c, m))
            .boxed(),
        number().prop_map(Call::CallClose).boxed(),
        Just(Call::CallFailureKind).boxed(),
    ]
}

/// A good call.
fn opened() -> BoxedStrategy<Out> {
    let target = bytes(&["/out", "/out?a=b"]);
    let out = target.prop_map(|target| Out {
        upstream: b"calls".to_vec(),
        method: b"POST".to_vec(),
        target,
        headers: Vec::new(),
        body_bytes: 0,
    });
    out.boxed()
}

fn of_crypto() -> Vec<BoxedStrategy<Call>> {
    let data = || bytes(&["", "1", "two", "LONG:70000"]);
    let key = || {
        bytes(&[
            "",
            "short",
            "sixteen bytes ok",
            "thirty-two bytes are one more key",
        ])
    };
    // A hash of "1" by bcrypt, of its lowest cost.
    let hash = bytes(&[
        "",
        "no hash",
        "$2b$04$abcdefghijklmnopqrstuuXOFjBbxfGrjEHOlR2cDRXGLlXYJHGaS",
    ]);
    vec![
        (select(vec![0, 1, 2, 9]), data())
            .prop_map(|(a, d)| Call::Digest(a, d))
            .boxed(),
        (select(vec![0, 1, 2, 9]), key(), data())
            .prop_map(|(a, k, d)| Call::Hmac(a, k, d))
            .boxed(),
        (key(), data(), data())
            .prop_map(|(k, a, p)| Call::Seal(k, a, p))
            .boxed(),
        (key(), data(), data())
            .prop_map(|(k, a, s)| Call::Unseal(k, a, s))
            .boxed(),
        (0..8_u32, key(), data(), data())
            .prop_map(|(a, k, m, s)| Call::SignatureVerify(a, k, m, s))
            .boxed(),
        (hash, data())
            .prop_map(|(h, p)| Call::PasswordVerify(h, p))
            .boxed(),
    ]
}
