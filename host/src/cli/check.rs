//! `castling check`

use std::path::Path;
use std::rc::Rc;

use tokio::task::LocalSet;

use crate::config::{self, AccessLogTarget, Config};
use crate::gateway::{Gateway, Identity, SharedMemory};
use crate::log;
use crate::metrics::Recorder;
use crate::process;
use crate::wasm::Module;

use super::{Outcome, control};
use crate::transport::tls::TicketChain;
use std::time::SystemTime;

pub(super) fn check(config_path: &Path) -> Outcome {
    let description = control::in_runtime(LocalSet::new().run_until(describe(config_path)))??;
    print!("{description}");
    if !description.ends_with('\n') {
        println!();
    }
    println!("{}: ok", config_path.display());
    Ok(())
}

/// Does what a new generation does, but for binding ports, starting workers and writing files: it may be another user who
/// checks.
async fn describe(config_path: &Path) -> Result<String, Vec<String>> {
    let mut config = config::load(config_path).map_err(control::lines)?;
    let mut errors = log::check(&config.log, &config.access_log);
    let mut warnings = config::tls_warnings(&config, jiff::Timestamp::now());
    warnings.extend(config::instances_warning(&config));
    match process::check_acme(&config) {
        Ok(more) => warnings.extend(more),
        Err(error) => errors.push(error),
    }
    errors.extend(process::check_spill_dir(&config).err());
    write_nothing(&mut config);
    match build(config).await {
        Ok(gateway) if errors.is_empty() => {
            let mut text = gateway.describe();
            for warning in warnings {
                text.push_str(&format!("warning: {warning}\n"));
            }
            Ok(text)
        }
        Ok(_) => Err(errors),
        Err(others) => {
            errors.extend(others);
            Err(errors)
        }
    }
}

/// Builds the gateway of a config, to be asked and not to serve. Binds and writes nothing.
pub(super) async fn load(config_path: &Path) -> Result<Rc<Gateway>, Vec<String>> {
    let mut config = config::load(config_path).map_err(control::lines)?;
    write_nothing(&mut config);
    build(config).await
}

fn write_nothing(config: &mut Config) {
    config.access_log.target = AccessLogTarget::Off;
    let listeners = config.listeners.values_mut();
    listeners
        .filter_map(|listener| listener.tls.as_mut())
        .for_each(|tls| tls.key_log = None);
}

async fn build(config: Config) -> Result<Rc<Gateway>, Vec<String>> {
    let modules = process::modules_for_check(&config).await?;
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
    let (lists, peers) = process::peers_for_check(&config).await?;
    let memory = SharedMemory {
        zones,
        metrics: Recorder::alone(config.metrics.max_series).map_err(control::lines)?,
        peers,
        flights: process::private_flights().map_err(control::lines)?,
        spill_file: None,
        files: process::files_for_check(&config)
            .await
            .map_err(control::lines)?,
    };
    let engine = Gateway::engine(&config)?;
    let identity = Identity {
        id: 0,
        ticket_chain: TicketChain::new(SystemTime::now()).map_err(control::lines)?,
    };
    Gateway::build(Rc::new(config), engine, opened, memory, &lists, &identity).await
}
