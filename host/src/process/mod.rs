//! Processes: one master, one worker for each core, a helper for each compilation.
//!
//! The master holds what outlives a generation (the config's path, listening sockets, the control socket) and never
//! sees a client's byte. Everything that it starts is this binary again, with a hidden command.

mod activation;
mod backoff;
mod channel;
mod compile;
mod confine;
mod control;
mod generation;
mod instance_lock;
mod master;
mod merge;
mod metrics;
mod module_store;
mod notify;
mod orphans;
mod ownership;
mod report;
mod signals;
mod socket_options;
mod sockets;
mod sys;
mod syscalls;
mod unix_socket;
mod upgrade;
mod worker;
mod worker_process;
mod zone_store;
mod zones;

pub use compile::{modules_for_check, read_module, run_helper};
pub use control::{Reply, Request, ask};
pub use master::{run as run_master, take_over};
pub use report::MasterStatus;
pub use worker::run as run_worker;
pub use zones::private_zones;

/// What a worker and a helper are started from: this binary, also when its file was replaced since.
const EXECUTABLE: &str = "/proc/self/exe";
