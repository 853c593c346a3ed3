//! System calls that a worker or a helper may still make: seccomp filters.
//!
//! Three filters, of which the strictest answer counts. One allows by name what these processes need and answers
//! everything else with EPERM, as if the kernel had refused it. One ends the process at once for calls that nothing in
//! it ever makes, and that somebody would make who has taken it over. The third says that there is no `clone3`,
//! whose flags a filter cannot see, so that the C library takes `clone`, which makes threads here and no processes.
//!
//! The first list comes from running all end-to-end tests with everything else logged, and from what the C library may
//! choose to use instead (`newfstatat` or `statx`, `accept` or `accept4`): a library that is updated must not break a
//! gateway. The kernel keeps a bitmap of calls that a filter allows whatever their arguments are (5.11): those of
//! a request do not run the filters. Measured: 40 to 70 ns more a call (one that does run them: 500), of which a proxied
//! request makes four.

mod lists;

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use lists::{COMMON, COMMON_OF_ARCH, FATAL, SOCKETS, WRITES};

pub use lists::{EVENT_LOOP, INTERRUPTS};

/// System calls that a process may go on making, beside those that every process needs.
pub struct Allowed {
    /// Whether it may make sockets of the internet and of this machine, accept and connect. None may listen.
    pub sockets: bool,
    /// Whether it may open files for writing and make new ones. Otherwise it opens files for reading only, and writes to what
    /// is open already.
    pub writes_files: bool,
    /// Further calls, whatever their arguments are.
    pub more: &'static [&'static [c_long]],
}

/// Gives up every call that is not allowed, for all threads and for good. Sets no_new_privs. Fails where the kernel has no
/// seccomp filters, and on processors without a list.
pub fn give_up_all_but(allowed: &Allowed) -> Result<(), String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)
        .ok()
        .filter(|_| cfg!(any(target_arch = "x86_64", target_arch = "aarch64")))
        .ok_or_else(|| format!("there is no list of calls for {}", std::env::consts::ARCH))?;
    let eperm = SeccompAction::Errno(libc::EPERM as u32);
    let enosys = SeccompAction::Errno(libc::ENOSYS as u32);
    let always = |calls: &[c_long]| -> BTreeMap<i64, Vec<SeccompRule>> {
        calls.iter().map(|&call| (call, Vec::new())).collect()
    };
    // The last one in allows none of the calls that put it in.
    let filters = [
        (
            always(FATAL),
            SeccompAction::Allow,
            SeccompAction::KillProcess,
        ),
        (always(&[libc::SYS_clone3]), SeccompAction::Allow, enosys),
        (rules(allowed)?, eperm, SeccompAction::Allow),
    ];
    for (rules, otherwise, matching) in filters {
        let filter = SeccompFilter::new(rules, otherwise, matching, arch);
        let program: seccompiler::BpfProgram = filter
            .and_then(TryInto::try_into)
            .map_err(|error| error.to_string())?;
        seccompiler::apply_filter_all_threads(&program).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Rules of the filter that allows calls by name.
fn rules(allowed: &Allowed) -> Result<BTreeMap<i64, Vec<SeccompRule>>, String> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut lists = vec![COMMON, COMMON_OF_ARCH];
    let mut conditional = conditional_of_all();
    if allowed.sockets {
        lists.push(SOCKETS);
        conditional.push((libc::SYS_socket, sockets()));
        let of_this_machine = vec![vec![is(0, libc::AF_UNIX as u64)]];
        conditional.push((libc::SYS_socketpair, of_this_machine));
    }
    if allowed.writes_files {
        lists.extend([WRITES, &[libc::SYS_openat]]);
    } else {
        let mask = (libc::O_ACCMODE | libc::O_CREAT) as u64;
        let reads_only = masked(2, mask, libc::O_RDONLY as u64);
        conditional.push((libc::SYS_openat, vec![vec![reads_only]]));
    }
    for &call in lists.iter().chain(allowed.more).copied().flatten() {
        rules.insert(call, Vec::new());
    }
    for (call, alternatives) in conditional {
        let alternatives = alternatives.into_iter().map(|conditions| {
            let conditions: Result<Vec<_>, _> = conditions.into_iter().collect();
            conditions.and_then(SeccompRule::new)
        });
        let alternatives: Result<Vec<_>, _> = alternatives.collect();
        rules.insert(call, alternatives.map_err(|error| error.to_string())?);
    }
    Ok(rules)
}

