//! Descriptors that a worker has inherited, and limits that a helper sets on itself.
#![allow(
    unsafe_code,
    reason = "a descriptor that came with the process is known by its number only"
)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::Mutex;

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

/// Takes a descriptor that this process has inherited, and keeps it from its own children.
///
/// Fails when the number is one of the standard streams, is not open or was taken before.
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    static TAKEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());
    let mut taken = TAKEN
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    if fd <= LAST_STANDARD_FD || taken.contains(&fd) {
        let text = format!("descriptor {fd} cannot be taken");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    if !std::path::Path::new(&format!("/proc/self/fd/{fd}")).exists() {
        let text = format!("descriptor {fd} was not inherited");
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    taken.push(fd);
    // SAFETY: the descriptor is open (it was listed just now), is no standard stream, and is handed out once only
    // (`taken`). The master has opened it for this process, so that nothing else in it owns the number.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    let flags = fcntl_getfd(&owned)?;
    fcntl_setfd(&owned, flags | FdFlags::CLOEXEC)?;
    Ok(owned)
}

const LAST_STANDARD_FD: RawFd = 2;

/// Bounds what this process may use from now on: address space, CPU time, and no core file.
pub fn limit_self(address_space_bytes: u64, cpu_seconds: u64) -> io::Result<()> {
    for (resource, soft, hard) in [
        (Resource::As, address_space_bytes, address_space_bytes),
        // The soft limit is a signal that says which limit it was (XCPU), the hard one is KILL.
        (Resource::Cpu, cpu_seconds, cpu_seconds + 1),
        (Resource::Core, 0, 0),
    ] {
        setrlimit(
            resource,
            Rlimit {
                current: Some(soft),
                maximum: Some(hard),
            },
        )?;
    }
    Ok(())
}

/// What `ps` and `top` show, at most 15 bytes; started from [`super::executable`] it would be `exe`.
pub fn set_process_name(name: &CStr) {
    // A name is a convenience.
    let _ = rustix::thread::set_name(name);
}

/// Lets this process and those that it starts open as many files as they may: each connection is one.
pub fn raise_open_files() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )?)
}

/// Ends a process at once. One that has ended already is no error.
pub fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid
        && let Err(error) = kill_process(pid, Signal::KILL)
        && error != rustix::io::Errno::SRCH
    {
        tracing::warn!(pid = pid.as_raw_nonzero().get(), %error, "a process could not be ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_streams_and_closed_descriptors_are_not_handed_out() {
        assert_eq!(
            inherited(2).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        assert_eq!(
            inherited(-1).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        assert_eq!(
            inherited(1_000_000).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
