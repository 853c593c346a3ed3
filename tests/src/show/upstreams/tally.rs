//! Requests that have failed, over all of a part.

use crate::show::Report;

/// Requests of a part, and those of them that have failed.
#[derive(Default)]
pub(super) struct Tally {
    asked: usize,
    failures: Vec<String>,
}

impl Tally {
    /// Adds requests that were sent for this, and what they have failed at.
    pub(super) fn add(
        &mut self,
        what: &str,
        asked: usize,
        failures: impl IntoIterator<Item = String>,
    ) {
        self.asked += asked;
        let failures = failures
            .into_iter()
            .map(|failure| format!("{what}: {failure}"));
        self.failures.extend(failures);
    }

    /// Claims that none has failed.
    pub(super) fn claim(self, report: &mut Report, what: &str) {
        report.claim(
            format!("{what}0 requests fail"),
            format!("{} of {}", self.failures.len(), self.asked),
            self.failures.is_empty(),
        );
        report.details(self.failures);
    }
}
