//! Privileges of workers: whom they run as, on which cores, with how many open files.

use nix::unistd::{Gid, Group, Uid, User};
use rustix::thread::{CpuSet, sched_getaffinity};

use super::table::{Table, Value};
use super::tree::NodeKind;
use super::{Identity, OpenFiles, Pin};

/// `user` and `group` of `[workers]`. The group without a user is refused.
pub(super) fn identity(table: &mut Table<'_>) -> Option<Identity> {
    let user = table.get("user");
    let group = table.get("group");
    let Some(user) = user else {
        let needs_user = "a `user` beside it: the group is that of the workers' user";
        return group.and_then(|group| group.expected(needs_user));
    };
    let found = find_user(user);
    let gid = match group {
        Some(group) => find_group(group),
        None => found.as_ref().and_then(|found| found.gid).or_else(|| {
            // A user that was refused is refused once.
            found.as_ref()?;
            user.refuse(format_args!(
                "{} {}: this number is no user of this system: expected `group` beside it",
                user.key(),
                user.shown()
            ))
        }),
    };
    Some(Identity {
        name: match user.kind() {
            NodeKind::Text(name) => name.clone(),
            _ => found.as_ref()?.uid.to_string(),
        },
        uid: found?.uid,
        gid: gid?,
        place: user.place_text(),
    })
}

/// `true`, `false` or cores by number, each of which this process may run on.
pub(super) fn pin(value: Value<'_>) -> Option<Pin> {
    let may_run_on = may_run_on();
    match value.kind() {
        NodeKind::Boolean(false) => Some(Pin::No),
        NodeKind::Boolean(true) => Some(Pin::Cores(may_run_on)),
        NodeKind::List(items) if !items.is_empty() => {
            let cores = value.list(|core| {
                let number = core.integer(0..=CpuSet::MAX_CPU as u64 - 1)?;
                match may_run_on.contains(&number) {
                    true => Some(number),
                    false => core.expected(format_args!(
                        "a core that this process may run on: {}",
                        listed(&may_run_on)
                    )),
                }
            });
            cores.map(Pin::Cores)
        }
        _ => value.expected("true, false or a list of cores such as [0, 2]"),
    }
}

pub(super) fn open_files(value: Value<'_>) -> Option<OpenFiles> {
    Some(OpenFiles {
        count: value.integer(FEWEST_FILES..=MOST_FILES)?,
        place: value.place_text(),
    })
}

/// A worker has some 20 open before its first connection.
const FEWEST_FILES: u64 = 64;
/// The most that `fs.nr_open` can be.
const MOST_FILES: u64 = 1_073_741_816;

struct Found {
    uid: u32,
    /// `None` for a number that has no entry.
    gid: Option<u32>,
}

fn find_user(value: Value<'_>) -> Option<Found> {
    let unreadable = |error: nix::Error| {
        value.refuse(format_args!(
            "{} {}: the system's users cannot be read: {error}",
            value.key(),
            value.shown()
        ))
    };
    let entry = match value.kind() {
        NodeKind::Text(name) => User::from_name(name),
        NodeKind::Integer(_) => {
            let uid = value.integer(0..=LAST_ID)?;
            return match User::from_uid(Uid::from_raw(uid)) {
                Ok(entry) => Some(Found {
                    uid,
                    gid: entry.map(|entry| entry.gid.as_raw()),
                }),
                Err(error) => unreadable(error),
            };
        }
        _ => return value.expected("a user's name or number"),
    };
    match entry {
        Ok(Some(entry)) => Some(Found {
            uid: entry.uid.as_raw(),
            gid: Some(entry.gid.as_raw()),
        }),
        Ok(None) => value.expected("a user of this system"),
        Err(error) => unreadable(error),
    }
}

fn find_group(value: Value<'_>) -> Option<u32> {
    match value.kind() {
        NodeKind::Text(name) => match Group::from_name(name) {
            Ok(Some(entry)) => Some(Gid::as_raw(entry.gid)),
            Ok(None) => value.expected("a group of this system"),
            Err(error) => value.refuse(format_args!(
                "{} {}: the system's groups cannot be read: {error}",
                value.key(),
                value.shown()
            )),
        },
        NodeKind::Integer(_) => value.integer(0..=LAST_ID),
        _ => value.expected("a group's name or number"),
    }
}

/// The number after it means "leave it as it is" to the system.
const LAST_ID: u64 = u32::MAX as u64 - 1;

/// The cores that the system lets this process run on.
fn may_run_on() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU)
        .filter(|&core| set.is_set(core))
        .collect()
}

/// `0-3, 6`.
fn listed(cores: &[usize]) -> String {
    let runs = cores.chunk_by(|one, next| one + 1 == *next);
    let texts = runs.map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        [only] => only.to_string(),
        [] => String::new(),
    });
    texts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_listed_as_the_kernel_does() {
        assert_eq!(listed(&[0, 1, 2, 3, 6]), "0-3, 6");
        assert_eq!(listed(&[5]), "5");
    }
}
