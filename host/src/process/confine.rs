//! What workers and helpers go without: files beyond a number, other cores, other users, system calls.
//!
//! The order matters. The master starts them as the user that they stay ([`run_as`]), so that none of their code ever runs
//! as root. A worker takes over its descriptors and makes its engine first: taking over looks into `/proc/self`,
//! and wasmtime opens `/proc/self/pagemap`, which belongs to root as soon as the process is not dumpable. Then, before it
//! maps a plugin's code or meets a client's byte, it gives up the rest ([`seal_worker`]).

use rustix::process::{DumpableBehavior, Signal, geteuid, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, CpuSet, sched_setaffinity, set_capabilities, set_no_new_privs,
};
use tokio::process::Command;

use crate::config::{Identity, Pin, Workers};

use super::sys;
use super::syscalls::{self, Role};

/// Has the process that this starts run as this user, in this group and in no other. A master that is not root is that
/// user already (see [`super::ownership::check`]).
pub fn run_as(command: &mut Command, identity: Option<&Identity>) {
    if let Some(identity) = identity
        && geteuid().is_root()
    {
        // The standard library gives up root's other groups as well where a uid is set.
        command.uid(identity.uid).gid(identity.gid);
    }
}

/// Gives the process that this starts the time zone, and nothing else of the master's environment, where secrets for
/// `from_env` are. (`RUST_BACKTRACE` would change nothing: a panic is a line of the log.)
pub fn empty_environment(command: &mut Command) {
    command.env_clear();
    if let Some(zone) = std::env::var_os(TIME_ZONE) {
        command.env(TIME_ZONE, zone);
    }
}

const TIME_ZONE: &str = "TZ";

/// At a worker's begin: its core, its limit of open files, and that nothing it could execute makes it more than it is.
/// The error is a line for a person.
pub fn settle_worker(workers: &Workers, slot: usize) -> Result<(), String> {
    let files = workers.max_open_files.as_ref();
    sys::limit_open_files(files.map(|files| files.count)).map_err(|error| match files {
        Some(files) => format!("{}: max_open_files {}: {error}", files.place, files.count),
        None => format!("the limit of open files cannot be raised: {error}"),
    })?;
    if let Some(core) = workers.pin.core_of(slot) {
        let mut only = CpuSet::new();
        only.set(core);
        sched_setaffinity(None, &only).map_err(|error| {
            format!("workers.pin: worker {slot} cannot be bound to core {core}: {error}")
        })?;
    }
    be_ordinary()
}

/// When it has opened what only a dumpable process may open. The error is a line for a person.
pub fn seal_worker(workers: &Workers) -> Result<(), String> {
    if !workers.core_dumps {
        be_secret()?;
    }
    match workers.seccomp {
        true => give_up(Role::Worker),
        false => Ok(()),
    }
}

/// A helper's, all at once: it ends with its master, and what it reads it may do no more with than compute.
pub fn seal_helper(seccomp: bool) -> Result<(), String> {
    // After the change of user, which would take it back. A master that was killed before has closed the helper's
    // standard input.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("the master's death: {error}"))?;
    be_ordinary()?;
    be_secret()?;
    match seccomp {
        true => give_up(Role::Helper),
        false => Ok(()),
    }
}

/// Nothing that it could execute makes it more than it is, and of root's rights it has none: a unit with
/// `AmbientCapabilities=` gives them to whatever the master starts.
fn be_ordinary() -> Result<(), String> {
    // Root's workers open root's files by it, and another user's.
    if !geteuid().is_root() {
        give_up_capabilities()?;
    }
    set_no_new_privs(true).map_err(|error| format!("no_new_privs: {error}"))
}

/// The ambient ones go with the others (capabilities(7)).
fn give_up_capabilities() -> Result<(), String> {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(|error| format!("capabilities: {error}"))
}

/// No core file, and no other process of the same user reads its memory: there are keys and requests in it.
fn be_secret() -> Result<(), String> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| format!("not dumpable: {error}"))
}

fn give_up(role: Role) -> Result<(), String> {
    syscalls::give_up(role).map_err(|error| {
        format!(
            "system calls cannot be filtered: {error}; `seccomp = false` in [workers] goes without"
        )
    })
}

impl Pin {
    /// The core of the worker in this slot; `None`: any.
    pub fn core_of(&self, slot: usize) -> Option<usize> {
        match self {
            Self::No => None,
            Self::Cores(cores) => cores.get(slot % cores.len().max(1)).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::thread::{
        capabilities, capability_is_in_ambient_set, configure_capability_in_ambient_set,
    };

    use super::*;

    #[test]
    fn nothing_is_left_of_capabilities_that_were_given_at_the_start() {
        // They are a thread's.
        let thread = std::thread::spawn(|| {
            let mut sets = capabilities(None).unwrap();
            if sets.permitted.contains(CapabilitySet::NET_BIND_SERVICE) {
                sets.inheritable |= CapabilitySet::NET_BIND_SERVICE;
                set_capabilities(None, sets).unwrap();
                configure_capability_in_ambient_set(CapabilitySet::NET_BIND_SERVICE, true).unwrap();
            }
            give_up_capabilities().unwrap();
            let left = capabilities(None).unwrap();
            assert!((left.effective | left.permitted | left.inheritable).is_empty());
            assert!(!capability_is_in_ambient_set(CapabilitySet::NET_BIND_SERVICE).unwrap());
        });
        thread.join().unwrap();
    }

    #[test]
    fn cores_are_taken_in_turn() {
        let pin = Pin::Cores(vec![4, 6]);
        let cores: Vec<_> = (0..3).map(|slot| pin.core_of(slot)).collect();
        assert_eq!(cores, [Some(4), Some(6), Some(4)]);
        assert_eq!(Pin::No.core_of(0), None);
        assert_eq!(Pin::Cores(Vec::new()).core_of(0), None);
    }
}