/// Calls of every process that depend on their arguments, each with its alternatives.
fn conditional_of_all() -> Vec<(c_long, Vec<Vec<Condition>>)> {
    vec![
        // Two filters answer, and the newest one's error counts, so this one leaves it to the other.
        (libc::SYS_clone3, Vec::new()),
        // Threads, no processes.
        (
            libc::SYS_clone,
            vec![vec![has(0, libc::CLONE_THREAD as u64)]],
        ),
        // Signals to itself: abort() and timers.
        (
            libc::SYS_tgkill,
            vec![vec![is(0, u64::from(std::process::id()))]],
        ),
        // A look at its own limits, which sets none.
        (libc::SYS_prlimit64, vec![vec![is(0, 0), is(2, 0)]]),
        (
            libc::SYS_prctl,
            PRCTLS.iter().map(|&option| vec![is(0, option)]).collect(),
        ),
        (
            libc::SYS_ioctl,
            IOCTLS.iter().map(|&request| vec![is(1, request)]).collect(),
        ),
    ]
}

type Condition = Result<SeccompCondition, seccompiler::BackendError>;

/// Streams and datagrams of the internet and of this machine, and what the C library asks the kernel for its addresses
/// through. No raw sockets, no packets, no other families.
fn sockets() -> Vec<Vec<Condition>> {
    let kind =
        |family: i32, kind: i32| vec![is(0, family as u64), masked(1, SOCKET_KIND, kind as u64)];
    let mut alternatives = Vec::new();
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
        alternatives.push(kind(family, libc::SOCK_STREAM));
        alternatives.push(kind(family, libc::SOCK_DGRAM));
    }
    let route = is(2, libc::NETLINK_ROUTE as u64);
    alternatives.push(vec![is(0, libc::AF_NETLINK as u64), route]);
    alternatives
}

/// Bits of a socket's type without SOCK_CLOEXEC and SOCK_NONBLOCK.
const SOCKET_KIND: u64 = 0xf;

fn is(argument: u8, value: u64) -> Condition {
    SeccompCondition::new(argument, width(argument, value), SeccompCmpOp::Eq, value)
}

/// All these bits are set.
fn has(argument: u8, bits: u64) -> Condition {
    masked(argument, bits, bits)
}

fn masked(argument: u8, mask: u64, value: u64) -> Condition {
    let operator = SeccompCmpOp::MaskedEq(mask);
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

/// Numbers are ints to the kernel, whose upper half may be anything; a pointer that is to be null is one to all its
/// bits.
fn width(argument: u8, value: u64) -> SeccompCmpArgLen {
    match (argument, value) {
        (2, 0) => SeccompCmpArgLen::Qword,
        _ => SeccompCmpArgLen::Dword,
    }
}

/// Requests about a descriptor: whether it is a terminal, how much there is to read, how much of what was written waits,
/// non-blocking, close-on-exec, and which pages a guest has written to (PAGEMAP_SCAN, wasmtime).
const IOCTLS: &[u64] = &[
    libc::TCGETS,
    libc::FIONREAD,
    libc::TIOCOUTQ,
    libc::FIONBIO,
    libc::FIOCLEX,
    0xc060_6610,
];

/// Names of threads, and of memory areas (glibc's malloc), and what the processor can do (PR_GET_AUXV, the standard
/// library).
const PRCTLS: &[u64] = &[
    libc::PR_SET_NAME as u64,
    libc::PR_GET_NAME as u64,
    libc::PR_SET_VMA as u64,
    0x4155_5856,
];

#[cfg(test)]
mod tests;
