//! Instructions that fill or copy much at once, in pieces between which a guest can be interrupted.
//!
//! wasmtime checks once for an instruction whether the guest is to be interrupted, and one may write 64 MiB. So every
//! module is changed before it is compiled: in the place of `memory.fill`, `memory.copy`, `memory.init`, `table.fill`, `table.copy`
//! and `table.init` with a length that is no small constant it calls a function that is added at its end, one for each operation and
//! what it works on. What is short is still one instruction; what is long is a loop. `table.grow` and `memory.grow` stay: the
//! first fills 100,000 elements at most, in a tenth of a millisecond, and the second gets its pages from the kernel as zeros.
//!
//! A call takes as many bytes as the instruction (but in modules of 16,384 functions and more), so offsets in backtraces stay what
//! they are in the file.

use wasm_encoder::Instruction::{
    BrIf, Else, End, I32Add, I32Const, I32GtU, I32LeU, I32LtU, I32Or, I32Sub, If, LocalGet,
    LocalSet, LocalTee, Loop, Return,
};
use wasm_encoder::{
    BlockType, Encode, Function, Instruction, Module, RawSection, RefType, ValType,
};
use wasmparser::{FunctionBody, Operator, Parser, Payload, TypeRef};

/// Rewrites a module with long operations in pieces; `None`: it has none, or is one that will not compile.
pub(super) fn in_pieces(wasm: &[u8]) -> Option<Vec<u8>> {
    let outline = Outline::read(wasm)?;
    let mut helpers: Vec<Operation> = Vec::new();
    let mut bodies = Vec::new();
    for body in &outline.bodies {
        outline.rewrite(wasm, body, &mut helpers, &mut bodies)?;
    }
    if helpers.is_empty() {
        return None;
    }
    let added = u32::try_from(helpers.len()).ok()?;
    for helper in &helpers {
        helper.function().encode(&mut bodies);
    }
    let mut module = Module::new();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.ok()?;
        let Some((id, range)) = payload.as_section() else {
            continue;
        };
        let old = wasm.get(range)?;
        let mut data = Vec::new();
        match &payload {
            Payload::TypeSection(types) => {
                types.count().checked_add(added)?.encode(&mut data);
                data.extend_from_slice(after_count(old)?);
                helpers
                    .iter()
                    .try_for_each(|helper| helper.put_type(&outline, &mut data))?;
            }
            Payload::FunctionSection(functions) => {
                functions.count().checked_add(added)?.encode(&mut data);
                data.extend_from_slice(after_count(old)?);
                (outline.types..outline.types + added).for_each(|ty| ty.encode(&mut data));
            }
            Payload::CodeSectionStart { count, .. } => {
                count.checked_add(added)?.encode(&mut data);
                data.extend_from_slice(&bodies);
            }
            Payload::CustomSection(section) if section.name() == "name" => {
                let names = with_names(section.data(), outline.functions, &helpers);
                let prefix = old.len().checked_sub(section.data().len())?;
                data.extend_from_slice(old.get(..prefix)?);
                data.extend_from_slice(names.as_deref().unwrap_or(section.data()));
            }
            _ => data.extend_from_slice(old),
        }
        module.section(&RawSection { id, data: &data });
    }
    Some(module.finish())
}

/// Parts of a module that adding functions to it needs.
#[derive(Default)]
struct Outline<'a> {
    types: u32,
    /// Imported ones included.
    functions: u32,
    tables: Vec<Option<RefType>>,
    bodies: Vec<FunctionBody<'a>>,
}

