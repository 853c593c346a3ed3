//! Results of the steps of a test run, and where their time went.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::command::say;
use crate::count::Count;

/// Results of the steps that have run, in their order.
#[derive(Debug, Default)]
pub(crate) struct Report {
    count: Count,
    steps: Vec<Step>,
}

/// A step that has ended.
#[derive(Debug)]
struct Step {
    name: &'static str,
    failed: bool,
    cost: Cost,
}

/// Time that a step took.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    wall: Duration,
    /// Processor time of all programs that the step ran: on a shared machine it varies less than the time on the clock.
    cpu: Duration,
}

impl Report {
    /// Runs a step without counted tests: the step counts as one.
    pub(crate) fn check(
        &mut self,
        name: &'static str,
        step: impl FnOnce() -> Result<bool>,
    ) -> bool {
        let started = Stopwatch::start();
        say!("{name}");
        let passed = step().unwrap_or_else(|error| {
            say!("{name}: {error:#}");
            false
        });
        let count = match passed {
            true => Count::ONE_PASSED,
            false => Count::ONE_FAILED,
        };
        self.end(name, started, count);
        passed
    }

    /// Runs a step that starts test programs: each of their tests counts. A step that fails without a failed test (its
    /// tests do not compile, a program was killed) counts as one failed.
    pub(crate) fn tests(&mut self, name: &'static str, command: &mut Command) {
        let started = Stopwatch::start();
        say!("{name}");
        let mut count = Count::default();
        let succeeded = echo(command, |line| {
            if let Some(more) = Count::from_result_line(line) {
                count += more;
            }
        });
        let succeeded = succeeded.unwrap_or_else(|error| {
            say!("{name}: {error:#}");
            false
        });
        if !succeeded && count.failed == 0 {
            count += Count::ONE_FAILED;
        }
        self.end(name, started, count);
    }

    fn end(&mut self, name: &'static str, started: Stopwatch, count: Count) {
        let cost = started.stop();
        self.count += count;
        let failed = count.failed > 0;
        let outcome = if failed { "FAILED" } else { "ok" };
        say!("{name}: {outcome}, {count}, {cost}");
        self.steps.push(Step { name, failed, cost });
    }

    /// Prints a line of time for each step, then what failed, then the counts.
    pub(crate) fn close(self) -> ExitCode {
        let mut total = Cost::default();
        say!("where the time went:");
        for step in &self.steps {
            say!("  {:<22} {}", step.name, step.cost);
            total.wall += step.cost.wall;
            total.cpu += step.cost.cpu;
        }
        say!("  {:<22} {total}", "all");
        let failed: Vec<&str> = self
            .steps
            .iter()
            .filter(|step| step.failed)
            .map(|step| step.name)
            .collect();
        if !failed.is_empty() {
            say!("failed: {}", failed.join(", "));
        }
        println!("castling: {}", self.count);
        match self.count.failed {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:7.1} s, {:7.1} s of CPU",
            self.wall.as_secs_f64(),
            self.cpu.as_secs_f64()
        )
    }
}

/// The two clocks at the start of a step.
struct Stopwatch {
    started: Instant,
    cpu: Duration,
}

impl Stopwatch {
    fn start() -> Self {
        Self {
            started: Instant::now(),
            cpu: cpu_of_ended_children(),
        }
    }

    fn stop(&self) -> Cost {
        Cost {
            wall: self.started.elapsed(),
            cpu: cpu_of_ended_children().saturating_sub(self.cpu),
        }
    }
}

/// Processor time of all processes that were started here, directly or not, and have ended. Zero where the kernel does not
/// say it as Linux does.
fn cpu_of_ended_children() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    ticks_of_ended_children(&stat)
        .map(|ticks| Duration::from_millis(ticks * MILLISECONDS_A_TICK))
        .unwrap_or_default()
}

/// Fields 16 and 17 (`cutime`, `cstime`) of a line of proc_pid_stat(5). The second field is a name in parentheses, which may
/// hold spaces and parentheses.
fn ticks_of_ended_children(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(16 - 3);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// `USER_HZ` is 100 on every architecture that the gateway runs on.
const MILLISECONDS_A_TICK: u64 = 10;

/// Runs a command, prints what it prints and lends each line. Says whether it succeeded.
fn echo(command: &mut Command, mut line_seen: impl FnMut(&str)) -> Result<bool> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("cannot read what the tests print")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        line_seen(&line);
    }
    Ok(child.wait().context("cannot wait for cargo")?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_children_is_read_past_a_name_with_spaces() {
        let stat = "42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 700 30 20 0 1";
        assert_eq!(ticks_of_ended_children(stat), Some(730));
        assert_eq!(ticks_of_ended_children("42 (a) S 1"), None);
    }
}
