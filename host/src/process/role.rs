//! Roles of the processes that the master starts: what each is started by, and what is left to it of the system.
//!
//! A role is a variant of [`Role`] and its [`Needs`]; nothing else of its confinement is written elsewhere. This file has the
//! master's side: how such a process is started. [`super::confine`] has the process's own.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use command_fds::CommandFdExt;
use rustix::process::geteuid;
use tokio::process::Command;

use crate::config::Identity;

use super::syscalls::{Allowed, EVENT_LOOP, INTERRUPTS};

/// Purpose of a process that the master starts from this binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Serves clients, until it is told to drain.
    Worker,
    /// Compiles one plugin's module: bytes of a stranger in, machine code out.
    Compiler,
    /// Talks to the authority that certificates are ordered from, for one order.
    Acme,
    /// Asks the DNS for the addresses of peers.
    Fetch,
}

/// Command and confinement of a role.
pub struct Needs {
    /// Hidden command that this binary is started with.
    pub command: &'static str,
    /// Name that `ps` and `top` show, at most 15 bytes.
    pub process_name: &'static CStr,
    /// Limits of one process. None: those of `[workers]` hold.
    pub limits: Option<Limits>,
    /// Whether the kernel kills the process when its master dies. A worker lives on to finish its requests.
    pub dies_with_master: bool,
    /// System calls that are left to it.
    pub allowed: Allowed,
}

/// Resources of one process. It is ended where it wants more.
pub struct Limits {
    pub address_space_bytes: u64,
    /// Time on the processor, over all its threads.
    pub cpu_seconds: u64,
}

const WORKER: Needs = Needs {
    command: "worker",
    process_name: c"castling-worker",
    limits: None,
    dies_with_master: false,
    allowed: Allowed {
        sockets: true,
        writes_files: true,
        more: &[EVENT_LOOP, INTERRUPTS],
    },
};

const COMPILER: Needs = Needs {
    command: "compile",
    process_name: c"castling-build",
    limits: Some(COMPILER_LIMITS),
    dies_with_master: true,
    allowed: Allowed {
        sockets: false,
        writes_files: false,
        more: &[],
    },
};

const ACME: Needs = Needs {
    command: "acme",
    process_name: c"castling-acme",
    limits: Some(Limits {
        address_space_bytes: 1024 * 1024 * 1024,
        cpu_seconds: 60,
    }),
    dies_with_master: true,
    allowed: Allowed {
        sockets: true,
        writes_files: false,
        more: &[EVENT_LOOP],
    },
};

const FETCH: Needs = Needs {
    command: "fetch",
    process_name: c"castling-fetch",
    limits: Some(Limits {
        address_space_bytes: 1024 * 1024 * 1024,
        // Those of years: it lives as long as its master.
        cpu_seconds: 100_000_000,
    }),
    dies_with_master: true,
    allowed: Allowed {
        sockets: true,
        writes_files: false,
        more: &[EVENT_LOOP],
    },
};

/// Limits of a process that compiles.
pub const COMPILER_LIMITS: Limits = Limits {
    address_space_bytes: 4 * 1024 * 1024 * 1024,
    cpu_seconds: 60,
};

impl Role {
    /// All roles, for tests.
    #[cfg(test)]
    pub const ALL: [Self; 4] = [Self::Worker, Self::Compiler, Self::Acme, Self::Fetch];

    /// Command and confinement of the role.
    pub const fn needs(self) -> &'static Needs {
        match self {
            Self::Worker => &WORKER,
            Self::Compiler => &COMPILER,
            Self::Acme => &ACME,
            Self::Fetch => &FETCH,
        }
    }

    /// A command that starts a process of this role, with these descriptors and `title` as its command line's first word.
    /// Arguments and standard streams are the caller's to add.
    ///
    /// The process runs as `user`, in a process group of its own (Ctrl-C on the terminal is for the master, who then ends
    /// its children in order), and is killed when its handle is dropped. The descriptors are closed here when the command is
    /// dropped.
    pub fn start(self, title: &str, user: Option<&Identity>, inherited: Vec<OwnedFd>) -> Command {
        let mut command = Command::new(super::executable());
        command
            .arg0(format!("castling: {title}"))
            .arg(self.needs().command)
            .process_group(0)
            .kill_on_drop(true)
            .preserved_fds(inherited);
        empty_environment(&mut command);
        run_as(&mut command, user);
        command
    }
}

/// Has the process run as this user, in this group and in no other, from its first instruction on: none of its code ever
/// runs as root. A master that is not root is that user already (see [`super::ownership::check`]).
fn run_as(command: &mut Command, user: Option<&Identity>) {
    if let Some(user) = user
        && geteuid().is_root()
    {
        // The standard library gives up root's other groups as well where a uid is set.
        command.uid(user.uid).gid(user.gid);
    }
}

/// Gives the process the time zone, and nothing else of the master's environment, where secrets for `from_env` are.
/// (`RUST_BACKTRACE` would change nothing: a panic is a line of the log.)
fn empty_environment(command: &mut Command) {
    command.env_clear();
    if let Some(zone) = std::env::var_os(TIME_ZONE) {
        command.env(TIME_ZONE, zone);
    }
}

const TIME_ZONE: &str = "TZ";
