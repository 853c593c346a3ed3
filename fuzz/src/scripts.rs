//! Scripts of host calls in the gateway's runtime and in the fake host of the SDK's tests: what one answers, the other does.
//!
//! An input is numbers that calls are drawn with, as for the scripts of `tests/tests/scripts.rs` and of the same names and values. The
//! calls of up to four hooks of one exchange are made by a guest without an SDK, and by a plugin in the fake host. What waits for the
//! flow (calls out, bodies that are read, parts that are emitted, streamed responses, delays, flights, connections) is left out, as there is no
//! flow here: those the scripts of whole exchanges have. So are variables that are computed, and properties that a route sets.
//!
//! Holds: each call comes to the same.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use castling::rig::{HOST_FUNCTIONS, Rig};
use castling_abi::{Hook, IMPORT_MODULE, PeerOutcome, Property, rules};
use castling_sdk::prelude::*;
use castling_sdk::script::Call;
use castling_sdk::testing::{self, Exchange, FakePeer, ZoneFault};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::calls::{KINDS, call};
use crate::guest::{self, CALL_BYTES, Import, Layout, MEMORY_VAR};
use crate::lowered::{Argument, Lowered};
use crate::site::Site;

/// Runs one input. Says how many calls it has made.
pub fn run(data: &[u8]) -> usize {
    thread_local! {
        static RIG: RefCell<Option<Rig>> = const { RefCell::new(None) };
        static NUMBER: Cell<u32> = const { Cell::new(0) };
    }
    RIG.with_borrow_mut(|rig| {
        let mut compared = || {
            let number = NUMBER.get();
            NUMBER.set(number + 1);
            // Zones have an end, where those of the fake host have none.
            if number.is_multiple_of(INPUTS_OF_RIG) {
                *rig = None;
            }
            let script = script(data, number);
            let real = in_gateway(rig.get_or_insert_with(make_rig), &script);
            (real, in_fake(&script))
        };
        let (mut real, mut fake) = compared();
        if real != fake {
            // A window or an entry may have ended between two calls of the first one.
            (real, fake) = compared();
        }
        for (real, fake) in real.iter().zip(&fake) {
            assert_eq!(real, fake, "the gateway, and the fake host");
        }
        assert_eq!(real.len(), fake.len(), "calls were made");
        real.len()
    })
}

/// Hooks and their calls.
type Script = Vec<(Hook, Vec<Call>)>;

/// Reads a hook or a call of four bytes each: the numbers that a call is drawn with, so that an input of which some have changed, come or
/// gone is a script of which those calls have.
fn script(data: &[u8], number: u32) -> Script {
    let calls = call(number, 0);
    let mut script: Script = Vec::new();
    let mut next_hook = 0;
    for token in data.as_chunks::<4>().0 {
        if script.is_empty() || token[0].is_multiple_of(16) {
            next_hook += usize::from(token[1] % 5);
            if next_hook >= HOOKS.len() || script.len() == MAX_HOOKS {
                break;
            }
            script.push((HOOKS[next_hook], Vec::new()));
            next_hook += 1;
            continue;
        }
        let seed: Vec<u8> = token.iter().copied().cycle().take(SEED_BYTES).collect();
        let random = TestRng::from_seed(RngAlgorithm::XorShift, &seed);
        let mut runner = TestRunner::new_with_rng(Config::default(), random);
        let drawn = calls.new_tree(&mut runner).expect("it is never empty");
        let call = drawn.current();
        let listed = script.last_mut().map(|(_, calls)| calls);
        if let Some(listed) = listed.filter(|listed| listed.len() < MAX_CALLS)
            && !is_of_flow(&call)
            && Lowered::of(&call).is_some()
        {
            listed.push(call);
        }
    }
    script
}

