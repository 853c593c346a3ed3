//! Descriptors that a worker has inherited, an option of sockets, and limits that a helper sets on itself.
#![allow(
    unsafe_code,
    reason = "a descriptor that came with the process is known by its number only; libc takes pointers"
)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit, test_kill_process,
};

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
    if !Path::new(&format!("/proc/self/fd/{fd}")).exists() {
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

/// Sets the name that `ps` and `top` show, at most 15 bytes; started from [`super::executable`] it would be `exe`.
pub fn set_process_name(name: &CStr) {
    // A name is a convenience.
    let _ = rustix::thread::set_name(name);
}

/// Lets this process and those that it starts open so many files, or as many as they may: each connection is one.
pub fn limit_open_files(count: Option<u64>) -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let current = count.or(limit.maximum);
    Ok(setrlimit(Resource::Nofile, Rlimit { current, ..limit })?)
}

/// Files that this process and those that it starts may have open, at most.
pub fn open_files_limit() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// Raises the limit of open files for good. For root, and up to `fs.nr_open`.
pub fn raise_open_files_limit(count: u64) -> io::Result<()> {
    let limit = Rlimit {
        current: Some(count),
        maximum: Some(count),
    };
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// Has a listening TCP socket hand connections over when their first bytes are there (TCP_DEFER_ACCEPT), which rustix
/// does not know. 0: at once.
pub fn set_defer_accept(socket: BorrowedFd<'_>, seconds: u32) -> io::Result<()> {
    let seconds = libc::c_int::try_from(seconds).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel reads one c_int from a pointer to one.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
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

/// Whether both paths lead to one file.
pub fn same_file(one: &Path, other: &Path) -> bool {
    match (std::fs::metadata(one), std::fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// Whether a process has ended or is about to, so that it does nothing any more: the system closes its descriptors
/// while it is there still, and a zombie stays until somebody waits for it.
pub fn has_ended(pid: u32) -> bool {
    let there = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if there.is_none_or(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH)) {
        return true;
    }
    // proc_pid_stat(5): `PID (NAME) STATE` and numbers, the sixth of which are the flags; a name may have any bytes.
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let stat = String::from_utf8_lossy(&stat);
    let mut fields = stat
        .rsplit_once(')')
        .map_or("", |(_, fields)| fields)
        .split_ascii_whitespace();
    let state = fields.next().unwrap_or_default();
    let flags = fields.nth(5).and_then(|flags| flags.parse::<u64>().ok());
    matches!(state, "Z" | "X" | "x") || flags.is_some_and(|flags| flags & PF_EXITING != 0)
}

/// The kernel's include/linux/sched.h: set before a process that ends closes its descriptors.
const PF_EXITING: u64 = 0x4;

/// A system call whose arguments are all 0.
#[cfg(test)]
pub fn call_with_zeroes(number: libc::c_long) -> io::Result<libc::c_long> {
    // SAFETY: for tests of the filters, in a process of its own that does nothing else afterwards. Null pointers and empty
    // lengths have the kernel touch no memory of this process.
    let returned = unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) };
    match returned {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(returned),
    }
}

/// Has the allocator give free pages back to the kernel, also those between what is in use.
pub fn trim_heap() {
    // SAFETY: it takes and leaves nothing but the allocator's own state, under the allocator's own lock.
    #[cfg(target_env = "gnu")]
    let _anything_freed = unsafe { libc::malloc_trim(KEPT_AT_THE_TOP_BYTES) };
}

/// Free memory that the allocator keeps for what comes next.
#[cfg(target_env = "gnu")]
const KEPT_AT_THE_TOP_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_killed_process_has_ended_when_its_descriptors_close() {
        let mut child = Command::new("sleep")
            .arg("1000")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        assert!(!has_ended(child.id()));
        let mut stdout = child.stdout.take().unwrap();
        kill(child.id());
        let mut nothing = Vec::new();
        stdout.read_to_end(&mut nothing).unwrap();
        // The process is a zombie: nobody has waited for it.
        assert!(has_ended(child.id()));
        child.wait().unwrap();
        assert!(has_ended(child.id()));
    }

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
