//! `castling check`

use std::path::Path;
use std::rc::Rc;

use tokio::task::LocalSet;

use crate::config;
use crate::gateway::Gateway;
use crate::process;
use crate::wasm::Module;

use super::{Outcome, control};

pub(super) fn check(config_path: &Path) -> Outcome {
    let description = control::in_runtime(LocalSet::new().run_until(describe(config_path)))??;
    print!("{description}");
    if !description.ends_with('\n') {
        println!();
    }
    println!("{}: ok", config_path.display());
    Ok(())
}

/// Does what a new generation does, but for binding ports and starting workers.
async fn describe(config_path: &Path) -> Result<String, Vec<String>> {
    let config = config::load(config_path).map_err(control::lines)?;
    let modules = process::modules(&config).await?;
    let mut opened = Vec::new();
    for (plugin, module) in modules {
        let artefact = module.artefact.try_clone().map_err(control::lines)?;
        opened.push(Module {
            plugin,
            manifest: module.manifest,
            artefact,
        });
    }
    let zones = process::private_zones(&config)?;
    let gateway = Gateway::build(Rc::new(config), opened, zones).await?;
    Ok(gateway.describe())
}
