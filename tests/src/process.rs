//! Facts that `/proc` tells about a process and its children.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal};

/// A process, by its id. It may have ended; then there is nothing to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process(pub u32);

impl Process {
    /// Children of the process, those that nobody has waited for included, in the order of their ids.
    pub fn children(self) -> Vec<Self> {
        let Ok(list) = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.0)) else {
            return Vec::new();
        };
        let pids = list
            .split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok());
        let mut found: Vec<Self> = pids.map(Self).collect();
        found.sort();
        found
    }

    /// Children of the process whose command line has `word` in it, in the order of their ids.
    pub fn children_with(self, word: &str) -> Vec<Self> {
        let mut found = self.children();
        found.retain(|child| child.arguments().iter().any(|arg| arg == word));
        found
    }

    /// Command line of the process.
    pub fn arguments(self) -> Vec<String> {
        let raw = fs::read(format!("/proc/{}/cmdline", self.0)).unwrap_or_default();
        let parts = raw.split(|byte| *byte == 0).filter(|part| !part.is_empty());
        parts
            .map(|part| String::from_utf8_lossy(part).into_owned())
            .collect()
    }

    /// Open descriptors. 0 when it has ended. Where the tests are not run by root, a worker shows them only with
    /// `core_dumps = true`.
    pub fn descriptors(self) -> usize {
        match fs::read_dir(format!("/proc/{}/fd", self.0)) {
            Ok(descriptors) => descriptors.count(),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                panic!("descriptors of {self:?}: {error}; its config needs core_dumps = true")
            }
            Err(_) => 0,
        }
    }

    /// Resident memory now, KiB. 0 when it has ended.
    pub fn resident_kib(self) -> u64 {
        self.status_number("VmRSS:")
    }

    /// Memory of its own that is resident now and lies in no file, KiB. 0 when it has ended.
    pub fn anonymous_kib(self) -> u64 {
        self.status_number("RssAnon:")
    }

    /// The most resident memory it ever had, KiB. 0 when it has ended.
    pub fn peak_resident_kib(self) -> u64 {
        self.status_number("VmHWM:")
    }

    /// False when there is no such process or it is a zombie.
    pub fn is_alive(self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap_or_default();
        status
            .lines()
            .any(|line| line.starts_with("State:") && !line.contains('Z') && !line.contains('X'))
    }

    /// Whether the process was stopped by a signal and not continued.
    pub fn is_stopped(self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap_or_default();
        status
            .lines()
            .any(|line| line.starts_with("State:") && line.contains("T (stopped)"))
    }

    /// The other ends of the connections that it has accepted on this port. Fails where the kernel does not let us look
    /// into that process.
    pub fn clients_on(self, port: u16) -> io::Result<Vec<SocketAddr>> {
        let pid = i32::try_from(self.0).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::NotFound)?;
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        let mut clients = Vec::new();
        for entry in fs::read_dir(format!("/proc/{}/fd", self.0))? {
            let Some(number) = entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            // A copy, which is closed again at the end of this turn.
            let copy = rustix::process::pidfd_getfd(&process, number, PidfdGetfdFlags::empty())?;
            let is_ours = rustix::net::getsockname(&copy)
                .ok()
                .and_then(|own| SocketAddr::try_from(own).ok())
                .is_some_and(|own| own.port() == port);
            // A listening socket and one whose client is gone have no other end.
            let client = rustix::net::getpeername(&copy).ok().flatten();
            if let (true, Some(client)) = (is_ours, client) {
                clients.extend(SocketAddr::try_from(client).ok());
            }
        }
        Ok(clients)
    }

    /// Connections of the process by TCP over IPv4: its own end and the other one.
    pub fn connections(self) -> Vec<(SocketAddr, SocketAddr)> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.0));
        let links = entries.into_iter().flatten().flatten();
        let links = links.filter_map(|entry| fs::read_link(entry.path()).ok());
        let sockets: HashSet<String> = links
            .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.replace(']', "")))
            .collect();
        // proc_pid_net(5): behind the number the two ends, and the inode in the tenth place.
        let table = fs::read_to_string(format!("/proc/{}/net/tcp", self.0)).unwrap_or_default();
        let connections = table.lines().skip(1).filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let is_own = sockets.contains(*fields.get(9)?);
            is_own.then_some((address(fields[1])?, address(fields[2])?))
        });
        connections.collect()
    }

    /// Sends a signal; nothing happens when the process has ended.
    pub fn signal(self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.0).ok().and_then(Pid::from_raw) {
            let _ended_before = rustix::process::kill_process(pid, signal);
        }
    }

    /// Text that `/proc/PID/status` has behind this key, its colon included. Empty when the process has ended.
    pub fn status(self, key: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_default().trim().to_owned()
    }

    fn status_number(self, key: &str) -> u64 {
        self.status(key)
            .split_ascii_whitespace()
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0)
    }
}

/// Address of the kernel's tables: `0100007F:1F90`, the address in the machine's order of bytes.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let ip = u32::from_str_radix(ip, 16).ok()?.to_ne_bytes();
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((Ipv4Addr::from(ip), port).into())
}
