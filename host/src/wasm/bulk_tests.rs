//! A module in pieces does what it did before, and traps where it did.

use proptest::prelude::*;
use wasmtime::{Engine, Instance, Store, Val};

use super::super::engine::settings;
use super::*;

/// Functions `memory.fill` to `table.init`, each of its three operands, over a memory of 4 pages, two tables of 3,000 elements, and
/// segments; `drop` drops those. Elements differ by the function that they are of, which `element` calls.
fn module() -> Vec<u8> {
    use wasm_encoder::{
        CodeSection, ConstExpr, DataCountSection, DataSection, ElementSection, Elements,
        ExportKind, ExportSection, FunctionSection, MemorySection, MemoryType, TableSection,
        TableType, TypeSection,
    };
    let i32s = |n: usize| vec![ValType::I32; n];
    let mut types = TypeSection::new();
    types.ty().function(i32s(3), []);
    types.ty().function(i32s(1), i32s(1));
    types.ty().function([], i32s(1));
    types.ty().function([], []);
    let mut functions = FunctionSection::new();
    let mut code = CodeSection::new();
    let mut exports = ExportSection::new();
    let mut add = |name: &str, ty: u32, body: &[Instruction<'_>]| {
        if !name.is_empty() {
            exports.export(name, ExportKind::Func, functions.len());
        }
        functions.function(ty);
        let mut function = Function::new([]);
        for instruction in body.iter().chain([&End]) {
            function.instruction(instruction);
        }
        code.function(&function);
    };
    for (name, instruction) in OPERATIONS {
        let mut second = vec![LocalGet(SRC)];
        if let Instruction::TableFill(table) = instruction {
            second = vec![
                LocalGet(SRC),
                I32Const(7),
                Instruction::I32And,
                Instruction::TableGet(1 - table),
            ];
        }
        let mut body = vec![LocalGet(DST)];
        body.extend(second);
        body.extend([LocalGet(LEN), instruction]);
        add(name, 0, &body);
    }
    let numbers = functions_before_numbers();
    for number in 0..ELEMENTS {
        add("", 2, &[I32Const(number.cast_signed())]);
    }
    for (name, table) in [("element 0", 0), ("element 1", 1)] {
        let is_null = [
            LocalGet(0),
            Instruction::TableGet(table),
            Instruction::RefIsNull,
            If(BlockType::Result(ValType::I32)),
            I32Const(-1),
            Else,
            LocalGet(0),
            Instruction::CallIndirect {
                type_index: 2,
                table_index: table,
            },
            End,
        ];
        add(name, 1, &is_null);
    }
    add(
        "drop",
        3,
        &[Instruction::DataDrop(0), Instruction::ElemDrop(1)],
    );
    let _ = &mut add;
    exports.export("memory", ExportKind::Memory, 0);
    let mut tables = TableSection::new();
    for _ in 0..2 {
        tables.table(TableType {
            element_type: RefType::FUNCREF,
            table64: false,
            minimum: u64::from(ELEMENTS),
            maximum: None,
            shared: false,
        });
    }
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: MEMORY_BYTES as u64 / 65536,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let all: Vec<u32> = (numbers..numbers + ELEMENTS).collect();
    let mut elements = ElementSection::new();
    elements.active(
        Some(0),
        &ConstExpr::i32_const(0),
        Elements::Functions(all.clone().into()),
    );
    elements.passive(Elements::Functions(all.into()));
    let mut data = DataSection::new();
    data.passive((0..SEGMENT_BYTES).map(|n| (n % 251) as u8));
    let mut module = Module::new();
    module
        .section(&types)
        .section(&functions)
        .section(&tables)
        .section(&memories)
        .section(&exports)
        .section(&elements)
        .section(&DataCountSection { count: 1 })
        .section(&code)
        .section(&data);
    module.finish()
}

const fn functions_before_numbers() -> u32 {
    OPERATIONS.len() as u32
}

