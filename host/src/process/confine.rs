//! Confinement of workers and helpers, from inside: they give up files beyond a number, other cores, other users, system
//! calls. What each role keeps is in [`super::role`].
//!
//! The order matters. The master starts them as the user that they stay ([`Role::start`]), so that none of their code ever
//! runs as root. A process first limits itself ([`settle`]), then takes over its descriptors, and a worker makes its
//! engine: taking over looks into `/proc/self`, and wasmtime opens `/proc/self/pagemap`, which belongs to root as soon as
//! the process is not dumpable. Then, before it maps a plugin's code or meets a client's byte or a stranger's module, it
//! gives up the rest ([`seal`]).

use std::os::fd::RawFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use rustix::process::{DumpableBehavior, Signal, geteuid, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, CpuSet, sched_setaffinity, set_capabilities, set_no_new_privs,
};
use tokio::runtime::Runtime;

use crate::config::{Pin, Workers};

use super::role::{Limits, Role};
use super::{sys, syscalls};

/// Limits this process as its role wants it: address space and time, its master's death, and that nothing it could execute
/// makes it more than it is. The error is a line for a person.
pub fn settle(role: Role) -> Result<(), String> {
    let needs = role.needs();
    if let Some(Limits {
        address_space_bytes,
        cpu_seconds,
    }) = &needs.limits
    {
        sys::limit_self(*address_space_bytes, *cpu_seconds)
            .map_err(|error| format!("limits: {error}"))?;
    }
    if needs.dies_with_master {
        // The change of user, which would take the signal back, is over. A master that was killed before this has closed the
        // helper's standard input.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| format!("the master's death: {error}"))?;
    }
    be_ordinary()
}

/// Limits a worker as `[workers]` wants it: its core and its open files, and then as [`settle`]. The error is a line for a
/// person.
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
    settle(Role::Worker)
}

/// Confinement that a config may take off.
pub struct Seal {
    /// Whether a crash may leave a core file, with keys and requests in it.
    pub core_dumps: bool,
    /// Whether system calls are filtered.
    pub seccomp: bool,
}

/// Gives up the rest, when the process has opened what only a dumpable one may open. The error is a line for a person.
pub fn seal(role: Role, seal: &Seal) -> Result<(), String> {
    if !seal.core_dumps {
        be_secret()?;
    }
    if !seal.seccomp {
        return Ok(());
    }
    syscalls::give_up_all_but(&role.needs().allowed).map_err(|error| {
        format!(
            "system calls cannot be filtered: {error}; `seccomp = false` in [workers] goes without"
        )
    })
}

/// Sees to it that nothing this process could execute makes it more than it is, and that it has none of root's rights: a unit
/// with `AmbientCapabilities=` gives them to whatever the master starts.
fn be_ordinary() -> Result<(), String> {
    // Workers of root open root's files by them, and another user's.
    if !geteuid().is_root() {
        give_up_capabilities()?;
    }
    set_no_new_privs(true).map_err(|error| format!("no_new_privs: {error}"))
}

/// Gives up all capabilities; the ambient ones go with the others (capabilities(7)).
fn give_up_capabilities() -> Result<(), String> {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(|error| format!("capabilities: {error}"))
}

/// Lets no core file be written and no other process of the same user read this one's memory: there are keys and requests
/// in it.
fn be_secret() -> Result<(), String> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| format!("not dumpable: {error}"))
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

/// Limits this process to what a helper of this role needs. Returns the runtime that it works in, and the channel to its master
/// that it has inherited.
pub fn begin_helper(
    role: Role,
    channel: RawFd,
    seccomp: bool,
) -> anyhow::Result<(Runtime, StdUnixStream)> {
    sys::set_process_name(role.needs().process_name);
    settle(role).map_err(anyhow::Error::msg)?;
    let channel = StdUnixStream::from(sys::inherited(channel)?);
    channel.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let limits = Seal {
        core_dumps: false,
        seccomp,
    };
    seal(role, &limits).map_err(anyhow::Error::msg)?;
    Ok((runtime, channel))
}

#[cfg(test)]
mod tests {
    use rustix::thread::{
        capabilities, capability_is_in_ambient_set, configure_capability_in_ambient_set,
    };

    use super::*;

    #[test]
    fn nothing_is_left_of_capabilities_that_were_given_at_the_start() {
        // Capabilities are a thread's.
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