impl<'a> Outline<'a> {
    /// `None` where memories or tables are of a kind that this gateway's engine refuses.
    fn read(wasm: &'a [u8]) -> Option<Self> {
        let mut outline = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.ok()? {
                Payload::TypeSection(types) => {
                    for group in types {
                        outline.types += u32::try_from(group.ok()?.types().len()).ok()?;
                    }
                }
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        match import.ok()?.ty {
                            TypeRef::Func(_) => outline.functions += 1,
                            _ => return None,
                        }
                    }
                }
                Payload::FunctionSection(functions) => outline.functions += functions.count(),
                Payload::TableSection(tables) => {
                    for table in tables {
                        let ty = table.ok()?.ty;
                        if ty.table64 {
                            return None;
                        }
                        outline.tables.push(plain(ty.element_type));
                    }
                }
                Payload::MemorySection(memories) => {
                    for memory in memories {
                        if memory.ok()?.memory64 {
                            return None;
                        }
                    }
                }
                Payload::CodeSectionEntry(body) => outline.bodies.push(body),
                _ => {}
            }
        }
        Some(outline)
    }

    /// Puts a body with its size behind the others, and adds the helpers that it needs.
    fn rewrite(
        &self,
        wasm: &[u8],
        body: &FunctionBody<'_>,
        helpers: &mut Vec<Operation>,
        bodies: &mut Vec<u8>,
    ) -> Option<()> {
        let (range, mut at) = (body.range(), body.range().start);
        let mut code = Vec::with_capacity(range.len());
        let mut operators = body.get_operators_reader().ok()?;
        let mut constant = None;
        while !operators.eof() {
            let start = operators.original_position();
            let operator = operators.read().ok()?;
            if let Some(operation) = self.operation(&operator) {
                let is_short = constant.is_some_and(|len| len <= operation.short());
                if !is_short {
                    code.extend_from_slice(wasm.get(at..start)?);
                    at = operators.original_position();
                    let idx = helpers.iter().position(|helper| *helper == operation);
                    let idx = idx.unwrap_or_else(|| {
                        helpers.push(operation);
                        helpers.len() - 1
                    });
                    let function = self.functions.checked_add(u32::try_from(idx).ok()?)?;
                    put_call(function, at - start, &mut code);
                }
            }
            constant = match operator {
                Operator::I32Const { value } => Some(value.cast_unsigned()),
                _ => None,
            };
        }
        code.extend_from_slice(wasm.get(at..range.end)?);
        code.encode(bodies);
        Some(())
    }

    fn operation(&self, operator: &Operator<'_>) -> Option<Operation> {
        match *operator {
            Operator::MemoryFill { mem } => Some(Operation::MemoryFill { mem }),
            Operator::MemoryCopy { dst_mem, src_mem } => {
                Some(Operation::MemoryCopy { dst_mem, src_mem })
            }
            Operator::MemoryInit { data_index, mem } => {
                Some(Operation::MemoryInit { data_index, mem })
            }
            // A table of elements that only a newer proposal has: it stays one instruction, and tables are bounded.
            Operator::TableFill { table } => {
                let is_plain = self.tables.get(table as usize)?.is_some();
                is_plain.then_some(Operation::TableFill { table })
            }
            Operator::TableCopy {
                dst_table,
                src_table,
            } => Some(Operation::TableCopy {
                dst_table,
                src_table,
            }),
            Operator::TableInit { elem_index, table } => {
                Some(Operation::TableInit { elem_index, table })
            }
            _ => None,
        }
    }
}

/// Operation, and what it works on. Each takes where it writes, a value or where it reads, and the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    MemoryFill { mem: u32 },
    MemoryCopy { dst_mem: u32, src_mem: u32 },
    MemoryInit { data_index: u32, mem: u32 },
    TableFill { table: u32 },
    TableCopy { dst_table: u32, src_table: u32 },
    TableInit { elem_index: u32, table: u32 },
}

/// Longest range of memory that is done at once: some hundred nanoseconds.
const SHORT_BYTES: u32 = 4 << 10;

/// Pieces of a longer range: a microsecond or two each, more where the kernel has to find its pages.
const PIECE_BYTES: u32 = 16 << 10;

/// Elements of a table that are done at once, and a piece of more. Each may take some ten nanoseconds.
const PIECE_ELEMENTS: u32 = 512;

/// Parameters of a helper.
const DST: u32 = 0;
const SRC: u32 = 1;
const LEN: u32 = 2;

impl Operation {
    fn short(self) -> u32 {
        match self.is_of_memory() {
            true => SHORT_BYTES,
            false => PIECE_ELEMENTS,
        }
    }

    fn piece(self) -> u32 {
        match self.is_of_memory() {
            true => PIECE_BYTES,
            false => PIECE_ELEMENTS,
        }
    }

    fn is_of_memory(self) -> bool {
        match self {
            Self::MemoryFill { .. } | Self::MemoryCopy { .. } | Self::MemoryInit { .. } => true,
            Self::TableFill { .. } | Self::TableCopy { .. } | Self::TableInit { .. } => false,
        }
    }