const OPERATIONS: [(&str, Instruction<'static>); 7] = [
    ("memory.fill", Instruction::MemoryFill(0)),
    (
        "memory.copy",
        Instruction::MemoryCopy {
            src_mem: 0,
            dst_mem: 0,
        },
    ),
    (
        "memory.init",
        Instruction::MemoryInit {
            mem: 0,
            data_index: 0,
        },
    ),
    ("table.fill", Instruction::TableFill(1)),
    (
        "table.copy",
        Instruction::TableCopy {
            src_table: 0,
            dst_table: 0,
        },
    ),
    (
        "table.copy between",
        Instruction::TableCopy {
            src_table: 0,
            dst_table: 1,
        },
    ),
    (
        "table.init",
        Instruction::TableInit {
            elem_index: 1,
            table: 1,
        },
    ),
];

const ELEMENTS: u32 = 3000;
const MEMORY_BYTES: usize = 4 * 65536;
const SEGMENT_BYTES: usize = 100_000;

struct Machine {
    store: Store<()>,
    instance: Instance,
}

impl Machine {
    fn new(engine: &Engine, module: &wasmtime::Module) -> Self {
        let mut store = Store::new(engine, ());
        store.set_epoch_deadline(1);
        let instance = Instance::new(&mut store, module, &[]).unwrap();
        let mut machine = Self { store, instance };
        for (place, byte) in machine.memory().iter_mut().zip((0..=250).cycle()) {
            *place = byte;
        }
        machine
    }

    fn memory(&mut self) -> &mut [u8] {
        let memory = self.instance.get_memory(&mut self.store, "memory");
        memory.unwrap().data_mut(&mut self.store)
    }

    /// Trap of the function, if there is one.
    fn call(&mut self, name: &str, args: &[u32]) -> Result<i32, String> {
        let function = self.instance.get_func(&mut self.store, name).unwrap();
        let results = function.ty(&self.store).results().len();
        let mut result = vec![Val::I32(0); results];
        let args: Vec<Val> = args.iter().map(|arg| Val::I32(arg.cast_signed())).collect();
        match function.call(&mut self.store, &args, &mut result) {
            Ok(()) => Ok(result.first().and_then(Val::i32).unwrap_or_default()),
            Err(error) => Err(error.root_cause().to_string()),
        }
    }

    fn table(&mut self, table: u32) -> Vec<Result<i32, String>> {
        let name = format!("element {table}");
        (0..ELEMENTS).map(|idx| self.call(&name, &[idx])).collect()
    }
}

/// The module as it is, and in pieces.
fn modules() -> (Engine, [wasmtime::Module; 2]) {
    let engine = Engine::new(&settings()).unwrap();
    let original = module();
    let changed = in_pieces(&original).expect("it has long operations");
    let compile = |wasm: &[u8]| wasmtime::Module::new(&engine, wasm).unwrap();
    let modules = [compile(&original), compile(&changed)];
    (engine, modules)
}

thread_local! {
    static MODULES: (Engine, [wasmtime::Module; 2]) = modules();
}

/// Around what is done at once, what a piece is, where memory and segment end, and where 32 bits do.
fn operand(of_memory: bool) -> impl Strategy<Value = u32> {
    let places: Vec<u32> = match of_memory {
        true => vec![
            0,
            SHORT_BYTES,
            PIECE_BYTES,
            2 * PIECE_BYTES,
            SEGMENT_BYTES as u32,
            MEMORY_BYTES as u32,
            MEMORY_BYTES as u32 - SHORT_BYTES,
            MEMORY_BYTES as u32 - PIECE_BYTES,
            u32::MAX,
        ],
        false => vec![0, PIECE_ELEMENTS, 2 * PIECE_ELEMENTS, ELEMENTS, u32::MAX],
    };
    let all = if of_memory {
        MEMORY_BYTES as u32
    } else {
        ELEMENTS
    };
    prop_oneof![
        3 => 0..=all,
        1 => any::<u32>(),
        4 => (prop::sample::select(places), -3_i32..=3)
            .prop_map(|(place, more)| place.wrapping_add_signed(more)),
    ]
}

fn calls() -> impl Strategy<Value = Vec<(usize, [u32; 3], bool)>> {
    let call = (0..OPERATIONS.len()).prop_flat_map(|idx| {
        let of_memory = OPERATIONS[idx].0.starts_with("memory");
        let operand = || operand(of_memory);
        let args = (operand(), operand(), operand()).prop_map(|(dst, src, len)| [dst, src, len]);
        (Just(idx), args, prop::bool::weighted(0.05))
    });
    prop::collection::vec(call, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn results_and_traps_are_the_originals(calls in calls()) {
        MODULES.with(|(engine, modules)| {
            let [mut original, mut changed] =
                modules.each_ref().map(|module| Machine::new(engine, module));
            for (idx, args, drops) in calls {
                let name = OPERATIONS[idx].0;
                prop_assert_eq!(original.call(name, &args), changed.call(name, &args), "{} {:?}", name, args);
                prop_assert!(original.memory() == changed.memory(), "{} {:?}", name, args);
                if drops {
                    original.call("drop", &[]).unwrap();
                    changed.call("drop", &[]).unwrap();
                }
            }
            for table in 0..2 {
                prop_assert!(original.table(table) == changed.table(table), "table {}", table);
            }
            Ok(())
        })?;
    }
}

#[test]
fn nothing_is_written_before_a_trap_and_nothing_at_the_end_is_none() {
    MODULES.with(|(engine, [_, changed])| {
        let mut machine = Machine::new(engine, changed);
        let before = machine.memory().to_vec();
        let end = MEMORY_BYTES as u32;
        for (name, args) in [
            ("memory.fill", [1, 0, end]),
            ("memory.copy", [0, 1, end]),
            ("memory.copy", [1, 0, end]),
            ("memory.init", [0, 1, SEGMENT_BYTES as u32]),
            ("memory.fill", [end + 1, 0, 0]),
            ("memory.fill", [u32::MAX, 0, u32::MAX]),
        ] {
            let trap = machine.call(name, &args).unwrap_err();
            assert!(trap.contains("out of bounds memory access"), "{trap}");
            assert!(machine.memory() == before, "{name} {args:?}");
        }
        assert_eq!(machine.call("memory.fill", &[end, 0, 0]), Ok(0));
        assert_eq!(machine.call("memory.copy", &[end, end, 0]), Ok(0));
    });
}

#[test]
fn a_long_operation_is_interrupted_between_its_pieces() {
    MODULES.with(|(engine, modules)| {
        let interrupted = modules.each_ref().map(|module| {
            let mut machine = Machine::new(engine, module);
            let mut checks = 0;
            machine.store.set_epoch_deadline(0);
            machine.store.epoch_deadline_callback(move |_| {
                checks += 1;
                match checks {
                    // The first are at the beginning of functions.
                    1..=3 => Ok(wasmtime::UpdateDeadline::Continue(0)),
                    _ => wasmtime::bail!("interrupted"),
                }
            });
            machine.call("memory.fill", &[0, 1, MEMORY_BYTES as u32])
        });
        assert_eq!(interrupted[0], Ok(0));
        assert!(interrupted[1].is_err());
    });
}

#[test]
fn a_call_is_as_long_as_what_it_takes_the_place_of() {
    let mut code = Vec::new();
    put_call(5, 3, &mut code);
    put_call(5, 8, &mut code);
    assert_eq!(
        code,
        [CALL, 0x85, 0, CALL, 0x85, 0x80, 0x80, 0x80, 0, NOP, NOP]
    );
    let original = module();
    let changed = in_pieces(&original).unwrap();
    let bodies = |wasm| Outline::read(wasm).unwrap().bodies;
    let lengths = |wasm| -> Vec<usize> { bodies(wasm).iter().map(|b| b.range().len()).collect() };
    assert!(lengths(&changed).starts_with(&lengths(&original)));
    // A module that is in pieces stays as it is.
    assert_eq!(
        lengths(&changed).len(),
        lengths(&original).len() + OPERATIONS.len()
    );
}
