//! The table: a rule for each call, in the order of [`ALL`].

use super::{Hooks, Place, Rule, Stage};
use crate::{HeaderMap, Hook, imports};

/// Writes the rules: name, type, place, and what else is to be said of the call.
macro_rules! rules {
    ($($name:ident: $signature:literal, $place:expr $(=> $more:ident)?;)+) => {
        $(
            #[doc = concat!("Rule of [`imports::", stringify!($name), "`].")]
            pub const $name: Rule = Rule::new(imports::$name, $signature, $place)$(.$more())?;
        )+

        /// Every rule.
        pub const ALL: &[Rule] = &[$($name),+];
    };
}

rules! {
    LOG: "(i32, i32, i32)", EVERYWHERE;
    LOG_FIELDS: "(i32, i32, i32, i32, i32)", EVERYWHERE;
    FAIL: "(i32, i32)", EVERYWHERE;
    FAIL_WITH: "(i32, i32, i32)", EVERYWHERE;
    PANICKED: "(i32, i32)", EVERYWHERE;
    CONFIG_GET: "(i32, i32) -> i32", EVERYWHERE;
    RANDOM_GET: "(i32, i32)", EVERYWHERE;
    CLOCK_MONOTONIC: "() -> i64", EVERYWHERE;
    CLOCK_WALL: "() -> i64", EVERYWHERE;
    PROPERTY_GET: "(i32, i32, i32) -> i32", WITH_REQUEST => not_found_elsewhere;
    PROPERTY_SET: "(i32, i32, i32) -> i32", HEAD_OPEN;
    NUMBER_GET: "(i32) -> i64", WITH_REQUEST => not_found_elsewhere;
    TLS_GET: "(i32, i32, i32) -> i32", EVERYWHERE;
    HEADER_GET: "(i32, i32, i32, i32, i32) -> i32", WITH_REQUEST => not_found_elsewhere;
    HEADERS_GET: "(i32, i32, i32, i32, i32) -> i32", WITH_REQUEST => not_found_elsewhere;
    HEADER_SET: "(i32, i32, i32, i32, i32) -> i32", HEAD_OPEN.or(&[Stage::Reply], REPLY);
    HEADER_ADD: "(i32, i32, i32, i32, i32) -> i32", HEAD_OPEN.or(&[Stage::Reply], REPLY);
    HEADER_REMOVE: "(i32, i32, i32) -> i32", HEAD_OPEN.or(&[Stage::Reply], REPLY);
    STATUS_GET: "() -> i32", WITH_REPLY => not_found_elsewhere;
    STATUS_SET: "(i32) -> i32", REPLY_OPEN;
    VAR_GET: "(i32, i32, i32, i32) -> i32", EVERYWHERE;
    VAR_SET: "(i32, i32, i32, i32) -> i32", WITH_REQUEST;
    ANSWER: "(i32, i32, i32, i32, i32) -> i32", MAY_ANSWER;
    CHUNK_GET: "(i32, i32) -> i32", BODIES;
    CHUNK_SET: "(i32, i32) -> i32", BODIES;
    BODY_READ: "(i32, i32) -> i32", READS_REQUEST_BODY.or(&[Stage::Reply], REPLY_OR_VARIABLE) => waiting;
    BODY_GET: "(i32, i32, i32) -> i32", EVERYWHERE;
    CALLS_SEND: "(i32, i32) -> i32", MAY_WAIT => waiting;
    CALL_STATUS: "(i32) -> i32", EVERYWHERE;
    CALL_ERROR: "(i32, i32, i32) -> i32", EVERYWHERE;
    CALL_ERROR_KIND: "(i32) -> i32", EVERYWHERE;
    CALL_HEADERS: "(i32, i32, i32) -> i32", EVERYWHERE;
    CALL_BODY: "(i32, i32, i32) -> i32", EVERYWHERE;
    DELAY: "(i32) -> i32", MAY_WAIT => waiting;
    COUNTER_ADD: "(i32, i32, i32, i32, i64, i64) -> i64", EVERYWHERE;
    COUNTER_GET: "(i32, i32, i32, i32) -> i64", EVERYWHERE;
    RATE_TAKE: "(i32, i32, i32, i32, i64, i64) -> i64", EVERYWHERE;
    GRANT_CHECK: "(i32, i32, i32) -> i32", EVERYWHERE;
    PEERS_GET: "(i32, i32) -> i32", BALANCE;
    PEERS_DRAW: "(i32, i32) -> i32", BALANCE;
    PEER_ADDRESS: "(i32, i32, i32) -> i32", BALANCE;
    PEER_NAME: "(i32, i32, i32) -> i32", BALANCE;
    PEER_TAGS: "(i32, i32, i32) -> i32", BALANCE;
    KV_GET: "(i32, i32, i32, i32, i32, i32) -> i32", EVERYWHERE;
    KV_PUT: "(i32, i32, i32, i32, i32, i32, i64, i32, i32, i32) -> i32", EVERYWHERE;
    KV_DELETE: "(i32, i32, i32, i32, i32, i32, i32) -> i32", EVERYWHERE;
    KV_LIST: "(i32, i32, i32, i32, i32, i32, i32, i32, i32) -> i32", EVERYWHERE;
    METRIC_DEFINE: "(i32, i32) -> i32", CONFIGURE;
    METRIC_SERIES: "(i32, i32, i32) -> i32", EVERYWHERE;
    METRIC_ADD: "(i32, f64) -> i32", EVERYWHERE;
    METRIC_SET: "(i32, f64) -> i32", EVERYWHERE;
    METRIC_OBSERVE: "(i32, f64) -> i32", EVERYWHERE;
    VAR_COMPUTE: "(i32, i32) -> i32", MAY_COMPUTE => waiting;
    CHUNK_END: "() -> i32", BODIES;
    CONFIG_GRANT: "(i32, i32, i32) -> i32", CONFIGURE;
    UPSTREAM_SET: "(i32, i32) -> i32", HEAD_OPEN;
    CHUNK_EMIT: "(i32, i32) -> i32", BODIES => waiting;
    BODY_PEEK: "(i32) -> i64", READS_REQUEST_BODY => waiting;
    BODY_SKIP: "() -> i32", REPLY_OPEN;
    RESPONSE_BEGIN: "(i32, i32, i32, i64) -> i32", Place::at(&[Stage::Request], CONTENT) => waiting;
    RESPONSE_WRITE: "(i32, i32) -> i32", STREAMING => waiting;
    RESPONSE_TRAILERS: "(i32, i32) -> i32", STREAMING;
    KV_GET_WITH_TTL: "(i32, i32, i32, i32, i32, i32, i32) -> i32", EVERYWHERE;
    KV_INCREMENT: "(i32, i32, i32, i32, i64, i64, i32) -> i32", EVERYWHERE;
    KV_GET_ALL: "(i32, i32, i32, i32, i32, i32) -> i32", EVERYWHERE;
    KV_PUT_ALL: "(i32, i32, i32, i32, i64) -> i32", EVERYWHERE;
    KV_DELETE_ALL: "(i32, i32, i32, i32) -> i32", EVERYWHERE;
    STATE_GET: "(i32, i32) -> i32", WITH_REQUEST;
    STATE_SET: "(i32, i32) -> i32", WITH_REQUEST;
    GAUGE_ENTER: "(i32, i32, i32, i32, i32) -> i32", WITH_REQUEST;
    GAUGE_LEAVE: "(i32, i32, i32, i32) -> i32", EVERYWHERE;
    GAUGE_COUNT: "(i32, i32, i32, i32) -> i64", EVERYWHERE;
    KV_FLIGHT: "(i32, i32, i32, i32, i32) -> i32", MAY_WAIT_WITH_REQUEST => waiting;
    KV_FLIGHT_END: "(i32, i32, i32, i32) -> i32", EVERYWHERE;
    FILE_OPEN: "(i32, i32) -> i32", EVERYWHERE;
    FILE_FACT: "(i32, i32) -> i64", EVERYWHERE;
    FILE_READ: "(i32, i64, i32, i32) -> i32", EVERYWHERE;
    DIGEST: "(i32, i32, i32, i32, i32) -> i32", EVERYWHERE;
    HMAC: "(i32, i32, i32, i32, i32, i32, i32) -> i32", EVERYWHERE;
    SEAL: "(i32, i32, i32, i32, i32, i32, i32, i32) -> i32", EVERYWHERE;
    UNSEAL: "(i32, i32, i32, i32, i32, i32, i32, i32) -> i32", EVERYWHERE;
    SIGNATURE_VERIFY: "(i32, i32, i32, i32, i32, i32, i32) -> i32", EVERYWHERE;
    PASSWORD_HASH: "(i32, i32, i32, i32, i32) -> i32", MAY_WAIT => waiting;
    PASSWORD_VERIFY: "(i32, i32, i32, i32) -> i32", MAY_WAIT => waiting;
    TCP_CONNECT: "(i32, i32, i32) -> i32", MAY_WAIT => waiting;
    TCP_READ: "(i32, i32, i32, i32) -> i32", MAY_WAIT => waiting;
    TCP_WRITE: "(i32, i32, i32, i32) -> i32", MAY_WAIT => waiting;
    TCP_CLOSE: "(i32) -> i32", MAY_WAIT => waiting;
    TCP_ERROR: "(i32, i32) -> i32", EVERYWHERE;
    CALL_OPEN: "(i32, i32, i64) -> i32", MAY_WAIT => waiting;
    CALL_WRITE: "(i32, i32, i32) -> i32", MAY_WAIT => waiting;
    CALL_FINISH: "(i32) -> i32", MAY_WAIT => waiting;
    CALL_REPLY_HEADERS: "(i32, i32, i32) -> i32", EVERYWHERE;
    CALL_READ: "(i32, i32, i32) -> i32", MAY_WAIT => waiting;
    CALL_CLOSE: "(i32) -> i32", MAY_WAIT => waiting;
    CALL_FAILURE: "(i32, i32) -> i32", EVERYWHERE;
    CALL_FAILURE_KIND: "() -> i32", EVERYWHERE;
    TOPIC_PUBLISH: "(i32, i32, i32, i32) -> i32", EVERYWHERE;
    TOPIC_NAME: "(i32, i32, i32) -> i32", MESSAGE;
    MESSAGE_GET: "(i32, i32) -> i32", MESSAGE;
    VARIABLE_DECLARE: "(i32, i32) -> i32", CONFIGURE;
}