    /// Whether the second operand is a place that goes on with the first one, and not a value.
    fn has_source(self) -> bool {
        match self {
            Self::MemoryFill { .. } | Self::TableFill { .. } => false,
            Self::MemoryCopy { .. }
            | Self::MemoryInit { .. }
            | Self::TableCopy { .. }
            | Self::TableInit { .. } => true,
        }
    }

    /// Whether it may read what it writes.
    fn may_overlap(self) -> bool {
        match self {
            Self::MemoryCopy { dst_mem, src_mem } => dst_mem == src_mem,
            Self::TableCopy {
                dst_table,
                src_table,
            } => dst_table == src_table,
            Self::MemoryFill { .. }
            | Self::MemoryInit { .. }
            | Self::TableFill { .. }
            | Self::TableInit { .. } => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::MemoryFill { .. } => "memory.fill",
            Self::MemoryCopy { .. } => "memory.copy",
            Self::MemoryInit { .. } => "memory.init",
            Self::TableFill { .. } => "table.fill",
            Self::TableCopy { .. } => "table.copy",
            Self::TableInit { .. } => "table.init",
        }
    }

    fn instruction(self) -> Instruction<'static> {
        match self {
            Self::MemoryFill { mem } => Instruction::MemoryFill(mem),
            Self::MemoryCopy { dst_mem, src_mem } => Instruction::MemoryCopy { src_mem, dst_mem },
            Self::MemoryInit { data_index, mem } => Instruction::MemoryInit { mem, data_index },
            Self::TableFill { table } => Instruction::TableFill(table),
            Self::TableCopy {
                dst_table,
                src_table,
            } => Instruction::TableCopy {
                src_table,
                dst_table,
            },
            Self::TableInit { elem_index, table } => Instruction::TableInit { elem_index, table },
        }
    }

    /// Type of its helper: `(i32, i32 or a reference, i32) -> ()`.
    fn put_type(self, outline: &Outline<'_>, types: &mut Vec<u8>) -> Option<()> {
        types.push(FUNCTION_TYPE);
        3_u32.encode(types);
        ValType::I32.encode(types);
        match self {
            Self::TableFill { table } => {
                let element = *outline.tables.get(table as usize)?;
                ValType::Ref(element?).encode(types);
            }
            _ => ValType::I32.encode(types),
        }
        ValType::I32.encode(types);
        0_u32.encode(types);
        Some(())
    }

    /// Helper of the operation. Bounds are checked as the specification has it, before the first piece is written: by the operation itself with no
    /// length at the end of both ranges, or as it came where an end is beyond 32 bits.
    fn function(self) -> Function {
        let (short, piece) = (constant(self.short()), constant(self.piece()));
        let mut code = Code(Function::new([]));
        code.put(&[LocalGet(LEN), short, I32LeU, If(BlockType::Empty)]);
        self.put_whole(&mut code);
        code.put(&[Return, End]);

        code.put_end(DST).put(&[LocalGet(DST), I32LtU]);
        if self.has_source() {
            code.put_end(SRC).put(&[LocalGet(SRC), I32LtU, I32Or]);
        }
        code.put(&[If(BlockType::Empty)]);
        self.put_whole(&mut code);
        code.put(&[Return, End]);

        self.put_ends(&mut code);
        code.put(&[I32Const(0), self.instruction()]);

        code.put(&[LocalGet(LEN), piece, I32GtU, If(BlockType::Empty)]);
        if self.may_overlap() {
            code.put(&[LocalGet(DST), LocalGet(SRC), I32GtU, If(BlockType::Empty)]);
            self.put_backwards(&mut code);
            code.put(&[Else]);
            self.put_forwards(&mut code);
            code.put(&[End]);
        } else {
            self.put_forwards(&mut code);
        }
        code.put(&[End]);
        self.put_whole(&mut code);
        code.put(&[End]);
        code.0
    }

    /// Operation on the whole range that is left.
    fn put_whole(self, code: &mut Code) {
        code.put(&[
            LocalGet(DST),
            LocalGet(SRC),
            LocalGet(LEN),
            self.instruction(),
        ]);
    }

    /// Ends of both ranges, or the end of one and the value.
    fn put_ends(self, code: &mut Code) {
        code.put_end(DST);
        match self.has_source() {
            true => code.put_end(SRC),
            false => code.put(&[LocalGet(SRC)]),
        };
    }

    /// Pieces from the beginning, until no more than one is left.
    fn put_forwards(self, code: &mut Code) {
        let piece = constant(self.piece());
        code.put(&[
            Loop(BlockType::Empty),
            LocalGet(DST),
            LocalGet(SRC),
            piece.clone(),
            self.instruction(),
            LocalGet(DST),
            piece.clone(),
            I32Add,
            LocalSet(DST),
        ]);
        if self.has_source() {
            code.put(&[LocalGet(SRC), piece.clone(), I32Add, LocalSet(SRC)]);
        }
        code.put(&[LocalGet(LEN), piece.clone(), I32Sub, LocalTee(LEN)]);
        code.put(&[piece, I32GtU, BrIf(0), End]);
    }

    /// Pieces from the end, where those before would be written over first.
    fn put_backwards(self, code: &mut Code) {
        let piece = constant(self.piece());
        code.put(&[Loop(BlockType::Empty)]);
        code.put(&[LocalGet(LEN), piece.clone(), I32Sub, LocalSet(LEN)]);
        self.put_ends(code);
        code.put(&[piece.clone(), self.instruction()]);
        code.put(&[LocalGet(LEN), piece, I32GtU, BrIf(0), End]);
    }
}

