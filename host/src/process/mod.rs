//! Processes: one master, one worker for each core, a helper for each compilation.
//!
//! The master holds what outlives a generation (the config's path, listening sockets, the control socket) and never
//! sees a client's byte. Everything that it starts is this binary again, with a hidden command.

mod acme;
mod activation;
mod backoff;
mod channel;
mod child;
mod compile;
mod confine;
mod control;
mod flights;
mod generation;
mod granted_files;
mod instance_lock;
mod master;
mod merge;
mod metrics;
mod module_store;
mod notify;
mod orders;
mod orphans;
mod ownership;
mod peers;
mod report;
mod role;
mod rows;
mod signals;
mod socket_options;
mod sockets;
mod spill;
mod sys;
mod syscalls;
mod unix_socket;
mod upgrade;
mod upstreams;
mod worker;
mod zone_store;
mod zones;

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use acme::{AcmeReport, check as check_acme, run_acme_helper};
pub use compile::{modules_for_check, read_module, run_helper};
pub use control::{Reply, Request, ask};
pub use flights::private_flights;
pub use granted_files::for_check as files_for_check;
pub use master::{run as run_master, take_over};
pub use report::{CertificateReport, DeathsReport, GenerationReport, MasterStatus, WorkerReport};
#[cfg(test)]
pub use role::Role;
pub use spill::check as check_spill_dir;
pub use upstreams::{
    CheckReport, PeerOrder, PeerReport, SourceReport, UpstreamReport, peers_for_check,
    run_fetch_helper,
};
pub use worker::run as run_worker;
pub use zones::private_zones;

/// A number that no other gateway has: chosen by chance when a master needs it first.
fn gateway_id() -> u64 {
    static ID: OnceLock<u64> = OnceLock::new();
    *ID.get_or_init(|| RandomState::new().hash_one(std::process::id()))
}

/// Path that workers and helpers are started from: this binary, also when its file was replaced since.
///
/// Under valgrind, by which instructions are counted, the link names this binary but leads to valgrind's own; then the name
/// counts. The name of a file that was replaced leads nowhere.
fn executable() -> PathBuf {
    let itself = Path::new("/proc/self/exe");
    let file = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino()));
    match fs::read_link(itself) {
        Ok(named) if file(&named).is_ok_and(|named| file(itself).is_ok_and(|exe| exe != named)) => {
            named
        }
        Ok(_) | Err(_) => itself.to_owned(),
    }
}
