//! Place of kv zones when the config does not say.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;
use rustix::process::geteuid;
use sha2::{Digest, Sha256};

/// Folder in memory, where only the gateway's user may write if there is such a place; the same for each load of this
/// gateway's config: there is one gateway for a control socket.
pub(super) fn default(control: &Path) -> PathBuf {
    let surroundings = Surroundings {
        user: geteuid().as_raw(),
        runtime_directory: std::env::var_os("RUNTIME_DIRECTORY"),
        xdg_runtime_dir: std::env::var_os("XDG_RUNTIME_DIR"),
    };
    surroundings.zone_store(control, is_in_memory)
}

/// Surroundings that the choice depends on.
struct Surroundings {
    /// Effective user id.
    user: u32,
    /// Folders from systemd (`RuntimeDirectory=`): folders, with a colon between two.
    runtime_directory: Option<OsString>,
    /// Runtime folder of a user's session.
    xdg_runtime_dir: Option<OsString>,
}

impl Surroundings {
    fn zone_store(&self, control: &Path, is_in_memory: impl Fn(&Path) -> bool) -> PathBuf {
        let hash = Sha256::digest(control.as_os_str().as_encoded_bytes());
        let hash: String = hash.iter().take(8).map(|b| format!("{b:02x}")).collect();
        let folders = [self.of_service(), self.of_root(), self.of_session()];
        let own = folders
            .into_iter()
            .flatten()
            .find(|folder| folder.is_absolute() && is_in_memory(folder));
        match own {
            Some(folder) => folder.join(format!("castling-zones-{hash}")),
            // Anybody may write there, and so has to be told apart by name.
            None => PathBuf::from(format!("/dev/shm/castling-{}-{hash}", self.user)),
        }
    }

    fn of_service(&self) -> Option<PathBuf> {
        let all = self.runtime_directory.as_ref()?.to_str()?;
        all.split(':').next().map(PathBuf::from)
    }

    fn of_root(&self) -> Option<PathBuf> {
        (self.user == 0).then(|| PathBuf::from("/run"))
    }

    /// Runtime folder of the user's session; none for root: it may be the one of whom has become root.
    fn of_session(&self) -> Option<PathBuf> {
        let folder = self.xdg_runtime_dir.as_ref().map(PathBuf::from);
        folder.filter(|_| self.user != 0)
    }
}

fn is_in_memory(folder: &Path) -> bool {
    statfs(folder).is_ok_and(|found| found.f_type == TMPFS_MAGIC)
}

/// statfs(2).
const TMPFS_MAGIC: i64 = 0x0102_1994;

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(user: u32, runtime: Option<&str>, session: Option<&str>, in_memory: &str) -> String {
        let surroundings = Surroundings {
            user,
            runtime_directory: runtime.map(OsString::from),
            xdg_runtime_dir: session.map(OsString::from),
        };
        let is_in_memory = |folder: &Path| folder.starts_with(in_memory);
        let path = surroundings.zone_store(Path::new("/c.sock"), is_in_memory);
        let path = path.to_str().unwrap();
        let (path, hash) = path.rsplit_once('-').unwrap();
        assert_eq!(hash.len(), 16);
        path.to_owned()
    }

    #[test]
    fn it_is_where_only_its_user_may_write_if_there_is_such_a_place() {
        let service = Some("/run/castling:/run/other");
        let session = Some("/run/user/1000");
        assert_eq!(
            chosen(7, service, session, "/run"),
            "/run/castling/castling-zones"
        );
        assert_eq!(
            chosen(0, service, None, "/run"),
            "/run/castling/castling-zones"
        );
        assert_eq!(chosen(0, None, session, "/run"), "/run/castling-zones");
        assert_eq!(
            chosen(1000, None, session, "/run"),
            "/run/user/1000/castling-zones"
        );
        // A container's /run is on a disk.
        assert_eq!(chosen(0, None, None, "/dev"), "/dev/shm/castling-0");
        assert_eq!(chosen(1000, None, None, "/run"), "/dev/shm/castling-1000");
        assert_eq!(
            chosen(1000, Some(""), Some("here"), "/"),
            "/dev/shm/castling-1000"
        );
    }

    #[test]
    fn memory_is_told_from_a_disk() {
        assert!(is_in_memory(Path::new("/dev/shm")));
        assert!(!is_in_memory(Path::new("/proc")));
        assert!(!is_in_memory(Path::new("/nowhere")));
    }
}
