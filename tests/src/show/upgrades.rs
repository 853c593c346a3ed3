//! Binary upgrades under the load of the reload storm: one master after the other hands over, and no request notices.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::load::Era;
use super::reload_storm::{self, claims_of_end, claims_of_load, claims_of_tunnels, figures};
use super::{Progress, Report};
use crate::process::Process;
use crate::tls::Authority;

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
    let authority = Authority::new("show");
    let mut proxy = reload_storm::gateway(&authority);
    let era = Arc::new(Era::default());
    let load = reload_storm::load(&proxy, &authority, &options.load, &era).start();
    load.until_more(100);
    let before = proxy.master().descriptors();
    let tunnels = reload_storm::tunnels(&proxy, &authority, &options.load);
    // Stays as long as they do, and so do the masters between it and the last, for whom it is the one before.
    let first = proxy.master();

    let (mut done, mut refusals) = (0, Vec::new());
    let (mut longest, mut left_behind) = (Duration::ZERO, 0);
    for upgrade in 1..=options.upgrades {
        let old = proxy.master();
        // The new master reads the config anew, so that it shows who has answered.
        proxy.write_config(&reload_storm::config(upgrade % 2));
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
        let is_left = || old.0 != first.0 && has_workers(old);
        while (is_left() || load.good() < goal) && serves.elapsed() < HANDED_OVER_WITHIN {
            progress.tell(|| {
                let (good, failed) = (load.good(), load.failed());
                format!("{done} upgrades, {good} requests, {failed} failed")
            });
            std::thread::sleep(Duration::from_millis(20));
        }
        left_behind += usize::from(is_left());
    }
    let outcome = load.stop();
    let tunnels = tunnels.close();
    let closed = Instant::now();
    let old_masters = || proxy.masters().iter().filter(|it| it.is_alive()).count() - 1;
    while old_masters() > 0 && closed.elapsed() < HANDED_OVER_WITHIN {
        std::thread::sleep(Duration::from_millis(20));
    }
    let masters = old_masters();

    let mut report = Report::new(format!(
        "Binary upgrades: {} of them, two configs in turn, under load by HTTP/1 and HTTP/2, plain and TLS",
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
    claims_of_tunnels(&mut report, &tunnels, options.load.tunnels);
    report.claim(
        "0 workers stay but for WebSockets, 0 old masters once those are closed",
        format!("{left_behind} and {masters}"),
        left_behind == 0 && masters == 0,
    );
    claims_of_end(&mut report, &proxy, before);
    figures(&mut report, &outcome);
    report
}

fn has_workers(master: Process) -> bool {
    !master.children_with("worker").is_empty()
}

/// An old master ends with its last worker, which the drain time-out ends.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(30);
