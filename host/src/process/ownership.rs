//! Preparations of the master for workers that run as another user, and its limits, before a generation starts.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;

use rustix::process::{getegid, geteuid};

use crate::config::{self, AccessLogTarget, Config, Identity, Pin};
use crate::log;

use super::{spill, sys};

/// Sees to everything that must be so before workers start. Fails with lines for a person; what an operator should look at
/// is a warning.
pub fn prepare(config: &Config) -> Result<(), Vec<String>> {
    let mut errors = Vec::new();
    errors.extend(check(config.workers.user.as_ref()).err());
    errors.extend(open_files(config).err());
    errors.extend(spill::check(config).err());
    if !errors.is_empty() {
        return Err(errors);
    }
    hand_over_logs(config);
    if geteuid().is_root() && config.workers.user.is_none() {
        tracing::warn!("workers run as root: `user` of [workers] names another user for them");
    }
    if let Pin::Cores(cores) = &config.workers.pin
        && config.workers.count > cores.len()
    {
        let (workers, cores) = (config.workers.count, cores.len());
        tracing::warn!(
            workers,
            cores,
            "more workers than cores: several share a core"
        );
    }
    for warning in config::tls_warnings(config, jiff::Timestamp::now()) {
        tracing::warn!("{warning}");
    }
    if let Some(warning) = config::instances_warning(config) {
        tracing::warn!("{warning}");
    }
    warn_of_few_mappings(config);
    Ok(())
}

/// Refuses another user unless this is root, which alone can start processes of another user.
pub fn check(identity: Option<&Identity>) -> Result<(), String> {
    let Some(identity) = identity else {
        return Ok(());
    };
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() || (uid.as_raw(), gid.as_raw()) == (identity.uid, identity.gid) {
        return Ok(());
    }
    Err(format!(
        "{}: user {}: expected the user and group that start the gateway ({}:{}), or root as starter: only root can \
         run workers as somebody else",
        identity.place,
        identity.name,
        uid.as_raw(),
        gid.as_raw()
    ))
}

/// Has the log files belong to the workers' user, who opens them by name, at start and after each `reopen`. Whether it
/// may enter the folder is the operator's business; a worker that cannot says so.
pub fn hand_over_logs(config: &Config) {
    let Some(identity) = &config.workers.user else {
        return;
    };
    if !geteuid().is_root() {
        return;
    }
    let access_log = match &config.access_log.target {
        AccessLogTarget::File(path) => Some(path),
        AccessLogTarget::Off | AccessLogTarget::Stdout => None,
    };
    let logs = config.log.file.iter().chain(access_log);
    let logs = logs.map(|path| (path, log::open_unfollowed as Open));
    let tls = config
        .listeners
        .values()
        .filter_map(|listener| listener.tls.as_ref());
    let key_logs = tls.filter_map(|tls| tls.key_log.as_ref());
    let key_logs = key_logs.map(|path| (path, config::open_private as Open));
    for (path, open) in logs.chain(key_logs) {
        if let Err(error) = hand_over(path, open, identity) {
            let (path, user) = (path.display(), &identity.name);
            tracing::warn!(%path, %user, "a log file cannot be given to the workers' user: {error}");
        }
    }
}

/// Only a plain file that is root's or the user's already, and that has this name alone: in a folder that the workers' user may write
/// to, somebody who has taken over a worker could put a link to `/etc/shadow` in its place.
fn hand_over(path: &Path, open: Open, identity: &Identity) -> io::Result<()> {
    let file = match open(path) {
        // A link, or a pipe without a reader: the worker sees whether it may open it.
        Err(error) if is_special(path) => {
            tracing::debug!(path = %path.display(), %error, "no plain file: left as it is");
            return Ok(());
        }
        opened => opened?,
    };
    let found = file.metadata()?;
    if !found.is_file() || (found.uid(), found.gid()) == (identity.uid, identity.gid) {
        return Ok(());
    }
    log::must_be_safe(&found, identity)?;
    fchown(&file, Some(identity.uid), Some(identity.gid))
}

