//! Every function of WASI that the gateway offers, with any arguments and any guest memory, in any hook.
//!
//! The guest is made from the gateway's own list of functions, as that of `host_calls` is: an input is a hook, the calls, and what the
//! lower half of memory holds.
//!
//! Holds: no panic; each function has one of the results that are listed here, and no other; what traps is a pointer outside of the guest's
//! memory, `proc_exit` or a limit.

use std::cell::RefCell;

use castling::rig::{Rig, WASI_FUNCTIONS, WASI_MODULE};
use castling_abi::Hook;

use crate::guest::{
    self, Import, Input, Layout, MAX_CALLS, MEMORY_BYTES, MEMORY_VAR, Memory, argument,
};
use crate::site::Site;

/// Runs one input. Says whether the hook came to its end, without a trap.
pub fn run(data: &[u8]) -> bool {
    thread_local! {
        static RIG: RefCell<Rig> = RefCell::new(rig());
    }
    RIG.with_borrow_mut(|rig| drive(rig, data))
}

fn rig() -> Rig {
    let site = Site::new(
        r#"isolation = "request"
limits = { memory = "1MiB", cpu = "1s" }"#,
    );
    let all = WASI_FUNCTIONS.iter().map(|(name, signature)| Import {
        module: WASI_MODULE,
        name,
        signature,
        results: Some(results(name)),
    });
    let module = guest::module(Layout::ONE_PAGE, &all.collect::<Vec<_>>());
    site.load(&module).expect("the guest is a plugin")
}

fn drive(rig: &mut Rig, data: &[u8]) -> bool {
    let mut input = Input(data);
    let hook = Hook::ALL[usize::from(input.byte()) % Hook::ALL.len()];
    rig.begin(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", 1)
        .expect("this head is valid");
    rig.set_var(MEMORY_VAR, memory(&mut input));
    match rig.call(hook, (0, 0, 0), 1) {
        Ok(returned) => {
            assert_eq!(returned, 0, "a result that the function may not have");
            true
        }
        Err(trap) => {
            let is_told = ["outside of its memory", "proc_exit", "limits."];
            assert!(is_told.iter().any(|fact| trap.contains(fact)), "{trap}");
            false
        }
    }
}

fn memory(input: &mut Input<'_>) -> Vec<u8> {
    let words: Vec<&[u8]> = WORDS.iter().map(|word| &word[..]).collect();
    let mut memory = Memory::new(&words);
    for _ in 0..input.byte() % MAX_CALLS {
        let function = usize::from(input.byte()) % WASI_FUNCTIONS.len();
        let count = guest::params(WASI_FUNCTIONS[function].1).len();
        let arguments: Vec<u64> = (0..count).map(|_| argument(input, WORDS.len())).collect();
        memory.push_call(function, &arguments);
    }
    memory.with_rest(WORDS.len(), input.0)
}

/// Results that a function of this name may have.
fn results(name: &str) -> &'static [i32] {
    const SUCCESS: i32 = 0;
    const BADF: i32 = 8;
    const INVAL: i32 = 28;
    const SPIPE: i32 = 70;
    match name {
        "fd_close" | "fd_prestat_get" | "fd_prestat_dir_name" => &[BADF],
        "fd_seek" => &[BADF, SPIPE],
        "fd_fdstat_get" | "fd_write" => &[SUCCESS, BADF],
        "clock_res_get" | "clock_time_get" | "random_get" => &[SUCCESS, INVAL],
        "args_get" | "args_sizes_get" | "environ_get" | "environ_sizes_get" | "sched_yield" => {
            &[SUCCESS]
        }
        // Nothing is returned by what does not return.
        "proc_exit" => &[],
        _ => panic!("what may {name} come to?"),
    }
}

/// Lists of pieces, `iovec`s, and what is in them.
const WORDS: [[u8; 24]; 8] = [
    *b"a line\nand one more\n\xff\xfe\0\x1b",
    // Two pieces of the first word; the second one begins no line.
    pieces([(0, 7), (7, 3), (0, 0)]),
    // Pieces that end at the end of memory, and behind it.
    pieces([
        (MEMORY_BYTES as u32 - 4, 4),
        (MEMORY_BYTES as u32, 0),
        (MEMORY_BYTES as u32 - 4, 5),
    ]),
    pieces([(u32::MAX, u32::MAX), (0, 0), (0, 0)]),
    // More than one call takes, and all of memory twice.
    pieces([(0, 16 * 1024), (0, 1), (0, 7)]),
    pieces([(0, MEMORY_BYTES as u32), (0, MEMORY_BYTES as u32), (0, 0)]),
    // The list itself.
    pieces([(192, 24), (192, 24), (192, 24)]),
    pieces([(0, 0), (0, 0), (u32::MAX - 1, 1)]),
];

/// Three pieces: pointers and lengths.
const fn pieces(list: [(u32, u32); 3]) -> [u8; 24] {
    let mut bytes = [0; 24];
    let mut at = 0;
    while at < bytes.len() {
        let (ptr, len) = list[at / 8];
        let word = if at % 8 < 4 { ptr } else { len };
        bytes[at] = word.to_le_bytes()[at % 4];
        at += 1;
    }
    bytes
}