/// The rule of the call of this name. `None`: there is no such call.
pub fn find(name: &str) -> Option<&'static Rule> {
    ALL.iter().find(|rule| rule.name == name)
}

/// Where fields of this section may be read; elsewhere they are not found. Trailers are there where a body is.
pub const fn reads(section: HeaderMap) -> Place {
    match section {
        HeaderMap::Request => WITH_REQUEST,
        HeaderMap::Response => WITH_REPLY,
        HeaderMap::Trailers => EVERYWHERE,
    }
}

/// Where fields of this section may be changed.
pub const fn changes(section: HeaderMap) -> Place {
    match section {
        HeaderMap::Request => HEAD_OPEN,
        HeaderMap::Response => REPLY_OPEN,
        HeaderMap::Trailers => Place::at(&[], Hooks::ALL),
    }
}

/// Where a body may be read whole.
pub const fn reads_body(section: HeaderMap) -> Place {
    match section {
        HeaderMap::Request => READS_REQUEST_BODY,
        HeaderMap::Response => Place::at(&[Stage::Reply], REPLY_OR_VARIABLE),
        HeaderMap::Trailers => Place::at(&[], Hooks::ALL),
    }
}

/// Where the client's address may be set: later, plugins and limits have taken it for what it was.
pub const SETS_CLIENT_ADDRESS: Place = Place::at(&[Stage::Request], Hooks::of(&[Hook::PostRead]));

