//! Binary upgrades under the load of the reload storm: one master after the other hands over, and no request notices.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::load::Era;
use super::reload_storm::{self, claims_of_end, claims_of_load, figures};
use super::{Progress, Report, marks, origin};
use crate::Proxy;
use marks::NAMES;

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub upgrades: usize,
    /// Requests that must be answered between an upgrade and the next.
    pub requests_between: u64,
    /// Storm whose clients come.
    pub load: reload_storm::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            upgrades: 10,
            requests_between: 5000,
            load: reload_storm::Options::default(),
        }
    }
}

/// Runs it.
pub fn run(options: &Options, progress: &mut Progress) -> Report {
    let config = |idx: usize| marks::config(idx, &format!("\"{{{}}}\"", NAMES[idx]), "", "");
    let mut proxy = Proxy::with_config(&config(0))
        .origin(NAMES[0], origin::marking(NAMES[0], None))
        .origin(NAMES[1], origin::marking(NAMES[1], None))
        .start();
    let era = Arc::new(Era::default());
    let load = reload_storm::load(&proxy, &options.load, &era).start();
    load.until_more(100);
    let before = proxy.master().descriptors();

    let (mut done, mut refusals) = (0, Vec::new());
    let (mut longest, mut left_behind) = (Duration::ZERO, 0);
    for upgrade in 1..=options.upgrades {
        let old = proxy.master();
        // The new master reads the config anew, so that it shows who has answered.
        proxy.write_config(&config(upgrade % 2));
        era.ends();
        let asked = Instant::now();
        let outcome = proxy.upgrade(&[]);
        longest = longest.max(asked.elapsed());
        if outcome.code != Some(0) {
            refusals.push(outcome.stderr);
            break;
        }
        done += 1;
        era.begins();
        let goal = load.good() + options.requests_between;
        let serves = Instant::now();
        while (old.is_alive() || load.good() < goal) && serves.elapsed() < HANDED_OVER_WITHIN {
            progress.tell(|| {
                let (good, failed) = (load.good(), load.failed());
                format!("{done} upgrades, {good} requests, {failed} failed")
            });
            std::thread::sleep(Duration::from_millis(20));
        }
        left_behind += usize::from(old.is_alive());
    }
    let outcome = load.stop();

    let mut report = Report::new(format!(
        "Binary upgrades: {} of them, two configs in turn, under keep-alive and new-connection load",
        options.upgrades
    ));
    report.claim(
        format!("{} upgrades", options.upgrades),
        format!("{done}, the longest {longest:.0?}"),
        done == options.upgrades,
    );
    report.details(refusals);
    let requests = options.requests_between * options.upgrades as u64;
    claims_of_load(&mut report, &outcome, requests);
    report.claim("0 old masters stay", left_behind, left_behind == 0);
    claims_of_end(&mut report, &proxy, before);
    figures(&mut report, &outcome);
    report
}

/// An old master ends with its last worker, which the drain time-out ends.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(30);