/// In the order in which a request meets them.
const HOOKS: [Hook; 12] = [
    Hook::PostRead,
    Hook::Rewrite,
    Hook::Preaccess,
    Hook::Access,
    Hook::Content,
    Hook::Balance,
    Hook::PeerDone,
    Hook::RequestBody,
    Hook::ResponseHeaders,
    Hook::ResponseBody,
    Hook::Log,
    Hook::AfterResponse,
];

fn is_of_flow(call: &Call) -> bool {
    let of_route = [Property::Route as u32, Property::Upstream as u32];
    match call {
        Call::PropertyGet(id) => of_route.contains(id),
        _ => {
            let function = Lowered::of(call).map(|lowered| lowered.function);
            function
                .and_then(rules::find)
                .is_some_and(|rule| rule.waits)
        }
    }
}

const MAX_CALLS: usize = 16;
const MAX_HOOKS: usize = 4;
/// Bytes of the generator's state.
const SEED_BYTES: usize = 16;
const INPUTS_OF_RIG: u32 = 64;

// The gateway.

fn make_rig() -> Rig {
    let all = HOST_FUNCTIONS.iter().map(|rule| Import {
        module: IMPORT_MODULE,
        name: rule.name,
        signature: rule.signature,
        results: None,
    });
    let module = guest::module(LAYOUT, &all.collect::<Vec<_>>());
    let site = Site::with_config(CONFIG);
    site.load(&module).expect("the guest is a plugin")
}

/// The name of the memory's variable is at its begin, calls follow, and behind them is room for what calls hand out.
const LAYOUT: Layout = Layout {
    // Room for values of 2 MiB in each call.
    pages: 32 * MAX_CALLS as u32 + 8,
    calls_at: 64,
    // The last call hands out the memory.
    calls: MAX_CALLS + 1,
};
const ROOM_BYTES: usize = 2048;
const ROOMS_AT: usize = LAYOUT.calls_end();
const ARGUMENTS_AT: usize = ROOMS_AT + MAX_CALLS * ROOM_BYTES;

fn in_gateway(rig: &mut Rig, script: &Script) -> Vec<String> {
    rig.begin(HEAD, PEERS).expect("this head is valid");
    let mut lines = Vec::new();
    for (hook, calls) in script {
        rig.set_chunk(CHUNK.to_vec());
        rig.set_var(MEMORY_VAR, memory(calls));
        let args = match hook {
            Hook::Balance => (PEERS as u32, 0, 0),
            Hook::RequestBody | Hook::ResponseBody => (CHUNK.len() as u32, 1, 0),
            _ => (0, 0, 0),
        };
        if let Err(error) = rig.call(*hook, args, 1) {
            panic!("{}: {error}", hook.name());
        }
        let memory = rig.kv("results", MEMORY_VAR.as_bytes());
        let memory = memory.expect("the guest has handed out its memory");
        lines.extend(results(*hook, calls, &memory));
        rig.check_exchange();
    }
    lines
}

fn memory(calls: &[Call]) -> Vec<u8> {
    let mut memory = vec![0; ARGUMENTS_AT];
    memory[..MEMORY_VAR.len()].copy_from_slice(MEMORY_VAR.as_bytes());
    for (idx, call) in calls.iter().enumerate() {
        let lowered = Lowered::of(call).expect("others are left out");
        put_call(&mut memory, idx, idx, &lowered);
    }
    let hand_out = Lowered {
        function: rules::KV_PUT.name,
        arguments: vec![
            Argument::Bytes(b"results".to_vec()),
            Argument::Bytes(MEMORY_VAR.as_bytes().to_vec()),
            Argument::Number(0),
            Argument::Number(ARGUMENTS_AT as u64),
            Argument::Number(0),
            Argument::Number(0),
            Argument::Number(0),
            Argument::Number(0),
        ],
    };
    put_call(&mut memory, MAX_CALLS, 0, &hand_out);
    memory
}

