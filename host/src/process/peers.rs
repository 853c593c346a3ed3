//! Peers of the control socket, and which of them may ask: its mode lets the master's user in, whose workers may be, too.

use std::fs;

use rustix::process::geteuid;
use tokio::net::unix::UCred;

/// Refuses processes that this master or the one before it has started: an attacker who has taken over a worker could otherwise have
/// a binary of its own run, by an upgrade, without the worker's limits. Their workers and helpers cannot start others, so
/// that who has connected is who asks. The error is a line for a person.
pub fn check(peer: &UCred, before: Option<u32>) -> Result<(), String> {
    // Another user is root, and workers that are not this user's cannot open the socket.
    if peer.uid() != geteuid().as_raw() {
        return Ok(());
    }
    let pid = match peer.pid().map(u32::try_from) {
        // A process of another pid namespace is none of ours.
        None | Some(Ok(0) | Err(_)) => return Ok(()),
        Some(Ok(pid)) => pid,
    };
    // Process 1 is the parent of whoever has lost its own. It runs no upgrade.
    let own = Some(std::process::id()).filter(|own| *own != 1);
    let masters: Vec<u32> = own.into_iter().chain(before).collect();
    match comes_from(pid, &masters) {
        Some(false) => Ok(()),
        Some(true) => Err(format!("process {pid} is a gateway's worker or helper")),
        None => Err(format!("process {pid} has ended")),
    }
}

/// Whether one of these has started the process, or its parent, and so on. None when it is not there any more.
fn comes_from(pid: u32, these: &[u32]) -> Option<bool> {
    let mut parent = parent(pid)?;
    for _ in 0..ANCESTORS_AT_MOST {
        if these.contains(&parent) {
            return Some(true);
        }
        match self::parent(parent) {
            Some(next) => parent = next,
            None => break,
        }
    }
    Some(false)
}

/// Ids are used again: without a bound a walk that is overtaken by that could go round.
const ANCESTORS_AT_MOST: usize = 64;

/// proc_pid_stat(5), field 4. The name before it may have any bytes in it.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let fields = std::str::from_utf8(&stat[after_name..]).ok()?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use tokio::net::UnixStream;

    use super::*;

    #[test]
    fn processes_are_known_by_who_has_started_them() {
        let own = std::process::id();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        assert_eq!(comes_from(pid, &[own]), Some(true));
        let parent = std::os::unix::process::parent_id();
        assert_eq!(comes_from(pid, &[parent]), Some(true));
        assert_eq!(comes_from(own, &[own, pid]), Some(false));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(comes_from(pid, &[own]), None);
    }

    #[tokio::test]
    async fn who_was_not_started_by_a_master_may_ask() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = ours.peer_cred().unwrap();
        assert_eq!(check(&peer, None), Ok(()));
        let refused = check(&peer, Some(std::os::unix::process::parent_id())).unwrap_err();
        assert!(
            refused.ends_with("is a gateway's worker or helper"),
            "{refused}"
        );
    }
}
