//! Counters of `/proc` about a peer's processes: the master, its workers, and all of their threads.

use std::fs;
use std::ops::{AddAssign, Sub};
use std::str::FromStr;

/// Resources that they have used since they were started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counters {
    pub(super) cpu_ns: u64,
    /// Voluntary and not.
    pub(super) switches: u64,
    /// Minor and major.
    pub(super) faults: u64,
}

impl Counters {
    /// Counts of a process, its descendants, and children of theirs that have ended.
    pub(super) fn of_tree(root: u32) -> Self {
        let mut sum = Self::default();
        for pid in tree(root) {
            sum += Self::of(pid);
            sum.cpu_ns += reaped_ns(pid);
        }
        sum
    }

    /// Counters of a process alone.
    pub(super) fn of(pid: u32) -> Self {
        let stat = read(&format!("/proc/{pid}/stat"));
        let faults = stat_field::<u64>(&stat, 10).unwrap_or(0) + stat_field(&stat, 12).unwrap_or(0);
        let mut counters = Self {
            faults,
            ..Self::default()
        };
        for thread in threads(pid) {
            let folder = format!("/proc/{pid}/task/{thread}");
            let schedstat = read(&format!("{folder}/schedstat"));
            counters.cpu_ns += match first_number(&schedstat) {
                Some(nanoseconds) => nanoseconds,
                // A kernel without CONFIG_SCHED_INFO: ticks, then.
                None => ticks_ns(&read(&format!("{folder}/stat")), 14, 15),
            };
            counters.switches += switches(&read(&format!("{folder}/status")));
        }
        counters
    }
}

impl Sub for Counters {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(before.cpu_ns),
            switches: self.switches.saturating_sub(before.switches),
            faults: self.faults.saturating_sub(before.faults),
        }
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.cpu_ns += other.cpu_ns;
        self.switches += other.switches;
        self.faults += other.faults;
    }
}

/// A process and its descendants.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        for thread in threads(pid) {
            let children = read(&format!("/proc/{pid}/task/{thread}/children"));
            found.extend(
                children
                    .split_ascii_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
    }
    found
}

/// Memory of a process and its descendants, what is shared counted in parts (PSS). Bytes.
pub(super) fn memory_bytes(root: u32) -> u64 {
    let of = |pid| {
        let rollup = read(&format!("/proc/{pid}/smaps_rollup"));
        rollup
            .lines()
            .find_map(|line| line.strip_prefix("Pss:"))
            .and_then(first_number::<u64>)
            .unwrap_or(0)
            * 1024
    };
    tree(root).into_iter().map(of).sum()
}

/// Time of the whole machine's cores since it was started. Nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct MachineTime {
    /// Not idle.
    pub(super) busy_ns: u64,
    /// Not given to this machine by the one that it is a guest of, when it had work to do.
    pub(super) stolen_ns: u64,
}

pub(super) fn machine_time() -> MachineTime {
    let (busy, stolen) = machine_ticks(&read("/proc/stat"));
    MachineTime {
        busy_ns: busy * NS_OF_TICK,
        stolen_ns: stolen * NS_OF_TICK,
    }
}

/// Busy and stolen, of: user nice system idle iowait irq softirq steal. Guests are in user.
fn machine_ticks(stat: &str) -> (u64, u64) {
    let line = stat.lines().next().unwrap_or_default();
    let numbers: Vec<u64> = line
        .split_ascii_whitespace()
        .skip(1)
        .filter_map(|number| number.parse().ok())
        .collect();
    let of = |places: &[usize]| {
        let numbers = places.iter().filter_map(|at| numbers.get(*at));
        numbers.sum()
    };
    (of(&[0, 1, 2, 5, 6]), of(&[7]))
}

/// All that there are.
pub(super) fn processes() -> Vec<u32> {
    numbers_in("/proc")
}

/// A thread of the kernel: a child of the one that starts them (its number is 2).
pub(super) fn is_of_kernel(pid: u32) -> bool {
    let stat = read(&format!("/proc/{pid}/stat"));
    pid == 2 || stat_field(&stat, 4) == Some(2)
}

fn threads(pid: u32) -> Vec<u32> {
    numbers_in(&format!("/proc/{pid}/task"))
}

fn numbers_in(folder: &str) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

fn reaped_ns(pid: u32) -> u64 {
    ticks_ns(&read(&format!("/proc/{pid}/stat")), 16, 17)
}

fn ticks_ns(stat: &str, user: usize, system: usize) -> u64 {
    let ticks = |at| stat_field::<u64>(stat, at).unwrap_or(0);
    (ticks(user) + ticks(system)) * NS_OF_TICK
}

/// By its number in proc(5). The name, which is the second, may have spaces.
fn stat_field<T: FromStr>(stat: &str, number: usize) -> Option<T> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace()
        .nth(number.checked_sub(3)?)?
        .parse()
        .ok()
}

fn switches(status: &str) -> u64 {
    let lines = status.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter(|(key, _)| key.ends_with("voluntary_ctxt_switches"))
        .filter_map(|(_, number)| number.trim().parse::<u64>().ok())
        .sum()
}

fn first_number<T: FromStr>(text: &str) -> Option<T> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Empty when the process has ended.
fn read(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

/// USER_HZ is 100 on all of Linux' common architectures.
const NS_OF_TICK: u64 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_stat_are_counted_behind_the_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 90 11 2 3 5 6 70 80 20 0 1 0";
        assert_eq!(stat_field::<u64>(stat, 4), Some(1));
        assert_eq!(stat_field::<u64>(stat, 10), Some(90));
        assert_eq!(stat_field::<u64>(stat, 12), Some(2));
        assert_eq!(ticks_ns(stat, 14, 15), 110_000_000);
        assert_eq!(ticks_ns(stat, 16, 17), 1_500_000_000);
        assert_eq!(stat_field::<u64>("", 10), None);
    }

    #[test]
    fn both_kinds_of_switches_count() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t40\nnonvoluntary_ctxt_switches:\t2\n";
        assert_eq!(switches(status), 42);
    }

    #[test]
    fn idle_and_waiting_for_disks_is_not_busy() {
        let stat = "cpu  1 2 4 800 1600 8 16 32 64 128\ncpu0 1";
        assert_eq!(machine_ticks(stat), (31, 32));
        assert_eq!(machine_ticks(""), (0, 0));
    }

    #[test]
    fn what_this_process_has_used_grows() {
        let before = Counters::of_tree(std::process::id());
        let text: String = (0..100_000).map(|n| n.to_string()).collect();
        let used = Counters::of_tree(std::process::id()) - before;
        assert!(used.cpu_ns > 0, "{} bytes, {used:?}", text.len());
        assert!(memory_bytes(std::process::id()) > 0);
    }
}
