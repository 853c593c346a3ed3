//! A plugin's compiled code, with all found that its instances need of it.

use std::cell::OnceCell;

use castling_abi::{EXPORT_CONFIGURE, EXPORT_STATE_RESET, Hook};
use wasmtime::{InstancePre, Module, ModuleExport, Result, format_err};

use super::guest::Guest;
use super::manifest::EXPORT_INITIALIZE;
use super::module_state::GLOBAL_PREFIX;
use super::snapshot::Snapshot;

/// Compiled code that all instances of a plugin in a worker share.
pub(super) struct Code {
    pub(super) pre: InstancePre<Guest>,
    pub(super) memory: ModuleExport,
    pub(super) configure: ModuleExport,
    /// What is to be called before anything else, where a module for WASI exports it.
    pub(super) initialize: Option<ModuleExport>,
    pub(super) state_reset: Option<ModuleExport>,
    /// By hook; `None` where the plugin does not implement it.
    pub(super) hooks: [Option<ModuleExport>; Hook::ALL.len()],
    /// Mutable globals of the module, where it was compiled so that they can be seen.
    pub(super) globals: Vec<ModuleExport>,
    /// Snapshot of what `configure` makes of an instance, once that is known and every time the same.
    pub(super) snapshot: OnceCell<Snapshot>,
}

impl Code {
    /// `state`: it keeps state for each request, so that there is a function which resets it.
    pub(super) fn new(pre: InstancePre<Guest>, hooks: &[Hook], state: bool) -> Result<Self> {
        let module = pre.module();
        let mut by_hook = [const { None }; Hook::ALL.len()];
        for hook in hooks {
            by_hook[*hook as usize] = Some(export(module, hook.export())?);
        }
        let state_reset = state.then(|| export(module, EXPORT_STATE_RESET));
        let names = module.exports().map(|export| export.name());
        let globals = names.filter(|name| name.starts_with(GLOBAL_PREFIX));
        Ok(Self {
            memory: export(module, "memory")?,
            configure: export(module, EXPORT_CONFIGURE)?,
            initialize: module.get_export_index(EXPORT_INITIALIZE),
            state_reset: state_reset.transpose()?,
            hooks: by_hook,
            globals: globals
                .map(|name| export(module, name))
                .collect::<Result<_>>()?,
            snapshot: OnceCell::new(),
            pre,
        })
    }
}

fn export(module: &Module, name: &str) -> Result<ModuleExport> {
    let export = module.get_export_index(name);
    export.ok_or_else(|| format_err!("it exports no `{name}`"))
}