/// Hooks before the response.
const PHASES: Hooks = Hooks::of(&[
    Hook::PostRead,
    Hook::Rewrite,
    Hook::Preaccess,
    Hook::Access,
    Hook::Content,
]);

const POST_READ: Hooks = Hooks::of(&[Hook::PostRead]);
const CONTENT: Hooks = Hooks::of(&[Hook::Content]);
const REPLY: Hooks = Hooks::of(&[Hook::ResponseHeaders]);
const VARIABLE: Hooks = Hooks::of(&[Hook::Variable]);
const REPLY_OR_VARIABLE: Hooks = REPLY.and(VARIABLE);
const CHUNKS: Hooks = Hooks::of(&[Hook::RequestBody, Hook::ResponseBody]);

/// Hooks of no request.
const OWN: Hooks = Hooks::of(&[Hook::Timer, Hook::Message]);

/// Hooks of a request.
const OF_REQUESTS: Hooks = Hooks::ALL.but(OWN).but(Hooks::CONFIGURE);

/// Stages that have a request.
const WITH_HEAD: &[Stage] = &[
    Stage::Request,
    Stage::Balance,
    Stage::Reply,
    Stage::Body,
    Stage::Log,
];

const EVERYWHERE: Place = Place::at(&Stage::ALL, Hooks::ALL);
const WITH_REQUEST: Place = Place::at(WITH_HEAD, OF_REQUESTS);
const WITH_REPLY: Place = Place::at(&[Stage::Reply, Stage::Body, Stage::Log], OF_REQUESTS);

