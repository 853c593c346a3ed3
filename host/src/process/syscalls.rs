//! Which system calls a worker, and a helper that compiles, may still make: seccomp filters.
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

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// Whose filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Files, sockets, threads, signals and timers.
    Worker,
    /// Reads, computes, writes: no socket, no file that is not open yet but for reading.
    Helper,
}

/// Gives up what the role does not need, for all threads and for good. Sets no_new_privs. Fails where the kernel has no
/// seccomp filters, and on processors without a list.
pub fn give_up(role: Role) -> Result<(), String> {
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
        (allowed(role)?, eperm, SeccompAction::Allow),
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

fn allowed(role: Role) -> Result<BTreeMap<i64, Vec<SeccompRule>>, String> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let lists = match role {
        Role::Worker => vec![COMMON, COMMON_OF_ARCH, WORKER, WORKER_OF_ARCH],
        Role::Helper => vec![COMMON, COMMON_OF_ARCH],
    };
    for &call in lists.into_iter().flatten() {
        rules.insert(call, Vec::new());
    }
    let mut conditional = vec![
        // Of two errors the newest filter's counts, so this one leaves it to the other.
        (libc::SYS_clone3, Vec::new()),
        // Threads, no processes.
        (
            libc::SYS_clone,
            vec![vec![has(0, libc::CLONE_THREAD as u64)]],
        ),
        // To itself: abort() and timers.
        (
            libc::SYS_tgkill,
            vec![vec![is(0, u64::from(std::process::id()))]],
        ),
        // To look at its own limits, not to set any.
        (libc::SYS_prlimit64, vec![vec![is(0, 0), is(2, 0)]]),
        (
            libc::SYS_prctl,
            PRCTLS.iter().map(|&option| vec![is(0, option)]).collect(),
        ),
        (
            libc::SYS_ioctl,
            IOCTLS.iter().map(|&request| vec![is(1, request)]).collect(),
        ),
    ];
    if role == Role::Helper {
        let reads_only = masked(
            2,
            (libc::O_ACCMODE | libc::O_CREAT) as u64,
            libc::O_RDONLY as u64,
        );
        conditional.push((libc::SYS_openat, vec![vec![reads_only]]));
    } else {
        conditional.push((libc::SYS_openat, Vec::new()));
        conditional.push((libc::SYS_socket, sockets()));
        conditional.push((
            libc::SYS_socketpair,
            vec![vec![is(0, libc::AF_UNIX as u64)]],
        ));
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

/// Without SOCK_CLOEXEC and SOCK_NONBLOCK.
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

/// What one may ask of a descriptor: whether it is a terminal, how much there is to read, how much of what was written waits,
/// non-blocking, close-on-exec, and which
/// pages a guest has written to (PAGEMAP_SCAN, wasmtime).
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

const COMMON: &[c_long] = &[
    // Files that are open, and looking at others.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fadvise64,
    // Memory, and code in it.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_mincore,
    libc::SYS_msync,
    libc::SYS_membarrier,
    libc::SYS_memfd_create,
    // Threads.
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_getcpu,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // Time.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    // Who and where it is.
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrusage,
    libc::SYS_getrandom,
    libc::SYS_ppoll,
];

#[cfg(target_arch = "x86_64")]
const COMMON_OF_ARCH: &[c_long] = &[
    libc::SYS_arch_prctl,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_dup2,
    libc::SYS_getdents,
    libc::SYS_getrlimit,
    libc::SYS_time,
    libc::SYS_poll,
];

#[cfg(not(target_arch = "x86_64"))]
const COMMON_OF_ARCH: &[c_long] = &[];

const WORKER: &[c_long] = &[
    // Connections. No `listen`: the master's sockets listen already, and there are to be no others.
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendfile,
    libc::SYS_splice,
    // The event loop.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_pselect6,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    // The clock that interrupts guests.
    libc::SYS_timer_create,
    libc::SYS_timer_settime,
    libc::SYS_timer_gettime,
    libc::SYS_timer_getoverrun,
    libc::SYS_timer_delete,
    // Logs and kv zones.
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_flock,
];

#[cfg(target_arch = "x86_64")]
const WORKER_OF_ARCH: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_pipe,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
];

#[cfg(not(target_arch = "x86_64"))]
const WORKER_OF_ARCH: &[c_long] = &[];

/// Running another program, looking into other processes, changing who one is or what the system is.
const FATAL: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_vhangup,
];

#[cfg(test)]
mod tests;
