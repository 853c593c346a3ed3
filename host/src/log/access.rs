//! Writes access log lines: collected for a moment, then one write.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::event::{PollFd, PollFlags, Timespec};
use tracing::{error, info};

use super::format::{Format, Times};
use super::seldom::Losses;
use super::{file, not_opened};
use crate::config::{self, AccessLogTarget};
use crate::exchange::Exchange;

pub struct AccessLog {
    format: Format,
    target: RefCell<Target>,
    /// Lines that are not written yet; whole ones only.
    lines: RefCell<Vec<u8>>,
    flush_after: Duration,
    flush_planned: Cell<bool>,
    clock: RefCell<Clock>,
    losses: RefCell<Losses>,
    this: Weak<Self>,
}

enum Target {
    Stdout,
    File { path: PathBuf, file: File },
}

/// Shortest wait before a write is tried again that was not whole.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);

/// Lines are written when they have grown to this, however new they are.
const FULL_BYTES: usize = 64 * 1024;

impl AccessLog {
    /// `None` when it is off. The error is a line for a person.
    pub fn open(config: &config::AccessLog) -> Result<Option<Rc<Self>>, String> {
        // Names of variables were checked with the config.
        let format =
            Format::parse(&config.format).map_err(|error| format!("access_log.format: {error}"))?;
        let target = match &config.target {
            AccessLogTarget::Off => return Ok(None),
            AccessLogTarget::Stdout => Target::Stdout,
            AccessLogTarget::File(path) => {
                let file =
                    file::open(path, None).map_err(|e| not_opened("access_log.file", path, &e))?;
                Target::File {
                    path: path.path.clone(),
                    file,
                }
            }
        };
        Ok(Some(Rc::new_cyclic(|this| Self {
            format,
            target: RefCell::new(target),
            lines: RefCell::default(),
            flush_after: config.flush,
            flush_planned: Cell::new(false),
            clock: RefCell::default(),
            losses: RefCell::default(),
            this: this.clone(),
        })))
    }

    /// Whether lines show this variable of plugins.
    pub fn shows(&self, variable: &str) -> bool {
        self.format.shows(variable)
    }

    /// Adds the line of an exchange that is over.
    pub fn add(&self, exchange: &Exchange) {
        let mut clock = self.clock.borrow_mut();
        let mut lines = self.lines.borrow_mut();
        self.format.write(&mut lines, exchange, clock.now());
        let write_now = self.flush_after.is_zero() || lines.len() >= FULL_BYTES;
        drop(lines);
        if write_now {
            self.flush();
        }
        self.plan_flush();
    }

    /// Has what waits written after a while.
    fn plan_flush(&self) {
        if self.lines.borrow().is_empty() || self.flush_planned.replace(true) {
            return;
        }
        let this = self.this.clone();
        let flush_after = self.flush_after.max(SHORTEST_WAIT);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(flush_after).await;
            if let Some(this) = this.upgrade() {
                this.flush_planned.set(false);
                this.flush();
                this.plan_flush();
            }
        });
    }

    /// Writes what was collected. What cannot be written is dropped, with an error line once in a while: neither a full
    /// disk nor a pipe that nobody reads may stop the traffic, or fill the other log.
    pub fn flush(&self) {
        let mut lines = self.lines.borrow_mut();
        if lines.is_empty() {
            return;
        }
        let written = match &mut *self.target.borrow_mut() {
            Target::Stdout => write_to_stdout(&mut lines),
            Target::File { file, .. } => {
                let written = file.write_all(&lines);
                if written.is_ok() {
                    lines.clear();
                }
                written
            }
        };
        if let Err(error) = written {
            self.lose(&mut lines, &error);
        } else if lines.len() > MOST_WAITING_BYTES {
            self.lose(&mut lines, &"nobody reads standard output");
        } else if let Some(lines) = self.losses.borrow_mut().written(Instant::now) {
            info!(lines, "access log is written again; so many more were lost");
        }
    }

    #[cold]
    #[inline(never)]
    fn lose(&self, lines: &mut Vec<u8>, reason: &dyn std::fmt::Display) {
        let lost = lines.iter().filter(|&&byte| byte == b'\n').count() as u64;
        lines.clear();
        if let Some(lines) = self.losses.borrow_mut().lost(lost, Instant::now()) {
            error!(lines, "access log lines are lost: {reason}");
        }
    }

    /// Opens the file anew, after it was renamed. If that fails, the old one stays.
    pub fn reopen(&self) {
        self.flush();
        if let Target::File { path, file } = &mut *self.target.borrow_mut() {
            match file::open(path, None) {
                Ok(new) => *file = new,
                Err(error) => {
                    error!(path = %path.display(), "access log cannot be opened again: {error}")
                }
            }
        }
    }
}

/// Writes as much as can be without waiting; whole lines, in pieces that a pipe takes in one go (pipe(7)), so that
/// those of several workers do not mix.
fn write_to_stdout(lines: &mut Vec<u8>) -> io::Result<()> {
    let mut done = 0;
    while done < lines.len() && stdout_takes_more() {
        let rest = &lines[done..];
        let whole = match rest.len() {
            len if len <= PIPE_BUF => len,
            _ => match rest[..PIPE_BUF].iter().rposition(|&byte| byte == b'\n') {
                Some(end) => end + 1,
                // The first line is longer than that: it may mix with another's.
                None => rest
                    .iter()
                    .position(|&byte| byte == b'\n')
                    .map_or(rest.len(), |end| end + 1),
            },
        };
        let write = || rustix::io::write(rustix::stdio::stdout(), &rest[..whole]);
        done += rustix::io::retry_on_intr(write)?;
    }
    lines.drain(..done);
    Ok(())
}

/// A pipe has room for [`PIPE_BUF`] bytes, a file always has.
fn stdout_takes_more() -> bool {
    let stdout = rustix::stdio::stdout();
    let mut asked = [PollFd::new(&stdout, PollFlags::OUT)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(rustix::event::poll(&mut asked, Some(&now)), Ok(ready) if ready > 0)
}

/// Linux's `PIPE_BUF`.
const PIPE_BUF: usize = 4096;

/// Lines that wait for a reader of standard output; beyond it they are dropped.
const MOST_WAITING_BYTES: usize = 1024 * 1024;

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The time's texts, made anew once a second.
struct Clock {
    second: u64,
    zone: TimeZone,
    times: Times,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            second: 0,
            zone: TimeZone::system(),
            times: Times::default(),
        }
    }
}

impl Clock {
    fn now(&mut self) -> &Times {
        let second = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        if second != self.second {
            self.second = second;
            let now = Timestamp::now().to_zoned(self.zone.clone());
            self.times.local = now.strftime("%d/%b/%Y:%H:%M:%S %z").to_string();
            self.times.iso8601 = now.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        }
        &self.times
    }
}
