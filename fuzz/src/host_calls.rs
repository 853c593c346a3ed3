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
use castling_abi::rules::Rule;
use castling_abi::{ABI_VERSION, EXPORT_CONFIGURE, Hook, IMPORT_MODULE, MANIFEST_SECTION, imports};
use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, CustomSection, DataSection, EntityType, ExportKind,
    ExportSection, Function, FunctionSection, ImportSection, Instruction as Ins, MemArg,
    MemorySection, MemoryType, Module, TypeSection, ValType,
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
    site.load(&guest()).expect("the guest is a plugin")
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
    let mut memory = vec![0; MEMORY_BYTES];
    let mut at = CALLS_AT;
    for _ in 0..input.byte() % MAX_CALLS {
        let function = u64::from(input.byte()) % HOST_FUNCTIONS.len() as u64;
        let signature = HOST_FUNCTIONS[function as usize].signature;
        let mut put = |value: u64| {
            memory[at..at + 8].copy_from_slice(&value.to_le_bytes());
            at += 8;
        };
        put(function + 1);
        let count = params(signature).len();
        (0..count).for_each(|_| put(argument(input)));
        (count..MAX_ARGUMENTS).for_each(|_| put(0));
    }
    for (word, slot) in WORDS.iter().zip(memory.chunks_exact_mut(WORD_BYTES)) {
        slot[..word.len()].copy_from_slice(word);
    }
    let rest = input.0;
    let room = &mut memory[REST_AT..CALLS_AT];
    let len = rest.len().min(room.len());
    room[..len].copy_from_slice(&rest[..len]);
    memory
}

/// Reads one byte for an argument that means something, up to nine for one that need not.
fn argument(input: &mut Input<'_>) -> u64 {
    let byte = input.byte();
    let value = u64::from(byte >> 3);
    match byte & 7 {
        // Ids, lengths, levels.
        0 | 1 => value,
        // The place of a word, of what the input has appended, and beyond.
        2 | 3 => (value % WORDS.len() as u64) * WORD_BYTES as u64,
        4 => REST_AT as u64 + value * 8,
        // A length that fits, a place before the end, the largest numbers.
        5 => [200, 404, 1 << 10, 1 << 14, MEMORY_BYTES as u64][value as usize % 5],
        6 => [
            MEMORY_BYTES as u64 - value,
            u64::from(u32::MAX) - value,
            i64::MAX as u64 - value,
            u64::MAX - value,
        ][value as usize % 4],
        _ => input
            .bytes(8)
            .iter()
            .rev()
            .fold(0, |number, &byte| number << 8 | u64::from(byte)),
    }
}

/// Targets of arguments that point somewhere, each at a multiple of [`WORD_BYTES`].
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
const WORD_BYTES: usize = 32;

const REST_AT: usize = WORDS.len() * WORD_BYTES;
const CALLS_AT: usize = MEMORY_BYTES / 2;
const MEMORY_BYTES: usize = 0x1_0000;
const MAX_CALLS: u8 = 100;
const MAX_ARGUMENTS: usize = 10;
const CALL_BYTES: usize = 8 * (1 + MAX_ARGUMENTS);
const MEMORY_VAR: &str = "memory";
/// Name of a variable that the guest computes.
const VARIABLE: &str = "v";

/// A module whose hooks make the calls that its memory lists.
fn guest() -> Vec<u8> {
    let mut types = TypeSection::new();
    let mut functions_imported = ImportSection::new();
    for (
        idx,
        Rule {
            name, signature, ..
        },
    ) in (0..).zip(HOST_FUNCTIONS)
    {
        let result = signature
            .split_once(" -> ")
            .map(|(_, result)| value_type(result));
        assert!(
            params(signature).len() <= MAX_ARGUMENTS,
            "{name} has more arguments"
        );
        types.ty().function(params(signature), result);
        functions_imported.import(IMPORT_MODULE, name, EntityType::Function(idx));
    }
    let count = HOST_FUNCTIONS.len() as u32;
    let (configure, one_call, hook) = (count, count + 1, count + 2);
    types.ty().function([], [ValType::I32]);
    types.ty().function([ValType::I32], []);
    types.ty().function([ValType::I32; 3], [ValType::I32]);
    let mut functions = FunctionSection::new();
    let mut code = CodeSection::new();
    for (idx, body) in [
        (configure, body(0, &[Ins::I32Const(0)])),
        (one_call, make_one_call()),
        (hook, make_all_calls(one_call)),
    ] {
        functions.function(idx);
        code.function(&body);
    }
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    exports.export(EXPORT_CONFIGURE, ExportKind::Func, configure);
    for implemented in Hook::ALL {
        exports.export(implemented.export(), ExportKind::Func, hook);
    }
    let mut data = DataSection::new();
    data.active(0, &ConstExpr::i32_const(0), MEMORY_VAR.bytes());
    let hooks: Vec<String> = Hook::ALL
        .iter()
        .map(|hook| format!("{:?}", hook.name()))
        .collect();
    let manifest = format!(
        r#"{{"abi":{ABI_VERSION},"name":"x","version":"1.0.0","sdk":"0","hooks":[{}],"variables":["{VARIABLE}"],"timer":{{"every_ms":1000,"on":"workers"}}}}"#,
        hooks.join(",")
    );

    let mut module = Module::new();
    module
        .section(&types)
        .section(&functions_imported)
        .section(&functions);
    module
        .section(&memories)
        .section(&exports)
        .section(&code)
        .section(&data);
    module.section(&CustomSection {
        name: MANIFEST_SECTION.into(),
        data: manifest.as_bytes().into(),
    });
    module.finish()
}

