//! Manifests: what a module says of itself, read and checked without running it.

use castling_abi::{
    ABI_VERSION, EXPORT_CONFIGURE, EXPORT_STATE_RESET, Hook, MANIFEST_SECTION, imports,
};
use serde::{Deserialize, Serialize};
use wasmparser::{
    CompositeInnerType, ExternalKind, FuncType, Parser, Payload, TypeRef, ValType, Validator,
};

use super::host_call::wasi;
use super::{host_call, module_text};

/// Export of a module for WASI (a reactor) that is called once, before all others.
pub(super) const EXPORT_INITIALIZE: &str = "_initialize";

/// The manifest of a plugin, from the custom section that `#[plugin]` writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub abi: u32,
    #[serde(deserialize_with = "module_text::of_manifest")]
    pub name: String,
    #[serde(deserialize_with = "module_text::of_manifest")]
    pub version: String,
    /// Version of the SDK that it was built with.
    #[serde(deserialize_with = "module_text::of_manifest")]
    pub sdk: String,
    /// By name, in the order of a request's life; each once.
    #[serde(deserialize_with = "module_text::of_manifest_list")]
    pub hooks: Vec<String>,
    /// The plugin keeps state for each request, so an instance stays with its request.
    #[serde(default)]
    pub state: bool,
    /// Names that its `variable` hook computes; a hook call names one by its index.
    #[serde(default, deserialize_with = "module_text::of_manifest_list")]
    pub variables: Vec<String>,
    /// Its `configure` may name others. Read from its imports.
    #[serde(default)]
    pub declares_variables: bool,
    /// When its `timer` hook runs.
    #[serde(default)]
    pub timer: Option<Timer>,
    /// Capabilities that need to be granted. Not in the section: read from its imports, which do not lie.
    #[serde(default)]
    pub uses: Vec<Capability>,
    /// What its `balance` may ask of the peers. Read from its imports, too.
    #[serde(default)]
    pub peers: PeersAsked,
    /// The host can see all state of its instances, so that it may make a snapshot of one. Not in the section: found when it is
    /// compiled, false before that.
    #[serde(default)]
    pub state_is_exposed: bool,
}

/// When a `timer` hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// Milliseconds from the end of one run to the next; the config may set another.
    pub every_ms: u64,
    pub on: TimerOn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimerOn {
    /// Each worker.
    Workers,
    /// A single worker of the generation.
    OneWorker,
}

/// What a plugin may ask of the peers that it chooses from: so much is made ready for each choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeersAsked {
    /// The list of all.
    pub are_listed: bool,
    /// Two of the host's drawing.
    pub are_drawn: bool,
}

impl Default for PeersAsked {
    /// The list, which every plugin could ask for before peers were drawn.
    fn default() -> Self {
        Self {
            are_listed: true,
            are_drawn: false,
        }
    }
}

/// Something that a config grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Calls out: `grants.upstreams`.
    Upstreams,
    /// Choices of the request's upstream: `grants.upstreams`.
    ChosenUpstreams,
    /// Things that its config names, which are granted by that.
    ConfigTypes,
    /// Shared numbers: a counter zone in `grants.zones`.
    CounterZones,
    /// Shared values: a kv zone in `grants.zones`.
    KvZones,
    /// Permits: a gauge zone in `grants.zones`.
    GaugeZones,
    /// Files: `grants.files`.
    Files,
    /// Messages: a topic in `grants.zones`.
    Topics,
}

