//! Writes access log lines: collected for a moment, then one write.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tracing::error;

use super::format::{Format, Times};
use super::open;
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
    this: Weak<Self>,
}

enum Target {
    Stdout,
    File { path: PathBuf, file: File },
}

/// Lines are written when they have grown to this, however new they are.
const FULL_BYTES: usize = 64 * 1024;

impl AccessLog {
    /// `None` when it is off. The error is a line for a person.
    pub fn open(config: &config::AccessLog) -> Result<Option<Rc<Self>>, String> {
        let format =
            Format::parse(&config.format).map_err(|e| format!("access_log.format: {e}"))?;
        let target = match &config.target {
            AccessLogTarget::Off => return Ok(None),
            AccessLogTarget::Stdout => Target::Stdout,
            AccessLogTarget::File(path) => {
                let file =
                    open(path).map_err(|e| format!("access_log.file: {}: {e}", path.display()))?;
                Target::File {
                    path: path.clone(),
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
            this: this.clone(),
        })))
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
        } else if !self.flush_planned.replace(true) {
            let this = self.this.clone();
            let flush_after = self.flush_after;
            tokio::task::spawn_local(async move {
                tokio::time::sleep(flush_after).await;
                if let Some(this) = this.upgrade() {
                    this.flush_planned.set(false);
                    this.flush();
                }
            });
        }
    }

    /// Writes what was collected. What cannot be written is dropped, with an error line: a full disk must not stop the
    /// traffic.
    pub fn flush(&self) {
        let mut lines = self.lines.borrow_mut();
        if lines.is_empty() {
            return;
        }
        let written = match &mut *self.target.borrow_mut() {
            Target::Stdout => io::stdout()
                .lock()
                .write_all(&lines)
                .and_then(|()| io::stdout().flush()),
            Target::File { file, .. } => file.write_all(&lines),
        };
        if let Err(error) = written {
            error!(bytes = lines.len(), "access log lines are lost: {error}");
        }
        lines.clear();
    }

    /// Opens the file anew, after it was renamed. If that fails, the old one stays.
    pub fn reopen(&self) {
        self.flush();
        if let Target::File { path, file } = &mut *self.target.borrow_mut() {
            match open(path) {
                Ok(new) => *file = new,
                Err(error) => {
                    error!(path = %path.display(), "access log cannot be opened again: {error}")
                }
            }
        }
    }
}

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