/// Writes a call at a place in the list, and its arguments behind all that is there.
fn put_call(memory: &mut Vec<u8>, at: usize, room: usize, lowered: &Lowered) {
    let function = HOST_FUNCTIONS
        .iter()
        .position(|rule| rule.name == lowered.function);
    let mut numbers = Vec::new();
    let room = (ROOMS_AT + room * ROOM_BYTES) as u64;
    for argument in &lowered.arguments {
        match argument {
            Argument::Number(number) => numbers.push(*number),
            Argument::Bytes(bytes) => {
                numbers.extend([memory.len() as u64, bytes.len() as u64]);
                memory.extend(bytes);
            }
            Argument::Room => numbers.extend([room, ROOM_BYTES as u64]),
            Argument::RoomOf(bytes) => numbers.extend([room, *bytes as u64]),
            Argument::NumberRoom => numbers.push(room),
        }
    }
    let call = guest::call(function.expect("the host has it"), &numbers);
    let place = LAYOUT.calls_at + at * CALL_BYTES;
    memory[place..place + CALL_BYTES].copy_from_slice(&call);
}

/// Lines of what the calls have left in the memory.
fn results(hook: Hook, calls: &[Call], memory: &[u8]) -> Vec<String> {
    let line = |(idx, call): (usize, &Call)| {
        let at = LAYOUT.result_at(idx);
        let result = memory[at..].first_chunk().copied().unwrap_or_default();
        let result = i64::from_le_bytes(result);
        let room = &memory[ROOMS_AT + idx * ROOM_BYTES..][..ROOM_BYTES];
        let lowered = Lowered::of(call).expect("others are left out");
        let bytes = lowered.handed_out(result, room);
        told(hook, call, call.line(result, bytes.as_deref()))
    };
    calls.iter().enumerate().map(line).collect()
}

fn told(hook: Hook, call: &Call, came_to: String) -> String {
    format!("{} {call:?} = {came_to}", hook.name())
}

const HEAD: &[u8] = b"POST /a/b?c=d HTTP/1.1\r\nhost: example.com\r\nx-a: 1\r\nx-b: 2\r\n\r\n";
const CHUNK: &[u8] = b"a chunk of a body";
const PEERS: usize = 3;

const CONFIG: &str = r#"
[plugins.x]
wasm = "x.wasm"
grants = { upstreams = ["app", "calls"], zones = ["scripts", "results", "kv", "counter", "gauge", "topic"] }
limits = { cpu = "10s", memory = "64MiB" }

[zones]
scripts = { kind = "kv", size = "1MiB" }
results = { kind = "kv", size = "16MiB" }
kv = { kind = "kv", size = "16MiB" }
counter = { kind = "counter", size = "1MiB" }
gauge = { kind = "gauge", size = "64KiB" }
topic = { kind = "topic", size = "64KiB" }

[upstreams.app]
peers = ["192.0.2.1:80"]

[upstreams.calls]
peers = ["192.0.2.1:80"]

[listeners.web]
bind = "127.0.0.1:8080"

[[routes]]
upstream = "app"
"#;

// The fake host.