/// Why a module is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModuleError {
    #[error("not a WebAssembly module: {0}")]
    NotWasm(String),
    #[error(
        "a WebAssembly component; expected a core module, built for wasm32-unknown-unknown or wasm32-wasip1"
    )]
    Component,
    #[error(
        "no `{MANIFEST_SECTION}` section; expected a module built with #[plugin] of castling-sdk"
    )]
    NoManifest,
    #[error("its manifest cannot be read: {0}")]
    BadManifest(String),
    #[error(
        "it speaks ABI {0}, this gateway speaks ABI {ABI_VERSION}; build it with a castling-sdk of this gateway's release"
    )]
    OtherAbi(u64),
    #[error(
        "its manifest names variable \"{0}\"; expected `a-z`, `0-9` and `_`, 1 to 64 bytes, each name once"
    )]
    BadVariable(String),
    #[error("its manifest has no `{field}`, which its `{hook}` hook needs")]
    MissingField {
        hook: &'static str,
        field: &'static str,
    },
    #[error("its manifest's timer runs every {0} ms; expected {least} to {most}", least = TIMER_MS.start(), most = TIMER_MS.end())]
    BadTimer(u64),
    #[error("it implements no hook; expected at least one of {}", hook_names())]
    NoHooks,
    #[error("it says it implements `{0}`, which is no hook of this gateway")]
    UnknownHook(String),
    #[error("it imports `{module}.{name}`, which this gateway does not offer")]
    UnknownImport { module: String, name: String },
    #[error("it imports `{name}` of WASI, which this gateway does not offer: {instead}", instead = wasi::instead_of(.0), name = .0)]
    NotOfWasi(String),
    #[error("it imports `{name}` as {found}, which this gateway offers as {expected}")]
    ImportType {
        name: String,
        found: String,
        expected: String,
    },
    #[error("it does not export `{0}`, which its manifest promises or every plugin has")]
    MissingExport(String),
    #[error("it exports `{name}` as {found}; expected {expected}")]
    ExportType {
        name: String,
        found: String,
        expected: String,
    },
    #[error("it cannot be compiled: {0}")]
    Compile(String),
}

impl ModuleError {
    /// Repeats an error with what is the module's own in it escaped and cut.
    pub(super) fn told(mut self) -> Self {
        match &mut self {
            Self::NotWasm(text) | Self::BadManifest(text) | Self::Compile(text) => {
                *text = module_text::text(text);
            }
            Self::BadVariable(name)
            | Self::UnknownHook(name)
            | Self::MissingExport(name)
            | Self::NotOfWasi(name) => {
                *name = module_text::name(name);
            }
            Self::UnknownImport { module, name } => {
                *module = module_text::name(module);
                *name = module_text::name(name);
            }
            Self::ImportType { name, found, .. } | Self::ExportType { name, found, .. } => {
                *name = module_text::name(name);
                *found = module_text::name(found);
            }
            Self::Component
            | Self::NoManifest
            | Self::OtherAbi(_)
            | Self::MissingField { .. }
            | Self::BadTimer(_)
            | Self::NoHooks => {}
        }
        self
    }
}

fn hook_names() -> String {
    let names: Vec<&str> = Hook::ALL.iter().map(|hook| hook.name()).collect();
    names.join(", ")
}

/// Checks that these bytes are a plugin which this gateway can run.
pub fn inspect(wasm: &[u8]) -> Result<Manifest, ModuleError> {
    checked(wasm).map_err(ModuleError::told)
}

fn checked(wasm: &[u8]) -> Result<Manifest, ModuleError> {
    if Parser::is_component(wasm) {
        return Err(ModuleError::Component);
    }
    // The manifest comes first: a module of another ABI should hear that, not which import is unknown. It is read
    // from the sections alone, so the module need not even be valid for that.
    let outline = Outline::read(wasm).map_err(|e| ModuleError::NotWasm(e.to_string()))?;
    let mut manifest = read_manifest(&outline)?;
    Validator::new()
        .validate_all(wasm)
        .map_err(|e| ModuleError::NotWasm(e.to_string()))?;
    outline.check_imports()?;
    outline.check_exports(&manifest)?;
    manifest.uses = outline.uses();
    manifest.peers = PeersAsked {
        are_listed: outline.imports_any(&[imports::PEERS_GET]),
        are_drawn: outline.imports_any(&[imports::PEERS_DRAW]),
    };
    manifest.state_is_exposed = false;
    Ok(manifest)
}

const COUNTER_CALLS: [&str; 3] = [
    imports::COUNTER_ADD,
    imports::COUNTER_GET,
    imports::RATE_TAKE,
];

const TOPIC_CALLS: [&str; 2] = [imports::TOPIC_PUBLISH, imports::MESSAGE_GET];

const GAUGE_CALLS: [&str; 3] = [
    imports::GAUGE_ENTER,
    imports::GAUGE_LEAVE,
    imports::GAUGE_COUNT,
];

const KV_CALLS: [&str; 11] = [
    imports::KV_FLIGHT,
    imports::KV_FLIGHT_END,
    imports::KV_GET,
    imports::KV_PUT,
    imports::KV_DELETE,
    imports::KV_LIST,
    imports::KV_GET_WITH_TTL,
    imports::KV_INCREMENT,
    imports::KV_GET_ALL,
    imports::KV_PUT_ALL,
    imports::KV_DELETE_ALL,
];

