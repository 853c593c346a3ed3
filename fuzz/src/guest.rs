//! A guest whose hooks fetch its memory from a variable and then make the calls that are listed in a part of it: the module, its memory, and
//! the input that both are read from.

use castling_abi::{ABI_VERSION, EXPORT_CONFIGURE, Hook, IMPORT_MODULE, MANIFEST_SECTION, imports};
use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, CustomSection, DataSection, EntityType, ExportKind,
    ExportSection, Function, FunctionSection, ImportSection, Instruction as Ins, MemArg,
    MemorySection, MemoryType, Module, TypeSection, ValType,
};

/// A function that the guest imports.
#[derive(Clone, Copy)]
pub(crate) struct Import {
    pub(crate) module: &'static str,
    pub(crate) name: &'static str,
    /// Type of the function: `(i32, i64) -> i32`.
    pub(crate) signature: &'static str,
    /// Results that it may have. With any other one the hook returns at once, see [`unexpected`]. `None`: all.
    pub(crate) results: Option<&'static [i32]>,
}

/// Value that the hook returns where a function has had a result that it may not have: no action, and no peer. The result's lower
/// half is put into its own.
const fn unexpected(function: u32) -> i32 {
    1 << 30 | (function as i32) << 16
}

/// Where in a guest's memory the calls are.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// Pages of 64 KiB.
    pub(crate) pages: u32,
    /// Address of the first call.
    pub(crate) calls_at: usize,
    /// There is room for so many.
    pub(crate) calls: usize,
}

impl Layout {
    /// Layout of one page, whose upper half is for calls.
    pub(crate) const ONE_PAGE: Self = Self {
        pages: 1,
        calls_at: MEMORY_BYTES / 2,
        calls: MEMORY_BYTES / 2 / CALL_BYTES,
    };

    /// Address of what is behind the calls.
    pub(crate) const fn calls_end(self) -> usize {
        self.calls_at + self.calls * CALL_BYTES
    }

    /// Address of the result that the call with this index leaves, an `i64`.
    pub(crate) const fn result_at(self, call: usize) -> usize {
        self.calls_at + call * CALL_BYTES + RESULT_OFFSET
    }
}

/// Memory of a guest of one page, for the variable [`MEMORY_VAR`].
pub(crate) struct Memory {
    bytes: Vec<u8>,
    /// Address of the next call.
    at: usize,
}

impl Memory {
    /// The words, each at a multiple of [`WORD_BYTES`], and no calls.
    pub(crate) fn new(words: &[&[u8]]) -> Self {
        let mut bytes = vec![0; MEMORY_BYTES];
        for (word, slot) in words.iter().zip(bytes.chunks_exact_mut(WORD_BYTES)) {
            slot[..word.len()].copy_from_slice(word);
        }
        Self {
            bytes,
            at: Layout::ONE_PAGE.calls_at,
        }
    }

    /// Appends a call of the function with this index.
    pub(crate) fn push_call(&mut self, function: usize, arguments: &[u64]) {
        let call = call(function, arguments);
        self.bytes[self.at..self.at + CALL_BYTES].copy_from_slice(&call);
        self.at += CALL_BYTES;
    }

    /// The memory, with what is left of the input behind so many words.
    pub(crate) fn with_rest(mut self, words: usize, rest: &[u8]) -> Vec<u8> {
        let room = &mut self.bytes[words * WORD_BYTES..Layout::ONE_PAGE.calls_at];
        let len = rest.len().min(room.len());
        room[..len].copy_from_slice(&rest[..len]);
        self.bytes
    }
}

/// A call of the function with this index, as it is listed: its number, which is no 0, its arguments, room for its result.
pub(crate) fn call(function: usize, arguments: &[u64]) -> [u8; CALL_BYTES] {
    let mut call = [0; CALL_BYTES];
    let words = [function as u64 + 1];
    let words = words.iter().chain(arguments);
    for (word, room) in words.zip(call[..RESULT_OFFSET].chunks_exact_mut(8)) {
        room.copy_from_slice(&word.to_le_bytes());
    }
    call
}

