//! Debian's packages.

use std::fs;
use std::process::Command;

use anyhow::Result;

use crate::command::{self, say};

/// Whether this is Debian, and we may install packages without asking.
pub(crate) fn can_install() -> bool {
    let debian = fs::read_to_string("/etc/os-release").is_ok_and(|text| is_debian(&text));
    debian && command::is_on_path("apt-get") && privilege().is_some()
}

/// False when it could not be done: this is no Debian, we may not, or apt refuses.
pub(crate) fn install(packages: &[&str]) -> Result<bool> {
    if !can_install() {
        say!("this is no Debian on which packages can be installed without a password");
        return Ok(false);
    }
    say!("installing {} (Debian packages)", packages.join(" "));
    let updated = command::succeeds(apt_get().arg("update"))?;
    // A list that could not be renewed may still name packages that can be had.
    if !updated {
        say!("the list of packages could not be renewed; going on with the one there is");
    }
    command::succeeds(
        apt_get()
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages),
    )
}

/// Waits up to 5 minutes for another apt to end. Starts no server that a package brings.
fn apt_get() -> Command {
    let environment = ["DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1"];
    let mut apt_get = match privilege() {
        Some(Privilege::Sudo) => {
            let mut sudo = Command::new("sudo");
            sudo.args(["--non-interactive", "env"]);
            sudo
        }
        Some(Privilege::Root) | None => Command::new("env"),
    };
    apt_get.args(environment).arg("apt-get");
    apt_get.args([
        "--quiet=2",
        "-o",
        "Dpkg::Use-Pty=0",
        "-o",
        "DPkg::Lock::Timeout=300",
    ]);
    apt_get
}

enum Privilege {
    Root,
    /// `sudo` asks for no password.
    Sudo,
}

fn privilege() -> Option<Privilege> {
    if command::text(Command::new("id").arg("-u")).is_ok_and(|uid| uid == "0") {
        return Some(Privilege::Root);
    }
    let sudo = command::succeeds(command::quiet(
        Command::new("sudo").args(["--non-interactive", "true"]),
    ));
    matches!(sudo, Ok(true)).then_some(Privilege::Sudo)
}

fn is_debian(os_release: &str) -> bool {
    os_release
        .lines()
        .any(|line| matches!(line, "ID=debian" | "ID=\"debian\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_is_known_by_its_id_not_by_its_likes() {
        assert!(is_debian("NAME=\"Debian GNU/Linux\"\nID=debian\n"));
        assert!(!is_debian("ID=ubuntu\nID_LIKE=debian\n"));
    }
}