fn read_manifest(outline: &Outline<'_>) -> Result<Manifest, ModuleError> {
    let section = outline.manifest.ok_or(ModuleError::NoManifest)?;
    let json: serde_json::Value =
        serde_json::from_slice(section).map_err(|e| ModuleError::BadManifest(e.to_string()))?;
    // Only `abi` has its place in every version of the manifest.
    let abi = json.get("abi").and_then(serde_json::Value::as_u64);
    let abi = abi.ok_or_else(|| ModuleError::BadManifest("no number `abi`".to_owned()))?;
    if abi != u64::from(ABI_VERSION) {
        return Err(ModuleError::OtherAbi(abi));
    }
    let mut manifest: Manifest =
        serde_json::from_value(json).map_err(|e| ModuleError::BadManifest(e.to_string()))?;
    manifest.declares_variables = outline.imports_any(&[imports::VARIABLE_DECLARE]);
    manifest.check()?;
    Ok(manifest)
}

impl Manifest {
    /// Checks what can be told from the manifest alone. The compile helper has done so, too; its answer is checked again, since
    /// bytes that nobody trusts have met the compiler there.
    pub fn check(&self) -> Result<(), ModuleError> {
        for (idx, name) in self.hooks.iter().enumerate() {
            if Hook::from_name(name).is_none() {
                return Err(ModuleError::UnknownHook(name.clone()));
            }
            if self.hooks[..idx].contains(name) {
                return Err(ModuleError::BadManifest(format!(
                    "it names hook `{name}` twice"
                )));
            }
        }
        if self.hooks.is_empty() {
            return Err(ModuleError::NoHooks);
        }
        check_fields(self)
    }

    /// Whether the plugin computes variables, or may, as its config has it.
    pub fn computes(&self) -> bool {
        !self.variables.is_empty() || self.declares_variables
    }
}

/// Periods of a timer, in milliseconds: from 10 ms to a day.
const TIMER_MS: std::ops::RangeInclusive<u64> = 10..=86_400_000;

fn check_fields(manifest: &Manifest) -> Result<(), ModuleError> {
    let has = |hook: Hook| manifest.hooks.iter().any(|name| name == hook.name());
    let missing = |hook: Hook, field| {
        Err(ModuleError::MissingField {
            hook: hook.name(),
            field,
        })
    };
    for (idx, name) in manifest.variables.iter().enumerate() {
        let valid = (1..=64).contains(&name.len())
            && name
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        if !valid || manifest.variables[..idx].contains(name) {
            return Err(ModuleError::BadVariable(name.clone()));
        }
    }
    if has(Hook::Variable) && !manifest.computes() {
        return missing(Hook::Variable, "variables");
    }
    match manifest.timer {
        None if has(Hook::Timer) => missing(Hook::Timer, "timer"),
        Some(timer) if !TIMER_MS.contains(&timer.every_ms) => {
            Err(ModuleError::BadTimer(timer.every_ms))
        }
        _ => Ok(()),
    }
}

/// The parts of a module that its contract with the host is written in.
#[derive(Default)]
struct Outline<'a> {
    manifest: Option<&'a [u8]>,
    types: Vec<Option<FuncType>>,
    imports: Vec<wasmparser::Import<'a>>,
    /// Type index of each function, imported ones first.
    functions: Vec<u32>,
    exports: Vec<wasmparser::Export<'a>>,
}

