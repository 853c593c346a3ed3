//! Other programs that run on the machine while something is measured, and in the one that it is a guest of.

use std::collections::{HashMap, HashSet};
use std::thread;
use std::time::{Duration, Instant};

use super::counters::{self, Counters, MachineTime};

/// Takes a turn, and takes it again while others have used more of a core meanwhile than it bears: a neighbour comes and goes
/// within seconds, so it meets one peer and spares the other. The least disturbed one counts. What others did decides that,
/// never what was measured. Says how much of a core they have used in it, percent.
pub(super) fn undisturbed<T>(
    bears_percent: f64,
    most_tries: u32,
    turn: impl Fn() -> Result<T, String>,
) -> Result<(T, f64), String> {
    let mut best = disturbed(&turn)?;
    for _ in 1..most_tries {
        if best.1 <= bears_percent {
            break;
        }
        let again = disturbed(&turn)?;
        if again.1 < best.1 {
            best = again;
        }
    }
    Ok(best)
}

/// How much of the machine others use just now, percent of one core.
pub(super) fn used_just_now() -> f64 {
    let before = Usage::now();
    thread::sleep(LOOK);
    Usage::now().percent_since(&before)
}

fn disturbed<T>(turn: impl Fn() -> Result<T, String>) -> Result<(T, f64), String> {
    let before = Usage::now();
    let taken = turn()?;
    Ok((taken, Usage::now().percent_since(&before)))
}

/// Since the machine was started.
struct Usage {
    at: Instant,
    machine: MachineTime,
    /// CPU time of this program and all that it has started.
    own_ns: u64,
    /// CPU time of each other process. Threads of the kernel are not among them: they work for whoever sends and receives.
    others_ns: HashMap<u32, u64>,
}

impl Usage {
    fn now() -> Self {
        let own = std::process::id();
        let ours: HashSet<u32> = counters::tree(own).into_iter().collect();
        let is_other = |pid: &u32| !ours.contains(pid) && !counters::is_of_kernel(*pid);
        let others = counters::processes().into_iter().filter(is_other);
        Self {
            others_ns: others.map(|pid| (pid, Counters::of(pid).cpu_ns)).collect(),
            own_ns: Counters::of_tree(own).cpu_ns,
            machine: counters::machine_time(),
            at: Instant::now(),
        }
    }

    fn percent_since(&self, before: &Self) -> f64 {
        // To the nanosecond, but without those that have ended meanwhile.
        let of_process = |(pid, now): (&u32, &u64)| {
            let before = before.others_ns.get(pid).copied().unwrap_or(0);
            now.saturating_sub(before)
        };
        let alive_ns: u64 = self.others_ns.iter().map(of_process).sum();
        // With those, but only to some ticks.
        let busy_ns = self.machine.busy_ns.saturating_sub(before.machine.busy_ns);
        let own_ns = self.own_ns.saturating_sub(before.own_ns);
        let all_ns = busy_ns.saturating_sub(own_ns + TICKS_NS);
        let stolen_ns = self
            .machine
            .stolen_ns
            .saturating_sub(before.machine.stolen_ns);
        let elapsed = self.at.duration_since(before.at).as_nanos();
        (alive_ns.max(all_ns) + stolen_ns) as f64 / elapsed as f64 * 100.0
    }
}

/// How far the machine's time and our own may be apart: a tick for each kind of time that the kernel counts.
const TICKS_NS: u64 = 50_000_000;

const LOOK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(seconds: u64, busy_ms: u64, own_ms: u64, others_ms: &[(u32, u64)]) -> Usage {
        let others = others_ms.iter().map(|(pid, ms)| (*pid, ms * 1_000_000));
        Usage {
            at: Instant::now() + Duration::from_secs(seconds),
            machine: MachineTime {
                busy_ns: busy_ms * 1_000_000,
                stolen_ns: 0,
            },
            own_ns: own_ms * 1_000_000,
            others_ns: others.collect(),
        }
    }

    #[test]
    fn others_are_those_that_live_or_what_the_machine_did_beside_us() {
        let before = usage(0, 1000, 500, &[(1, 100), (7, 40)]);
        // A process has ended, another is new.
        let after = usage(1, 2020, 1500, &[(1, 105), (8, 2)]);
        assert_eq!(after.percent_since(&before).round(), 1.0);
        let after = usage(1, 2250, 1500, &[(1, 105)]);
        assert_eq!(after.percent_since(&before).round(), 20.0);
    }

    #[test]
    fn a_turn_is_taken_once_where_it_bears_everything() {
        let turns = std::cell::Cell::new(0);
        let turn = || {
            turns.set(turns.get() + 1);
            Ok(turns.get())
        };
        let (taken, _percent) = undisturbed(f64::INFINITY, 5, turn).unwrap();
        assert_eq!((taken, turns.get()), (1, 1));
        let (taken, _percent) = undisturbed(-1.0, 5, turn).unwrap();
        assert!((2..=6).contains(&taken));
        assert_eq!(turns.get(), 6);
    }
}