/// The request has not been sent. A variable is computed when something happens to ask for it, so it changes nothing.
const HEAD_OPEN: Place = Place::at(&[Stage::Request], PHASES);

/// The response's head has not been sent.
const REPLY_OPEN: Place = Place::at(&[Stage::Reply], REPLY);

const MAY_ANSWER: Place = Place::at(&[Stage::Request], PHASES)
    .or(
        &[Stage::Request, Stage::Balance],
        Hooks::of(&[Hook::RequestBody]),
    )
    .or(&[Stage::Reply], REPLY);

const BODIES: Place = Place::at(WITH_HEAD, CHUNKS);

/// The limit of its route holds for a body, which `post_read` comes before.
const READS_REQUEST_BODY: Place = Place::at(&[Stage::Request], PHASES.but(POST_READ).and(VARIABLE));

/// While a `content` hook writes its response it may wait, too; a variable may where the hook that asks for it may.
const MAY_WAIT_WITH_REQUEST: Place = READS_REQUEST_BODY
    .or(&[Stage::Body], CONTENT.and(VARIABLE))
    .or(&[Stage::Reply], REPLY_OR_VARIABLE)
    .or(&[Stage::Log], Hooks::of(&[Hook::AfterResponse]));

const MAY_WAIT: Place = MAY_WAIT_WITH_REQUEST.or(&[Stage::Idle], OWN);

const MAY_COMPUTE: Place = Place::at(
    WITH_HEAD,
    OF_REQUESTS.but(Hooks::of(&[
        Hook::RequestBody,
        Hook::Balance,
        Hook::PeerDone,
    ])),
);

const BALANCE: Place = Place::at(
    &[Stage::Balance],
    Hooks::of(&[Hook::Balance, Hook::PeerDone]),
);

const STREAMING: Place = Place::at(&[Stage::Body], CONTENT);
const CONFIGURE: Place = Place::at(&[Stage::Idle], Hooks::CONFIGURE);
const MESSAGE: Place = Place::at(&[Stage::Idle], Hooks::of(&[Hook::Message]));