/// Code of a helper as it is written.
struct Code(Function);

impl Code {
    fn put(&mut self, instructions: &[Instruction<'_>]) -> &mut Self {
        for instruction in instructions {
            self.0.instruction(instruction);
        }
        self
    }

    /// End of the range that begins at this parameter, which wraps around where it is beyond 32 bits.
    fn put_end(&mut self, start: u32) -> &mut Self {
        self.put(&[LocalGet(start), LocalGet(LEN), I32Add])
    }
}

fn constant(value: u32) -> Instruction<'static> {
    I32Const(value.cast_signed())
}

/// Element types that every engine has.
fn plain(ty: wasmparser::RefType) -> Option<RefType> {
    match ty {
        wasmparser::RefType::FUNCREF => Some(RefType::FUNCREF),
        wasmparser::RefType::EXTERNREF => Some(RefType::EXTERNREF),
        _ => None,
    }
}

/// Puts a call in the place of an instruction of so many bytes, as long as that where it can be.
fn put_call(function: u32, bytes: usize, code: &mut Vec<u8>) {
    code.push(CALL);
    let start = code.len();
    function.encode(code);
    // LEB128 may be longer than it must, up to five bytes for 32 bits.
    while code.len() - start < MOST_LEB_BYTES.min(bytes - 1) {
        if let Some(last) = code.last_mut() {
            *last |= 0x80;
        }
        code.push(0);
    }
    while code.len() - start < bytes - 1 {
        code.push(NOP);
    }
}

/// Entries of a section, without their number, which it begins with.
fn after_count(section: &[u8]) -> Option<&[u8]> {
    read_u32(section).map(|(_, entries)| entries)
}

/// Reads LEB128, of which a valid module has at most five bytes for 32 bits. Returns what follows, too.
fn read_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0;
    for (idx, byte) in bytes.iter().take(MOST_LEB_BYTES).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * idx);
        if byte & 0x80 == 0 {
            return Some((u32::try_from(value).ok()?, bytes.get(idx + 1..)?));
        }
    }
    None
}

/// Data of the name section with names of the helpers, for backtraces. `None`: it cannot be read.
fn with_names(mut data: &[u8], functions: u32, helpers: &[Operation]) -> Option<Vec<u8>> {
    let mut names = Vec::with_capacity(data.len());
    while let Some((id, rest)) = data.split_first() {
        let (len, rest) = read_u32(rest)?;
        let (old, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
        data = rest;
        names.push(*id);
        if *id != FUNCTION_NAMES {
            old.encode(&mut names);
            continue;
        }
        let (count, entries) = read_u32(old)?;
        let mut new = Vec::with_capacity(old.len());
        count
            .checked_add(u32::try_from(helpers.len()).ok()?)?
            .encode(&mut new);
        new.extend_from_slice(entries);
        for (helper, idx) in helpers.iter().zip(functions..) {
            idx.encode(&mut new);
            helper.name().encode(&mut new);
        }
        new.encode(&mut names);
    }
    Some(names)
}

/// In the binary format.
const CALL: u8 = 0x10;
const NOP: u8 = 0x01;
const FUNCTION_TYPE: u8 = 0x60;
const FUNCTION_NAMES: u8 = 1;
const MOST_LEB_BYTES: usize = 5;

#[cfg(test)]
#[path = "bulk_tests.rs"]
mod tests;
