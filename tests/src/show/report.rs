//! Words of a show: a line while it runs, a table at its end.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Result of a show.
#[derive(Debug)]
pub struct Report {
    title: String,
    claims: Vec<Claim>,
    figures: Vec<(String, String)>,
    details: Vec<String>,
}

#[derive(Debug)]
struct Claim {
    what: String,
    measured: String,
    holds: bool,
}

impl Report {
    /// A report without claims yet.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            claims: Vec::new(),
            figures: Vec::new(),
            details: Vec::new(),
        }
    }

    /// Something promised, what was seen of it, and whether that keeps the promise.
    pub fn claim(&mut self, what: impl Into<String>, measured: impl fmt::Display, holds: bool) {
        self.claims.push(Claim {
            what: what.into(),
            measured: measured.to_string(),
            holds,
        });
    }

    /// Something measured that promises nothing.
    pub fn figure(&mut self, what: impl Into<String>, measured: impl fmt::Display) {
        self.figures.push((what.into(), measured.to_string()));
    }

    /// Lines that explain what failed; the first few are shown.
    pub fn details(&mut self, lines: impl IntoIterator<Item = String>) {
        self.details.extend(lines);
    }

    /// Every claim holds.
    pub fn passed(&self) -> bool {
        self.claims.iter().all(|claim| claim.holds)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let claims = self.claims.iter().map(|claim| claim.what.len());
        let figures = self.figures.iter().map(|(what, _)| what.len());
        let width = claims.chain(figures).max().unwrap_or(0);
        writeln!(out, "{}", self.title)?;
        for claim in &self.claims {
            let verdict = if claim.holds { "PASS" } else { "FAIL" };
            writeln!(
                out,
                "  {verdict}  {:width$}  {}",
                claim.what, claim.measured
            )?;
        }
        for (what, measured) in &self.figures {
            writeln!(out, "        {what:width$}  {measured}")?;
        }
        for line in self.details.iter().take(DETAILS) {
            writeln!(out, "  ! {line}")?;
        }
        if self.details.len() > DETAILS {
            writeln!(out, "  ! and {} more", self.details.len() - DETAILS)?;
        }
        let failed = self.claims.iter().filter(|claim| !claim.holds).count();
        match failed {
            0 => write!(out, "PASS: all {} claims hold", self.claims.len()),
            _ => write!(
                out,
                "FAIL: {failed} of {} claims do not hold",
                self.claims.len()
            ),
        }
    }
}

/// Lines of detail that are shown.
const DETAILS: usize = 20;

/// Tells a person who waits how far it is.
#[derive(Debug)]
pub struct Progress {
    begun: Instant,
    last: Option<Instant>,
    /// On a terminal the line is written over; elsewhere there are fewer lines. None: nobody waits.
    every: Option<Duration>,
    is_terminal: bool,
}

impl Progress {
    /// On standard error.
    pub fn shown() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self {
            begun: Instant::now(),
            last: None,
            every: Some(Duration::from_secs(if is_terminal { 1 } else { 10 })),
            is_terminal,
        }
    }

    /// For tests.
    pub fn silent() -> Self {
        Self {
            every: None,
            ..Self::shown()
        }
    }

    /// Shows the line if it is time for one.
    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        let Some(every) = self.every else { return };
        if self.last.is_some_and(|last| last.elapsed() < every) {
            return;
        }
        self.last = Some(Instant::now());
        self.write(&line());
    }

    /// Shows the line whatever the time.
    pub fn step(&mut self, line: &str) {
        if self.every.is_some() {
            self.write(line);
        }
    }

    fn write(&self, line: &str) {
        let seconds = self.begun.elapsed().as_secs();
        let mut stderr = std::io::stderr();
        // A failed write loses nothing but progress.
        let _ = match self.is_terminal {
            true => write!(stderr, "\r\x1b[K{seconds:4} s  {line}"),
            false => writeln!(stderr, "{seconds:4} s  {line}"),
        };
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_terminal && self.every.is_some() {
            eprintln!();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_passes_when_every_claim_holds() {
        let mut report = Report::new("a show");
        report.claim("2 requests", 3, true);
        report.figure("share", "40%");
        assert!(report.passed());
        report.claim("0 failed", 1, false);
        report.details((0..30).map(|n| format!("detail {n}")));
        assert!(!report.passed());
        let text = report.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..4],
            [
                "a show",
                "  PASS  2 requests  3",
                "  FAIL  0 failed    1",
                "        share       40%"
            ]
        );
        assert_eq!(lines[4 + DETAILS], "  ! and 10 more");
        assert_eq!(lines.last(), Some(&"FAIL: 1 of 2 claims do not hold"));
    }
}