thread_local! {
    /// Calls of the hook that is to run, and what they have come to.
    static CALLS: RefCell<Vec<Call>> = const { RefCell::new(Vec::new()) };
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Lines of the same, on a thread of its own, which has a host of its own.
fn in_fake(script: &Script) -> Vec<String> {
    let script = script.clone();
    let run = std::thread::spawn(move || run_in_fake(script));
    run.join().expect("the fake host does not panic")
}

fn run_in_fake(script: Script) -> Vec<String> {
    for zone in ["nope", "app", "calls"] {
        testing::set_zone_fault(zone, Some(ZoneFault::NotGranted));
    }
    for (zone, kind) in KINDS {
        testing::set_zone_kind(zone, kind);
    }
    let mut exchange = Exchange::new("POST", "/a/b?c=d")
        .header("x-a", "1")
        .header("x-b", "2")
        .grant_upstream("app")
        .grant_upstream("calls");
    for idx in 0..PEERS {
        let peer = FakePeer::at(&format!("192.0.2.{idx}:80")).name("app.test:80");
        exchange = exchange.peer(peer.tags(["a".to_owned(), format!("peer-{idx}")]));
    }
    let mut has_response = false;
    for (hook, calls) in script {
        if hook as u32 >= Hook::ResponseHeaders as u32 && !has_response {
            exchange = exchange.response(200);
            has_response = true;
        }
        CALLS.set(calls);
        call_in_fake(hook, &mut exchange);
        // A refusal is told by its line, and is no failure of the test's.
        exchange.refusal();
    }
    LINES.take()
}

fn call_in_fake(hook: Hook, exchange: &mut Exchange) {
    let plugin = &mut Scripted;
    match hook {
        Hook::PostRead => drop(plugin.post_read(exchange.request())),
        Hook::Rewrite => drop(plugin.rewrite(exchange.request())),
        Hook::Preaccess => drop(plugin.preaccess(exchange.request())),
        Hook::Access => drop(plugin.access(exchange.request())),
        Hook::Content => drop(plugin.content(exchange.request())),
        Hook::Balance => {
            let peers = exchange.peers();
            plugin.balance(exchange.request(), &peers);
        }
        Hook::PeerDone => {
            exchange.request();
            plugin.peer_done(0, PeerOutcome::Responded, Duration::ZERO);
        }
        Hook::RequestBody => drop(exchange.pass_chunk(CHUNK, true, |request, chunk| {
            plugin.request_body(request, chunk);
        })),
        Hook::ResponseHeaders => {
            let (request, reply) = exchange.request_and_reply();
            plugin.response_headers(request, reply);
        }
        Hook::ResponseBody => drop(exchange.pass_chunk(CHUNK, true, |request, chunk| {
            plugin.response_body(request, chunk);
        })),
        Hook::Log => {
            let outcome = exchange.outcome();
            plugin.log(exchange.request(), &outcome);
        }
        Hook::AfterResponse => {
            let outcome = exchange.outcome();
            plugin.after_response(exchange.request(), &outcome);
        }
        Hook::Variable | Hook::Timer | Hook::Message => {
            panic!("it is none of those that are drawn")
        }
    }
}

#[derive(Debug, Default)]
struct Scripted;

#[plugin]
impl Scripted {
    fn post_read(&self, _: &mut Request) -> Verdict {
        perform(Hook::PostRead)
    }

    fn rewrite(&self, _: &mut Request) -> Verdict {
        perform(Hook::Rewrite)
    }

    fn preaccess(&self, _: &mut Request) -> Verdict {
        perform(Hook::Preaccess)
    }

    fn access(&self, _: &mut Request) -> Verdict {
        perform(Hook::Access)
    }

    fn content(&self, _: &mut Request) -> Verdict {
        perform(Hook::Content)
    }

    fn balance(&mut self, _: &Request, _: &Peers) -> Option<usize> {
        perform(Hook::Balance);
        None
    }

    fn peer_done(&mut self, _: usize, _: PeerOutcome, _: Duration) {
        perform(Hook::PeerDone);
    }

    fn request_body(&self, _: &Request, _: &mut Chunk) {
        perform(Hook::RequestBody);
    }

    fn response_headers(&self, _: &Request, _: &mut Reply) {
        perform(Hook::ResponseHeaders);
    }

    fn response_body(&self, _: &Request, _: &mut Chunk) {
        perform(Hook::ResponseBody);
    }

    fn log(&self, _: &Request, _: &Outcome) {
        perform(Hook::Log);
    }

    fn after_response(&self, _: &Request, _: &Outcome) {
        perform(Hook::AfterResponse);
    }
}

fn perform(hook: Hook) -> Verdict {
    for call in CALLS.take() {
        let line = told(hook, &call, call.perform());
        LINES.with_borrow_mut(|lines| lines.push(line));
    }
    Verdict::Continue
}
