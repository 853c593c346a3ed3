//! Every host call, with any arguments and any guest memory, at any stage of an exchange.
//!
//! The guest is made from the host's own list of functions, so none can be forgotten. Its hooks fetch the guest's whole memory
//! from a variable and then make the calls that are listed in its upper half. So an input is: what hook to call, what the flow
//! supplies, the calls, and what the lower half of memory holds.
//!
//! Holds: no panic; every pointer and length is inside or traps; and what the calls have left in the exchange is, once
//! written, read as the one message that it is.

use std::cell::RefCell;

use castling::rig::{HOST_FUNCTIONS, Rig};
use castling_abi::{Hook, IMPORT_MODULE};

use crate::guest::{
    self, Import, Input, Layout, MAX_CALLS, MEMORY_VAR, Memory, VARIABLE, argument,
};
use crate::site::{GAUGE_NAME, KV_NAME, NAME, Site, TOPIC_NAME};

/// Runs one input.
pub fn run(data: &[u8]) {
    thread_local! {
        static RIG: RefCell<Rig> = RefCell::new(rig());
    }
    RIG.with_borrow_mut(|rig| drive(rig, data));
}

fn rig() -> Rig {
    // A fresh instance for each input, or one would leave its memory to the next.
    let site = Site::new(
        r#"isolation = "request"
limits = { memory = "1MiB", body = "16KiB", cpu = "1s", calls = 20 }"#,
    );
    site.load(&module()).expect("the guest is a plugin")
}

fn drive(rig: &mut Rig, data: &[u8]) {
    let mut input = Input(data);
    let hook = Hook::ALL[usize::from(input.byte()) % Hook::ALL.len()];
    let head = HEADS[usize::from(input.byte()) % HEADS.len()];
    rig.begin(head, usize::from(input.byte() % 9))
        .expect("these heads are valid");
    let supplies = input.bytes(4);
    rig.set_supplies(supplies);
    rig.set_chunk(b"a chunk of a body".to_vec());
    // The hook's return value: an action, a peer, or nothing that there is.
    let returned = i32::from(input.byte() as i8);
    rig.set_var(MEMORY_VAR, memory(&mut input));
    let args = (0, returned as u32, 0);
    // A trap or a refusal is what a bad call gets.
    let _ = rig.call(hook, args, 1);
    rig.check_exchange();
}

const HEADS: [&[u8]; 3] = [
    b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    b"POST /a/b?c=d HTTP/1.1\r\nhost: [::1]:80\r\ncontent-length: 5\r\nx-a: 1\r\nx-a: \xa0\r\ncookie: a=b\r\n\r\n",
    b"OPTIONS * HTTP/1.0\r\n\r\n",
];

/// The guest's memory: bytes and addresses that calls may be about in the lower half, calls in the upper one.
fn memory(input: &mut Input<'_>) -> Vec<u8> {
    let mut memory = Memory::new(&WORDS);
    for _ in 0..input.byte() % MAX_CALLS {
        let function = usize::from(input.byte()) % HOST_FUNCTIONS.len();
        let count = guest::params(HOST_FUNCTIONS[function].signature).len();
        let arguments: Vec<u64> = (0..count).map(|_| argument(input, WORDS.len())).collect();
        memory.push_call(function, &arguments);
    }
    memory.with_rest(WORDS.len(), input.0)
}

/// Targets of arguments that point somewhere, each at a multiple of [`guest::WORD_BYTES`].
const WORDS: [&[u8]; 24] = [
    NAME.as_bytes(),
    b"x-a",
    b"Host",
    b"content-length",
    b"transfer-encoding",
    b"connection",
    b"a\r\nb: c",
    b"/a/../b",
    b"/a?b#c",
    b"a=b",
    b"GET",
    b"CONNECT",
    b"192.0.2.9",
    b"a b",
    b"\xff\xfe\x80",
    b"user",
    b"1",
    // A header list of one record, with `x-a: 1`, and one whose value is longer than it.
    b"\x03\0\x01\0\0\0x-a1",
    b"\x03\0\xff\xff\xff\xffx-a1",
    // A call out: no time-out, upstream x, GET, /, no headers, no body.
    b"\0\0\0\0\x01\0\0\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0xGET/",
    KV_NAME.as_bytes(),
    VARIABLE.as_bytes(),
    GAUGE_NAME.as_bytes(),
    TOPIC_NAME.as_bytes(),
];

/// A module that calls whatever the host has.
fn module() -> Vec<u8> {
    let all = HOST_FUNCTIONS.iter().map(|rule| Import {
        module: IMPORT_MODULE,
        name: rule.name,
        signature: rule.signature,
        results: None,
    });
    guest::module(Layout::ONE_PAGE, &all.collect::<Vec<_>>())
}