/// Opens a log file, and makes it where it is missing.
type Open = fn(&Path) -> io::Result<File>;

fn is_special(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| !found.is_file())
}

/// Raises the hard limit where it is too low and this process may; warns where connections are more than files.
fn open_files(config: &Config) -> Result<(), String> {
    let mut limit = sys::open_files_limit();
    if let Some(wanted) = &config.workers.max_open_files {
        if limit < wanted.count {
            sys::raise_open_files_limit(wanted.count).map_err(|error| {
                format!(
                    "{}: max_open_files {}: the hard limit is {limit} (`ulimit -Hn`, systemd `LimitNOFILE`) and cannot \
                     be raised: {error}",
                    wanted.place, wanted.count
                )
            })?;
        }
        limit = wanted.count;
    }
    let clients: usize = config
        .listeners
        .values()
        .map(|l| l.limits.max_connections)
        .sum();
    let needed = clients as u64 + OWN_FILES;
    if needed > limit {
        tracing::warn!(
            max_open_files = limit,
            max_connections = clients,
            "a worker may have more connections than open files; a request that is passed on takes two"
        );
    }
    Ok(())
}

/// A worker's own: event loop, channel, sockets, modules, zones, logs.
const OWN_FILES: u64 = 64;

/// Each instance of a plugin and each zone is a number of memory mappings, of which a process may have so many.
fn warn_of_few_mappings(config: &Config) {
    let Ok(text) = fs::read_to_string("/proc/sys/vm/max_map_count") else {
        return;
    };
    let Ok(limit) = text.trim().parse::<usize>() else {
        return;
    };
    let instances = crate::wasm::instances(config) as usize;
    let needed = OWN_MAPPINGS + instances * MAPPINGS_OF_INSTANCE;
    if needed > limit {
        tracing::warn!(
            "vm.max_map_count" = limit,
            instances,
            needed,
            "too few memory mappings for all instances that plugins may have: some will fail under load"
        );
    }
}

/// Mappings of a worker without instances, such as code.
const OWN_MAPPINGS: usize = 1000;

/// Mappings of an instance: its place in the pool is a stack and its guard; then memory and table, what is written in them and
/// what is not yet. Of these, 4 were measured.
const MAPPINGS_OF_INSTANCE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_is_given_away_through_a_link() {
        if !geteuid().is_root() {
            eprintln!("SKIPPED, needs root: {}:{}", file!(), line!());
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity {
            name: "somebody".to_owned(),
            uid: 12345,
            gid: 12345,
            place: String::new(),
        };
        let path = |name: &str| folder.path().join(name);
        let owner = |name: &str| fs::metadata(path(name)).unwrap().uid();

        hand_over(&path("new.log"), log::open_unfollowed, &identity).unwrap();
        assert_eq!(owner("new.log"), 12345);
        hand_over(&path("new.log"), log::open_unfollowed, &identity).unwrap();

        fs::write(path("precious"), "").unwrap();
        std::os::unix::fs::symlink(path("precious"), path("soft.log")).unwrap();
        hand_over(&path("soft.log"), log::open_unfollowed, &identity).unwrap();
        fs::hard_link(path("precious"), path("hard.log")).unwrap();
        let refused = hand_over(&path("hard.log"), log::open_unfollowed, &identity).unwrap_err();
        assert!(refused.to_string().contains("has 2 names"), "{refused}");
        fs::write(path("anothers"), "").unwrap();
        std::os::unix::fs::chown(path("anothers"), Some(777), None).unwrap();
        hand_over(&path("anothers"), log::open_unfollowed, &identity).unwrap_err();
        assert_eq!((owner("precious"), owner("anothers")), (0, 777));
        assert!(hand_over(&path("no-folder/a.log"), log::open_unfollowed, &identity).is_err());
    }
}
