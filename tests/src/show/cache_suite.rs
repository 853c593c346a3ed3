//! The public suite of tests for HTTP caches.

use super::{Progress, Report};
use crate::cache_suite::{CacheSuite, KNOWN, Verdict, is_asked_later};

/// Fewest that must pass, of the required ones by the later kinds and of the optimal ones.
const REQUIRED: usize = 126;
const OPTIMAL: usize = 61;

/// Runs it.
pub fn run(progress: &mut Progress) -> Report {
    let mut report =
        Report::new("The public suite of tests for HTTP caches, http-cache-tests 0.4.5");
    progress.step("the suite");
    let Some(suite) = CacheSuite::start() else {
        report.figure(
            "SKIPPED",
            "http-cache-tests could not be installed from npm",
        );
        return report;
    };
    let verdicts = suite.run();
    let of = |kind: &str| -> Vec<&Verdict> {
        let all = verdicts.iter();
        all.filter(|verdict| verdict.kind == kind).collect()
    };
    let passed = |verdicts: &[&Verdict]| verdicts.iter().filter(|it| it.passed).count();
    let (required, optimal, asked) = (of("required"), of("optimal"), of("check"));
    let (all_required, all_optimal) = (required.len(), optimal.len());
    report.claim(
        format!(
            "required {} of {all_required}, optimal {} of {all_optimal}",
            passed(&required),
            passed(&optimal)
        ),
        "by the kinds of the release",
        passed(&optimal) >= OPTIMAL,
    );
    let still: Vec<&Verdict> = required
        .iter()
        .copied()
        .filter(|verdict| !is_asked_later(&verdict.id))
        .collect();
    report.claim(
        format!("required {} of {}", passed(&still), still.len()),
        "without those that later versions only ask",
        passed(&still) >= REQUIRED,
    );
    report.figure(
        "asked, for which there is no right answer",
        format!("{} of {}", passed(&asked), asked.len()),
    );
    for verdict in required.iter().chain(&optimal).filter(|it| !it.passed) {
        let known = KNOWN.iter().find(|(id, _)| *id == verdict.id);
        let reason = known.map_or("new: it should pass", |(_, reason)| *reason);
        report.figure(format!("  fails, {}: {}", verdict.kind, verdict.id), reason);
    }
    report
}