pub(crate) const WORD_BYTES: usize = 32;
/// Bytes of a guest of one page.
pub(crate) const MEMORY_BYTES: usize = 0x1_0000;
pub(crate) const MAX_CALLS: u8 = 100;
pub(crate) const MEMORY_VAR: &str = "memory";
/// Name of a variable that the guest computes.
pub(crate) const VARIABLE: &str = "v";
const MAX_ARGUMENTS: usize = 10;
const RESULT_OFFSET: usize = 8 * (1 + MAX_ARGUMENTS);
pub(crate) const CALL_BYTES: usize = RESULT_OFFSET + 8;

/// Reads one byte for an argument that means something, up to nine for one that need not. There are so many words.
pub(crate) fn argument(input: &mut Input<'_>, words: usize) -> u64 {
    let byte = input.byte();
    let value = u64::from(byte >> 3);
    match byte & 7 {
        // Ids, lengths, levels.
        0 | 1 => value,
        // The place of a word, of what the input has appended, and beyond.
        2 | 3 => (value % words as u64) * WORD_BYTES as u64,
        4 => (words * WORD_BYTES) as u64 + value * 8,
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

/// A module whose hooks make the calls that its memory lists.
pub(crate) fn module(layout: Layout, listed: &[Import]) -> Vec<u8> {
    let fetch = Import {
        module: IMPORT_MODULE,
        name: imports::VAR_GET,
        signature: "(i32, i32, i32, i32) -> i32",
        results: None,
    };
    let all = || listed.iter().chain([&fetch]);
    let mut types = TypeSection::new();
    let mut functions_imported = ImportSection::new();
    for (idx, import) in (0..).zip(all()) {
        let (name, signature) = (import.name, import.signature);
        assert!(
            params(signature).len() <= MAX_ARGUMENTS,
            "{name} has more arguments"
        );
        types.ty().function(params(signature), result(signature));
        functions_imported.import(import.module, name, EntityType::Function(idx));
    }
    let count = all().count() as u32;
    let (configure, one_call, hook) = (count, count + 1, count + 2);
    types.ty().function([], [ValType::I32]);
    types.ty().function([ValType::I32], [ValType::I32]);
    types.ty().function([ValType::I32; 3], [ValType::I32]);
    let mut functions = FunctionSection::new();
    let mut code = CodeSection::new();
    for (idx, body) in [
        (configure, body(0, &[Ins::I32Const(0)])),
        (one_call, make_one_call(listed)),
        (hook, make_all_calls(layout, count - 1, one_call)),
    ] {
        functions.function(idx);
        code.function(&body);
    }
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    exports.export(EXPORT_CONFIGURE, ExportKind::Func, configure);
    for implemented in Hook::ALL {
        exports.export(implemented.export(), ExportKind::Func, hook);
    }
    let mut data = DataSection::new();
    data.active(0, &ConstExpr::i32_const(0), MEMORY_VAR.bytes());
    let mut module = Module::new();
    module
        .section(&types)
        .section(&functions_imported)
        .section(&functions);
    module
        .section(&memory(layout))
        .section(&exports)
        .section(&code)
        .section(&data);
    module.section(&CustomSection {
        name: MANIFEST_SECTION.into(),
        data: manifest().into_bytes().into(),
    });
    module.finish()
}

fn memory(layout: Layout) -> MemorySection {
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: layout.pages.into(),
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    memories
}

/// A manifest with every hook.
fn manifest() -> String {
    let hooks = Hook::ALL.iter();
    let hooks: Vec<String> = hooks.map(|hook| format!("{:?}", hook.name())).collect();
    format!(
        r#"{{"abi":{ABI_VERSION},"name":"x","version":"1.0.0","sdk":"0","hooks":[{}],"variables":["{VARIABLE}"],"timer":{{"every_ms":1000,"on":"workers"}}}}"#,
        hooks.join(",")
    )
}

/// Fetches the memory, then goes through the calls in it. Returns what the host gave it as its second argument, or what the first call
/// of them that has come to something unexpected came to.
fn make_all_calls(layout: Layout, fetch: u32, one_call: u32) -> Function {
    const AT: u32 = 3;
    const CAME_TO: u32 = 4;
    body(
        2,
        &[
            Ins::I32Const(0),
            Ins::I32Const(MEMORY_VAR.len() as i32),
            Ins::I32Const(0),
            Ins::I32Const((layout.pages << 16) as i32),
            Ins::Call(fetch),
            Ins::Drop,
            Ins::I32Const(layout.calls_at as i32),
            Ins::LocalSet(AT),
            Ins::Loop(BlockType::Empty),
            Ins::LocalGet(AT),
            Ins::Call(one_call),
            Ins::LocalTee(CAME_TO),
            Ins::If(BlockType::Empty),
            Ins::LocalGet(CAME_TO),
            Ins::Return,
            Ins::End,
            Ins::LocalGet(AT),
            Ins::I32Const(CALL_BYTES as i32),
            Ins::I32Add,
            Ins::LocalTee(AT),
            Ins::I32Const(layout.calls_end() as i32),
            Ins::I32LtU,
            Ins::BrIf(0),
            Ins::End,
            Ins::LocalGet(1),
        ],
    )
}

/// Makes the call at the address that is its argument: a switch over all functions, of which 0 and what is beyond the last
/// do nothing. Returns 0 where the function may have that result.
fn make_one_call(listed: &[Import]) -> Function {
    let count = listed.len() as u32;
    // The outermost block ends the switch, each other one is left to make a call.
    let mut instructions = vec![Ins::Block(BlockType::Empty); count as usize + 1];
    instructions.push(Ins::LocalGet(0));
    instructions.push(Ins::I32Load(at_offset(0)));
    let targets: Vec<u32> = std::iter::once(count).chain(0..count).collect();
    instructions.push(Ins::BrTable(targets.into(), count));
    for (idx, import) in (0..).zip(listed) {
        instructions.push(Ins::End);
        for (position, ty) in (1..).zip(params(import.signature)) {
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
        instructions.extend(keep_result(result(import.signature)));
        if let Some(results) = import.results {
            instructions.extend(return_unexpected(idx, results));
        }
        instructions.push(Ins::Br(count - 1 - idx));
    }
    instructions.push(Ins::End);
    instructions.push(Ins::I32Const(0));
    let mut function = Function::new([(1, ValType::I64), (1, ValType::I32)]);
    for instruction in &instructions {
        function.instruction(instruction);
    }
    function.instruction(&Ins::End);
    function
}

/// Takes a result from the stack into its room in the call.
fn keep_result(ty: Option<ValType>) -> Vec<Ins<'static>> {
    const RESULT: u32 = 1;
    let extend = match ty {
        None => return Vec::new(),
        Some(ValType::I32) => Some(Ins::I64ExtendI32S),
        Some(ValType::I64) => None,
        Some(ty) => panic!("no call returns {ty:?}"),
    };
    let store = [
        Ins::LocalSet(RESULT),
        Ins::LocalGet(0),
        Ins::LocalGet(RESULT),
        Ins::I64Store(at_offset(RESULT_OFFSET as u64)),
    ];
    extend.into_iter().chain(store).collect()
}

/// Returns the result that was kept, marked with the function, where it is none of these.
fn return_unexpected(function: u32, results: &[i32]) -> Vec<Ins<'static>> {
    const RESULT: u32 = 2;
    let mut instructions = vec![
        Ins::LocalGet(0),
        Ins::I32Load(at_offset(RESULT_OFFSET as u64)),
        Ins::LocalSet(RESULT),
        Ins::I32Const(0),
    ];
    for result in results {
        instructions.extend([
            Ins::LocalGet(RESULT),
            Ins::I32Const(*result),
            Ins::I32Eq,
            Ins::I32Or,
        ]);
    }
    instructions.extend([
        Ins::I32Eqz,
        Ins::If(BlockType::Empty),
        Ins::LocalGet(RESULT),
        Ins::I32Const(0xffff),
        Ins::I32And,
        Ins::I32Const(unexpected(function)),
        Ins::I32Or,
        Ins::Return,
        Ins::End,
    ]);
    instructions
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
pub(crate) fn params(signature: &str) -> impl ExactSizeIterator<Item = ValType> {
    let list = signature.trim_start_matches('(').split(')').next();
    let names = list
        .unwrap_or_default()
        .split(", ")
        .filter(|ty| !ty.is_empty());
    names.map(value_type).collect::<Vec<_>>().into_iter()
}

fn result(signature: &str) -> Option<ValType> {
    let (_, result) = signature.split_once(" -> ")?;
    Some(value_type(result))
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

/// Rest of an input; beyond its end it is zeros.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    pub(crate) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
