//! The gateway's own log (facts with fields, by `tracing`) and the access log.

mod access;
mod file;
mod format;
mod line;
mod seldom;

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

pub use access::AccessLog;
pub use file::{must_be_safe, open_unfollowed};
pub use seldom::{Changes, Losses};

use crate::config::{self, AccessLogTarget, Identity, Log, LogFormat, LogLevel, PlacedPath};

/// Starts the log of this process. A second call changes nothing. `user`: as whom workers run, if not as this
/// process's. The error is a line for a person.
pub fn init(config: &Log, user: Option<&Identity>) -> Result<(), String> {
    let level = match config.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let target = match &config.file {
        Some(path) => Target::File {
            path: path.path.clone(),
            file: Mutex::new(file::open(path, user).map_err(|e| not_opened("log.file", path, &e))?),
        },
        None => Target::Stderr,
    };
    let target = TARGET.get_or_init(|| target);
    let ansi = matches!(target, Target::Stderr) && io::IsTerminal::is_terminal(&io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        // A line that is lost is told by the target, once in a while.
        .log_internal_errors(false)
        .with_writer(target);
    // Err: there is a log already.
    let _ = match config.format {
        LogFormat::Text => {
            let builder = builder.with_ansi(ansi).fmt_fields(line::TextFields);
            tracing::subscriber::set_global_default(builder.finish())
        }
        LogFormat::Json => {
            tracing::subscriber::set_global_default(builder.event_format(line::JsonLine).finish())
        }
    };
    std::panic::set_hook(Box::new(|panic| tracing::error!("panic: {panic}")));
    Ok(())
}

/// Errors that would keep the logs from being written, as far as it can be told without opening a file.
pub fn check(log: &Log, access_log: &config::AccessLog) -> Vec<String> {
    let mut errors = Vec::new();
    let access_file = match &access_log.target {
        AccessLogTarget::File(path) => Some(("access_log.file", path)),
        AccessLogTarget::Off | AccessLogTarget::Stdout => None,
    };
    let files = [
        log.file.as_ref().map(|path| ("log.file", path)),
        access_file,
    ];
    for (key, path) in files.into_iter().flatten() {
        let folder = path.parent().unwrap_or(path);
        if path.is_dir() {
            errors.push(about(key, path, "it is a folder"));
        } else if !folder.is_dir() {
            let missing = format_args!("there is no folder {}", folder.display());
            errors.push(about(key, path, missing));
        }
    }
    errors
}

/// Opens the log's file anew, after it was renamed (nginx: USR1). A file that cannot be opened leaves the old one.
pub fn reopen(user: Option<&Identity>) {
    let Some(Target::File {
        path,
        file: current,
    }) = TARGET.get()
    else {
        return;
    };
    match file::open(path, user) {
        Ok(new) => *current.lock().unwrap_or_else(PoisonError::into_inner) = new,
        Err(error) => {
            tracing::error!(path = %path.display(), "log cannot be opened again: {error}")
        }
    }
}

static TARGET: OnceLock<Target> = OnceLock::new();

enum Target {
    Stderr,
    File { path: PathBuf, file: Mutex<File> },
}

/// Losses of the log's file. Those of standard error are not told: there is no other place.
static LOSSES: Mutex<Losses> = Mutex::new(Losses::new());

impl<'a> MakeWriter<'a> for &'static Target {
    type Writer = TargetWriter;

    fn make_writer(&'a self) -> TargetWriter {
        TargetWriter(self)
    }
}

/// Writes one event a call.
pub struct TargetWriter(&'static Target);

impl Write for TargetWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (path, file) = match self.0 {
            Target::Stderr => return io::stderr().write(bytes),
            Target::File { path, file } => (path, file),
        };
        let written = file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(bytes);
        let mut losses = LOSSES.lock().unwrap_or_else(PoisonError::into_inner);
        match written {
            Ok(len) => {
                // The next line of the log tells it well enough.
                losses.written(Instant::now);
                Ok(len)
            }
            Err(error) => {
                if let Some(lines) = losses.lost(1, Instant::now()) {
                    // A standard error that is gone as well leaves nobody to tell.
                    let _ = writeln!(
                        io::stderr(),
                        "castling: log.file: {}: lines are lost ({lines}): {error}",
                        path.display()
                    );
                }
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Message about a log file that cannot be opened, often by a worker that runs as another user.
fn not_opened(key: &str, path: &PlacedPath, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; expected a file and folders that the user who runs workers may open"
        }
        _ => "",
    };
    about(key, path, format_args!("{error}{hint}"))
}

/// `FILE:LINE:COLUMN: KEY: PATH: what is wrong`.
fn about(key: &str, path: &PlacedPath, what: impl Display) -> String {
    format!("{}: {key}: {}: {what}", path.place, path.display())
}
