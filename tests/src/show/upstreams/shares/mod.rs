//! Part 2: the distribution of each policy against its definition.

mod bounded;
mod drawn;
mod hashes;
mod held;
mod moves;
mod plot;
mod ramp;
mod speed;
mod statistics;
mod sticky;

use super::Options;
use super::tally::Tally;
use crate::show::{Progress, Report};

type Step = fn(&Options, &mut Report, &mut Tally);

const STEPS: [(&str, Step); 8] = [
    ("turns, draws and networks", drawn::run),
    ("requests that are held", held::run),
    ("bounded loads", bounded::run),
    ("a slow peer", speed::run),
    ("keys", hashes::run),
    ("keys that move", moves::run),
    ("slow start", ramp::run),
    ("sessions", sticky::run),
];

/// Runs the part.
pub(super) fn run(options: &Options, report: &mut Report, progress: &mut Progress) {
    let mut tally = Tally::default();
    for (what, step) in STEPS {
        progress.step(what);
        step(options, report, &mut tally);
    }
    tally.claim(report, "2: ");
}
