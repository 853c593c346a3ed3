//! The cases, how they are timed, and what is told of them.

use std::time::Duration;

use castling::rig::Rig;
use castling_abi::Hook;
use rustix::time::{ClockId, clock_gettime};

use super::bare::{self, Bare};
use super::site::Site;

/// Something that is timed as a whole.
pub(super) struct Case {
    name: &'static str,
    work: Work,
    /// Of it in one turn.
    times: u64,
    /// CPU time of one, for each turn so far.
    turns_ns: Vec<f64>,
}

enum Work {
    Bare(Bare),
    /// A hook of a warm instance.
    Call(Rig, Hook, (u32, u32, u32)),
    /// A request that has one hook run.
    Request(Rig, Hook),
}

/// Loads what a case needs.
type Prepare<'a> = dyn Fn() -> Result<Work, String> + 'a;

/// A line of the report.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) name: &'static str,
    pub(super) goal_ns: Option<f64>,
    pub(super) median_ns: f64,
    pub(super) best_ns: f64,
}

impl Case {
    /// Those whose name contains `filter`.
    pub(super) fn all(site: &Site, filter: &str) -> Result<Vec<Self>, String> {
        let none = (0, 0, 0);
        let balance = (8, 0, 0);
        let measured = |hook, args| Ok(Work::Call(site.guest("measured", MEASURED)?, hook, args));
        let names: [(&'static str, &Prepare<'_>); _] = [
            (BARE, &|| Ok(Work::Bare(Bare::new()?))),
            (EMPTY, &|| measured(Hook::PostRead, none)),
            (READS, &|| measured(Hook::Rewrite, none)),
            (SETS, &|| measured(Hook::Preaccess, none)),
            (SMALL, &|| measured(Hook::Access, none)),
            (COUNTS, &|| measured(Hook::Log, none)),
            (LEAST, &|| measured(Hook::Balance, balance)),
            (EWMA, &|| {
                let ewma = site.shipped("ewma", "ewma.wasm")?;
                Ok(Work::Call(ewma, Hook::Balance, balance))
            }),
            (TOKEN, &|| {
                let token_auth = site.shipped("token-auth", TOKEN_AUTH)?;
                Ok(Work::Call(token_auth, Hook::Access, none))
            }),
            (WARM_BARE, &|| {
                let warm = site.load_bytes("bare", bare::PLUGIN)?;
                Ok(Work::Call(warm, Hook::Access, none))
            }),
            (FRESH_BARE, &|| {
                let fresh = site.load_bytes("bare-fresh", bare::PLUGIN)?;
                Ok(Work::Request(fresh, Hook::Access))
            }),
            (FRESH, &|| {
                let fresh = site.guest("measured-fresh", MEASURED)?;
                Ok(Work::Request(fresh, Hook::PostRead))
            }),
            (FRESH_TOKEN, &|| {
                let fresh = site.shipped("token-auth-fresh", TOKEN_AUTH)?;
                Ok(Work::Request(fresh, Hook::Access))
            }),
        ];
        let wanted = names.into_iter().filter(|(name, _)| name.contains(filter));
        wanted
            .map(|(name, work)| {
                Ok(Self {
                    name,
                    work: work()?,
                    times: 1,
                    turns_ns: Vec::new(),
                })
            })
            .collect()
    }

    /// Finds how often the work fits into a turn.
    pub(super) fn warm_up(&mut self, turn: Duration) -> Result<(), String> {
        loop {
            let took = self.timed()?;
            if took * 2 > turn {
                return Ok(());
            }
            self.times *= 2;
        }
    }

    pub(super) fn take_turn(&mut self) -> Result<(), String> {
        let took = self.timed()?;
        self.turns_ns
            .push(took.as_nanos() as f64 / self.times as f64);
        Ok(())
    }

    fn timed(&mut self) -> Result<Duration, String> {
        let before = cpu_time();
        let done = match &mut self.work {
            Work::Bare(bare) => bare.call(self.times),
            Work::Call(rig, hook, args) => rig.call(*hook, *args, self.times).map(drop),
            Work::Request(rig, hook) => rig.requests(&[*hook], self.times),
        };
        done.map_err(|e| format!("{}: {e}", self.name))?;
        Ok(cpu_time().saturating_sub(before))
    }
}

/// The report, from what the cases took in their turns.
pub(super) fn figures(cases: &[Case]) -> Vec<Measured> {
    let turns = |name: &str| {
        let case = cases.iter().find(|case| case.name == name);
        case.map_or(&[][..], |case| &case.turns_ns)
    };
    // Turn by turn, as both were in the same conditions.
    let less = |name, base, parts: f64| {
        let pairs = turns(name).iter().zip(turns(base));
        pairs
            .map(|(case, base)| (case - base) / parts)
            .collect::<Vec<_>>()
    };
    let whole = |name| turns(name).to_vec();
    vec![
        measured(BARE, None, whole(BARE)),
        measured(WARM_BARE, None, whole(WARM_BARE)),
        measured(EMPTY, Some(150.0), whole(EMPTY)),
        measured("header read", Some(60.0), less(READS, EMPTY, 16.0)),
        measured("header set", Some(100.0), less(SETS, EMPTY, 16.0)),
        measured(SMALL, Some(1000.0), whole(SMALL)),
        measured("counter zone: add", Some(1000.0), less(COUNTS, EMPTY, 16.0)),
        measured(LEAST, Some(400.0), whole(LEAST)),
        measured(EWMA, Some(400.0), whole(EWMA)),
        measured(TOKEN, None, whole(TOKEN)),
        measured(
            "fresh instance without configure and SDK: more than warm",
            None,
            less(FRESH_BARE, WARM_BARE, 1.0),
        ),
        measured(
            "fresh instance: more than a warm one",
            Some(5000.0),
            less(FRESH, EMPTY, 1.0),
        ),
        measured(
            "fresh instance of token-auth: more than a warm one",
            Some(5000.0),
            less(FRESH_TOKEN, TOKEN, 1.0),
        ),
    ]
}

const BARE: &str = "wasmtime alone: a function that does nothing";
const EMPTY: &str = "empty hook";
const READS: &str = "16 header reads";
const SETS: &str = "16 header sets";
const SMALL: &str = "hook with two header reads and two sets";
const COUNTS: &str = "16 adds to a counter zone";
const LEAST: &str = "balance over 8 peers: fewest requests under way";
const EWMA: &str = "balance over 8 peers: ewma as shipped";
const TOKEN: &str = "token-auth as shipped, in access";
const WARM_BARE: &str = "empty hook without SDK";
const FRESH_BARE: &str = "request with a fresh instance without SDK";
const FRESH: &str = "request with a fresh instance";
const FRESH_TOKEN: &str = "request with a fresh instance of token-auth";

const MEASURED: &str = "measured.wasm";
const TOKEN_AUTH: &str = "token_auth.wasm";

fn measured(name: &'static str, goal_ns: Option<f64>, mut turns_ns: Vec<f64>) -> Measured {
    turns_ns.sort_by(f64::total_cmp);
    Measured {
        name,
        goal_ns,
        median_ns: turns_ns
            .get(turns_ns.len() / 2)
            .copied()
            .unwrap_or(f64::NAN),
        best_ns: turns_ns.first().copied().unwrap_or(f64::NAN),
    }
}

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or_default(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_the_turns_counts() {
        let figure = measured("x", None, vec![3.0, 1.0, 100.0, 2.0, 4.0]);
        assert_eq!((figure.median_ns, figure.best_ns), (3.0, 1.0));
    }
}