/// Fetches the memory, then goes through the calls in it. Returns what the host gave it as its second argument.
fn make_all_calls(one_call: u32) -> Function {
    const AT: u32 = 3;
    body(
        1,
        &[
            Ins::I32Const(0),
            Ins::I32Const(MEMORY_VAR.len() as i32),
            Ins::I32Const(0),
            Ins::I32Const(MEMORY_BYTES as i32),
            Ins::Call(index_of(imports::VAR_GET)),
            Ins::Drop,
            Ins::I32Const(CALLS_AT as i32),
            Ins::LocalSet(AT),
            Ins::Loop(BlockType::Empty),
            Ins::LocalGet(AT),
            Ins::Call(one_call),
            Ins::LocalGet(AT),
            Ins::I32Const(CALL_BYTES as i32),
            Ins::I32Add,
            Ins::LocalTee(AT),
            Ins::I32Const((MEMORY_BYTES - CALL_BYTES) as i32),
            Ins::I32LeU,
            Ins::BrIf(0),
            Ins::End,
            Ins::LocalGet(1),
        ],
    )
}

/// Makes the call at the address that is its argument: a switch over all functions, of which 0 and what is beyond the last
/// do nothing.
fn make_one_call() -> Function {
    let count = HOST_FUNCTIONS.len() as u32;
    // The outermost block ends the switch, each other one is left to make a call.
    let mut instructions = vec![Ins::Block(BlockType::Empty); count as usize + 1];
    instructions.push(Ins::LocalGet(0));
    instructions.push(Ins::I32Load(at_offset(0)));
    let targets: Vec<u32> = std::iter::once(count).chain(0..count).collect();
    instructions.push(Ins::BrTable(targets.into(), count));
    for (idx, Rule { signature, .. }) in (0..).zip(HOST_FUNCTIONS) {
        instructions.push(Ins::End);
        for (position, ty) in (1..).zip(params(signature)) {
            instructions.push(Ins::LocalGet(0));
            instructions.push(match ty {
                ValType::I32 => Ins::I32Load(at_offset(8 * position)),
                ValType::I64 => Ins::I64Load(at_offset(8 * position)),
                ValType::F32 => Ins::F32Load(at_offset(8 * position)),
                ValType::F64 => Ins::F64Load(at_offset(8 * position)),
                ValType::V128 | ValType::Ref(_) => panic!("no call takes such a thing"),
            });
        }
        instructions.push(Ins::Call(idx));
        if signature.contains("->") {
            instructions.push(Ins::Drop);
        }
        instructions.push(Ins::Br(count - 1 - idx));
    }
    instructions.push(Ins::End);
    body(0, &instructions)
}

/// A function with so many locals of type `i32`.
fn body(locals: u32, instructions: &[Ins<'_>]) -> Function {
    let mut function = Function::new([(locals, ValType::I32)]);
    for instruction in instructions {
        function.instruction(instruction);
    }
    function.instruction(&Ins::End);
    function
}

fn at_offset(offset: u64) -> MemArg {
    MemArg {
        offset,
        align: 0,
        memory_index: 0,
    }
}

/// The types in `(i32, i64) -> i32` before the arrow.
fn params(signature: &str) -> impl ExactSizeIterator<Item = ValType> {
    let list = signature.trim_start_matches('(').split(')').next();
    let names = list
        .unwrap_or_default()
        .split(", ")
        .filter(|ty| !ty.is_empty());
    names.map(value_type).collect::<Vec<_>>().into_iter()
}

fn value_type(name: &str) -> ValType {
    match name {
        "i32" => ValType::I32,
        "i64" => ValType::I64,
        "f32" => ValType::F32,
        "f64" => ValType::F64,
        _ => panic!("no call takes {name}"),
    }
}

fn index_of(name: &str) -> u32 {
    let found = HOST_FUNCTIONS.iter().position(|rule| rule.name == name);
    found.expect("the host has it") as u32
}

/// Rest of an input; beyond its end it is zeros.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
