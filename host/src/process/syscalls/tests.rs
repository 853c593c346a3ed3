//! The filters in force, each in a process of its own.

use std::io::{Error, ErrorKind};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::super::role::Role;
use super::super::sys;
use super::*;

/// Variable with the role and the task of the process below, done after it has given up the rest.
const VICTIM: &str = "CASTLING_TEST_VICTIM";

/// Process of the other tests: a filter cannot be taken off again, so each has its own.
#[test]
#[ignore = "it does something to its process, and is run by the other tests"]
fn victim() {
    let Ok(task) = std::env::var(VICTIM) else {
        return;
    };
    let (role, task) = task.split_once(' ').unwrap();
    let known = Role::ALL
        .into_iter()
        .find(|known| known.needs().command == role);
    give_up_all_but(&known.unwrap().needs().allowed).unwrap();
    match task.split_once(' ') {
        Some(("call", number)) => {
            let returned = sys::call_with_zeroes(number.parse().unwrap());
            panic!("{number} has returned: {returned:?}");
        }
        Some(("refused", number)) => {
            let error = sys::call_with_zeroes(number.parse().unwrap()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        }
        _ => live(role == "worker"),
    }
}

/// Does what a worker, or a helper, does all its life.
fn live(is_worker: bool) {
    std::thread::spawn(|| ()).join().unwrap();
    std::fs::read("/proc/self/status").unwrap();
    let refused = |error: Error| assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    refused(Command::new("/bin/sh").spawn().unwrap_err());
    refused(std::fs::create_dir("/tmp/castling-test-folder").unwrap_err());
    let file = std::env::temp_dir().join(format!("castling-test-{}", std::process::id()));
    let listener = std::net::TcpListener::bind("127.0.0.1:0");
    if !is_worker {
        refused(std::fs::File::create(file).unwrap_err());
        refused(listener.unwrap_err());
        return;
    }
    let opened = std::fs::File::create_new(&file).unwrap();
    // Calls of a spill file.
    opened.write_all_at(b"spilled", 1 << 20).unwrap();
    let holes = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fallocate(&opened, holes, 0, 1 << 20) {
        Ok(()) | Err(Errno::OPNOTSUPP) => {}
        Err(error) => panic!("{error}"),
    }
    let reread = std::fs::File::open(&file).unwrap();
    let mut seen = [0; 7];
    reread.read_exact_at(&mut seen, 1 << 20).unwrap();
    assert_eq!(&seen, b"spilled");
    refused(std::fs::remove_file(&file).unwrap_err());
    refused(listener.unwrap_err());
    let connected = TcpStream::connect("127.0.0.1:1").unwrap_err();
    assert_eq!(connected.kind(), ErrorKind::ConnectionRefused);
    for (domain, kind) in [
        (libc::AF_INET, libc::SOCK_RAW),
        (libc::AF_PACKET, libc::SOCK_DGRAM),
        (libc::AF_VSOCK, libc::SOCK_STREAM),
    ] {
        let made = socket2::Socket::new(domain.into(), kind.into(), None);
        refused(made.unwrap_err());
    }
    rustix::thread::sched_getaffinity(None).unwrap();
    let other = rustix::process::getppid().unwrap();
    refused(
        rustix::process::kill_process(other, rustix::process::Signal::CONT)
            .unwrap_err()
            .into(),
    );
}

fn run(task: &str) -> (ExitStatus, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["process::syscalls::tests::victim", "--exact", "--ignored"])
        .env(VICTIM, task)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status, String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn what_only_somebody_else_would_do_ends_the_process() {
    for call in FATAL {
        let (status, said) = run(&format!("worker call {call}"));
        assert_eq!(status.signal(), Some(libc::SIGSYS), "call {call}: {said}");
    }
    let (status, said) = run(&format!("compile call {}", libc::SYS_execve));
    assert_eq!(status.signal(), Some(libc::SIGSYS), "{said}");
}

#[test]
fn what_is_not_needed_is_refused() {
    for call in [
        libc::SYS_unlinkat,
        libc::SYS_linkat,
        libc::SYS_symlinkat,
        libc::SYS_fchownat,
        libc::SYS_fchmodat,
        libc::SYS_listen,
        libc::SYS_clone,
        libc::SYS_kill,
        libc::SYS_personality,
        libc::SYS_seccomp,
    ] {
        let (status, said) = run(&format!("worker refused {call}"));
        assert!(status.success(), "call {call}: {said}");
    }
}

#[test]
fn what_is_needed_works() {
    for role in ["worker", "compile"] {
        let (status, said) = run(&format!("{role} live"));
        assert!(status.success(), "{role}: {said}");
    }
}

#[test]
fn no_call_is_both_needed_and_fatal() {
    for role in Role::ALL {
        let rules = rules(&role.needs().allowed).unwrap();
        let both = FATAL.iter().find(|call| rules.contains_key(call));
        assert_eq!(both, None);
    }
}
