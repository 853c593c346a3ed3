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
    /// Calls of it in one turn.
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
    /// Cases that the figures whose name contains `filter` need.
    pub(super) fn all(site: &Site, filter: &str) -> Result<Vec<Self>, String> {
        let none = (0, 0, 0);
        let (balance, many) = ((8, 0, 0), (1000, 0, 0));
        let measured = |hook, args| Ok(Work::Call(site.guest("measured", MEASURED)?, hook, args));
        let primitives = |hook| primitives(site, hook);
        let names: [(&'static str, &Prepare<'_>); _] = [
            (BARE, &|| Ok(Work::Bare(Bare::new()?))),
            (EMPTY, &|| measured(Hook::PostRead, none)),
            (READS, &|| measured(Hook::Rewrite, none)),
            (SETS, &|| measured(Hook::Preaccess, none)),
            (SMALL, &|| measured(Hook::Access, none)),
            (COUNTS, &|| measured(Hook::Log, none)),
            (STATE, &|| measured(Hook::ResponseHeaders, none)),
            (WASI_EMPTY, &|| {
                let measured = site.guest("measured", MEASURED_WASI)?;
                Ok(Work::Call(measured, Hook::PostRead, none))
            }),
            (WASI_SMALL, &|| {
                let measured = site.guest("measured", MEASURED_WASI)?;
                Ok(Work::Call(measured, Hook::Access, none))
            }),
            (PLAIN_STATE, &|| {
                let marks = site.guest("marks", MARKS)?;
                Ok(Work::Call(marks, Hook::ResponseHeaders, none))
            }),
            (VARIABLES, &|| primitives(Hook::Rewrite)),
            (PERMITS, &|| primitives(Hook::Preaccess)),
            (FLIGHTS, &|| primitives(Hook::Access)),
            (EMITS, &|| primitives(Hook::ResponseBody)),
            (LEAST, &|| measured(Hook::Balance, balance)),
            (EWMA, &|| {
                let ewma = site.shipped("ewma", "ewma.wasm")?;
                Ok(Work::Call(ewma, Hook::Balance, balance))
            }),
            (LEAST_OF_MANY, &|| {
                let least = site.with_many_peers(site.guest("measured", MEASURED)?)?;
                Ok(Work::Call(least, Hook::Balance, many))
            }),
            (EWMA_OF_MANY, &|| {
                let ewma = site.with_many_peers(site.shipped("ewma", "ewma.wasm")?)?;
                Ok(Work::Call(ewma, Hook::Balance, many))
            }),
            (NO_MATCH, &|| substitute(site, "substitute", "lorem ipsum ")),
            (MATCHES, &|| substitute(site, "substitute", LINK)),
            (FIVE_TEXTS, &|| substitute(site, "substitute-five", LINK)),
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
        let wanted = names
            .into_iter()
            .filter(|(name, _)| is_wanted(name, filter) && is_built(site, name));
        wanted
            .map(|(name, work)| Ok(Self::new(name, work()?)))
            .collect()
    }

    fn new(name: &'static str, work: Work) -> Self {
        Self {
            name,
            work,
            times: 1,
            turns_ns: Vec::new(),
        }
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

/// Whether the guests of a case are there: those for WASI are only where their target's standard library can be had.
fn is_built(site: &Site, name: &str) -> bool {
    !matches!(name, WASI_EMPTY | WASI_SMALL) || site.has(MEASURED_WASI)
}

/// Whether a figure needs the case. wasmtime alone is what all others are read beside.
fn is_wanted(case: &str, filter: &str) -> bool {
    let mut figures = FIGURES.iter().filter(|figure| figure.name.contains(filter));
    case == BARE || figures.any(|figure| figure.case == case || figure.base == Some(case))
}

fn primitives(site: &Site, hook: Hook) -> Result<Work, String> {
    let mut rig = site.guest("primitives", PRIMITIVES)?;
    rig.set_chunk(vec![b'x'; 64]);
    rig.supply_all();
    Ok(Work::Call(rig, hook, (0, 0, 0)))
}

/// A chunk of 64 KiB that has this text once a KiB. What replaces it is the same, so that each call meets what the first has met.
fn substitute(site: &Site, plugin: &str, text: &str) -> Result<Work, String> {
    let mut rig = site.shipped(plugin, "substitute.wasm")?;
    rig.add_reply_header("content-type", "text/html");
    rig.call(Hook::ResponseHeaders, (0, 0, 0), 1)?;
    let filler = "<p class=\"plain\">some words of a page that is like others</p>\n".repeat(20);
    let kib = format!("{text}{filler}");
    let chunk = kib.as_bytes()[..1024].repeat(64);
    let len = chunk.len() as u32;
    rig.set_chunk(chunk);
    Ok(Work::Call(rig, Hook::ResponseBody, (len, 0, 0)))
}

/// Text that the config of `substitute` replaces.
const LINK: &str = "http://internal.example";

/// The report, from what the cases took in their turns.
pub(super) fn figures(cases: &[Case]) -> Vec<Measured> {
    let turns = |name: &str| {
        let case = cases.iter().find(|case| case.name == name);
        case.map_or(&[][..], |case| &case.turns_ns)
    };
    let measured_of = |figure: &Figure| {
        let turns_ns = match figure.base {
            None => turns(figure.case).to_vec(),
            // Turn by turn, as both were in the same conditions.
            Some(base) => {
                let pairs = turns(figure.case).iter().zip(turns(base));
                pairs
                    .map(|(case, base)| (case - base) / figure.parts)
                    .collect()
            }
        };
        measured(figure.name, figure.goal_ns, turns_ns)
    };
    FIGURES.iter().map(measured_of).collect()
}

/// How a line of the report comes about.
struct Figure {
    name: &'static str,
    goal_ns: Option<f64>,
    case: &'static str,
    /// Is taken away from the case.
    base: Option<&'static str>,
    /// Number that the rest is divided by.
    parts: f64,
}

const FIGURES: [Figure; 26] = [
    Figure::whole(BARE, None),
    Figure::whole(WARM_BARE, None),
    Figure::whole(EMPTY, Some(150.0)),
    Figure::less("header read", Some(60.0), READS, EMPTY, 16.0),
    Figure::less("header set", Some(100.0), SETS, EMPTY, 16.0),
    Figure::whole(SMALL, Some(1000.0)),
    Figure::whole(WASI_EMPTY, Some(150.0)),
    Figure::whole(WASI_SMALL, Some(1000.0)),
    Figure::less("counter zone: add", Some(1000.0), COUNTS, EMPTY, 16.0),
    Figure::less(
        "state of a request: 64 bytes in and out, encoded",
        None,
        STATE,
        EMPTY,
        1.0,
    ),
    Figure::less(
        "state of a request: 64 plain bytes in and out",
        Some(100.0),
        PLAIN_STATE,
        EMPTY,
        1.0,
    ),
    Figure::less(
        "variable of the gateway's own",
        None,
        VARIABLES,
        EMPTY,
        16.0,
    ),
    Figure::less(
        "gauge zone: permit taken and given back",
        None,
        PERMITS,
        EMPTY,
        16.0,
    ),
    Figure::less(
        "single flight begun and given up, a wait included",
        None,
        FLIGHTS,
        EMPTY,
        16.0,
    ),
    Figure::less(
        "part of 64 bytes emitted, a wait included",
        None,
        EMITS,
        EMPTY,
        16.0,
    ),
    Figure::whole(LEAST, Some(400.0)),
    Figure::whole(EWMA, Some(400.0)),
    Figure::whole(LEAST_OF_MANY, None),
    Figure::whole(EWMA_OF_MANY, Some(3000.0)),
    Figure::whole(TOKEN, None),
    Figure::whole(NO_MATCH, None),
    Figure::whole(MATCHES, None),
    Figure::whole(FIVE_TEXTS, None),
    Figure::less(
        "fresh instance without configure and SDK: more than warm",
        None,
        FRESH_BARE,
        WARM_BARE,
        1.0,
    ),
    Figure::less(
        "fresh instance: more than a warm one",
        Some(5000.0),
        FRESH,
        EMPTY,
        1.0,
    ),
    Figure::less(
        "fresh instance of token-auth: more than a warm one",
        Some(5000.0),
        FRESH_TOKEN,
        TOKEN,
        1.0,
    ),
];

impl Figure {
    const fn whole(case: &'static str, goal_ns: Option<f64>) -> Self {
        Self {
            name: case,
            goal_ns,
            case,
            base: None,
            parts: 1.0,
        }
    }

    const fn less(
        name: &'static str,
        goal_ns: Option<f64>,
        case: &'static str,
        base: &'static str,
        parts: f64,
    ) -> Self {
        Self {
            name,
            goal_ns,
            case,
            base: Some(base),
            parts,
        }
    }
}

const BARE: &str = "wasmtime alone: a function that does nothing";
const EMPTY: &str = "empty hook";
const READS: &str = "16 header reads";
const SETS: &str = "16 header sets";
const SMALL: &str = "hook with two header reads and two sets";
const WASI_EMPTY: &str = "empty hook, wasm32-wasip1";
const WASI_SMALL: &str = "hook with two header reads and two sets, wasm32-wasip1";
const COUNTS: &str = "16 adds to a counter zone";
const STATE: &str = "hook that changes 64 bytes of state";
const PLAIN_STATE: &str = "hook that changes 64 plain bytes of state";
const VARIABLES: &str = "16 variables of the gateway's own";
const PERMITS: &str = "16 permits";
const FLIGHTS: &str = "16 flights without a value";
const EMITS: &str = "16 parts emitted";
const LEAST: &str = "balance over 8 peers: fewest requests under way";
const EWMA: &str = "balance over 8 peers: ewma as shipped";
const LEAST_OF_MANY: &str = "balance over 1,000 peers: fewest requests under way";
const EWMA_OF_MANY: &str = "balance over 1,000 peers: ewma as shipped";
const TOKEN: &str = "token-auth as shipped, in access";
const NO_MATCH: &str = "substitute, 64 KiB: one text, no match";
const MATCHES: &str = "substitute, 64 KiB: one text, 64 matches";
const FIVE_TEXTS: &str = "substitute, 64 KiB: five texts, 64 matches";
const WARM_BARE: &str = "empty hook without SDK";
const FRESH_BARE: &str = "request with a fresh instance without SDK";
const FRESH: &str = "request with a fresh instance";
const FRESH_TOKEN: &str = "request with a fresh instance of token-auth";

const MEASURED: &str = "measured.wasm";
const PRIMITIVES: &str = "primitives.wasm";
const MEASURED_WASI: &str = "measured_wasi.wasm";
const MARKS: &str = "marks.wasm";
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