impl<'a> Outline<'a> {
    fn read(wasm: &'a [u8]) -> wasmparser::Result<Self> {
        let mut outline = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload? {
                Payload::CustomSection(section) if section.name() == MANIFEST_SECTION => {
                    outline.manifest = Some(section.data());
                }
                Payload::TypeSection(types) => {
                    for group in types {
                        for sub_type in group?.types() {
                            outline.types.push(match &sub_type.composite_type.inner {
                                CompositeInnerType::Func(func) => Some(func.clone()),
                                _ => None,
                            });
                        }
                    }
                }
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        let import = import?;
                        if let TypeRef::Func(type_idx) = import.ty {
                            outline.functions.push(type_idx);
                        }
                        outline.imports.push(import);
                    }
                }
                Payload::FunctionSection(functions) => {
                    for type_idx in functions {
                        outline.functions.push(type_idx?);
                    }
                }
                Payload::ExportSection(exports) => {
                    for export in exports {
                        outline.exports.push(export?);
                    }
                }
                _ => {}
            }
        }
        Ok(outline)
    }

    fn func_type(&self, type_idx: u32) -> Option<&FuncType> {
        self.types.get(usize::try_from(type_idx).ok()?)?.as_ref()
    }

    fn check_imports(&self) -> Result<(), ModuleError> {
        for import in &self.imports {
            let unknown = || ModuleError::UnknownImport {
                module: import.module.into(),
                name: import.name.into(),
            };
            let TypeRef::Func(type_idx) = import.ty else {
                return Err(unknown());
            };
            let offered = host_call::signature(import.module, import.name).ok_or_else(|| {
                match import.module {
                    wasi::MODULE => ModuleError::NotOfWasi(import.name.into()),
                    _ => unknown(),
                }
            })?;
            let found = self.func_type(type_idx).map(describe).unwrap_or_default();
            if found != offered {
                return Err(ModuleError::ImportType {
                    name: import.name.into(),
                    found,
                    expected: offered.to_owned(),
                });
            }
        }
        Ok(())
    }

    fn imports_any(&self, calls: &[&str]) -> bool {
        let mut imports = self.imports.iter();
        imports.any(|import| calls.contains(&import.name))
    }

    fn uses(&self) -> Vec<Capability> {
        let uses = [
            self.imports_any(&[
                imports::CALLS_SEND,
                imports::CALL_OPEN,
                imports::TCP_CONNECT,
            ])
            .then_some(Capability::Upstreams),
            self.imports_any(&[imports::UPSTREAM_SET])
                .then_some(Capability::ChosenUpstreams),
            self.imports_any(&[imports::CONFIG_GRANT])
                .then_some(Capability::ConfigTypes),
            self.imports_any(&COUNTER_CALLS)
                .then_some(Capability::CounterZones),
            self.imports_any(&KV_CALLS).then_some(Capability::KvZones),
            self.imports_any(&GAUGE_CALLS)
                .then_some(Capability::GaugeZones),
            self.imports_any(&[imports::FILE_OPEN])
                .then_some(Capability::Files),
            self.imports_any(&TOPIC_CALLS).then_some(Capability::Topics),
        ];
        uses.into_iter().flatten().collect()
    }

    fn check_exports(&self, manifest: &Manifest) -> Result<(), ModuleError> {
        self.export("memory", ExternalKind::Memory)?;
        self.check_export(EXPORT_CONFIGURE, "() -> i32")?;
        if self.export(EXPORT_INITIALIZE, ExternalKind::Func).is_ok() {
            self.check_export(EXPORT_INITIALIZE, "()")?;
        }
        if manifest.state {
            self.check_export(EXPORT_STATE_RESET, "()")?;
        }
        for hook in manifest
            .hooks
            .iter()
            .filter_map(|name| Hook::from_name(name))
        {
            self.check_export(hook.export(), "(i32, i32, i32) -> i32")?;
        }
        Ok(())
    }

    fn export(&self, name: &str, kind: ExternalKind) -> Result<u32, ModuleError> {
        self.exports
            .iter()
            .find(|export| export.name == name && export.kind == kind)
            .map(|export| export.index)
            .ok_or_else(|| ModuleError::MissingExport(name.to_owned()))
    }

    fn check_export(&self, name: &str, expected: &str) -> Result<(), ModuleError> {
        let function_idx = self.export(name, ExternalKind::Func)?;
        let type_idx = usize::try_from(function_idx)
            .ok()
            .and_then(|idx| self.functions.get(idx));
        let found = type_idx
            .and_then(|&idx| self.func_type(idx))
            .map(describe)
            .unwrap_or_default();
        if found == expected {
            return Ok(());
        }
        Err(ModuleError::ExportType {
            name: name.to_owned(),
            found,
            expected: expected.to_owned(),
        })
    }
}

/// `(i32, i32) -> i64`, as [`host_call::signature`] writes it.
fn describe(func: &FuncType) -> String {
    let list = |types: &[ValType]| {
        types
            .iter()
            .map(ValType::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    match func.results() {
        [] => format!("({})", list(func.params())),
        results => format!("({}) -> {}", list(func.params()), list(results)),
    }
}
