//! The gateway's own log (facts with fields, by `tracing`) and the access log.

mod access;
mod file;
mod format;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

pub use access::AccessLog;
pub use file::{must_be_safe, open_unfollowed};

use crate::config::{self, AccessLogTarget, Identity, Log, LogFormat, LogLevel};
use format::Format;

/// Starts the log of this process. A second call changes nothing. `user`: as whom workers run, if not as this process's.
pub fn init(config: &Log, user: Option<&Identity>) -> io::Result<()> {
    let level = match config.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let target = match &config.file {
        Some(path) => Target::File {
            path: path.clone(),
            file: Mutex::new(
                file::open(path, user).map_err(|e| io::Error::other(not_opened(path, &e)))?,
            ),
        },
        None => Target::Stderr,
    };
    let target = TARGET.get_or_init(|| target);
    let ansi = matches!(target, Target::Stderr) && io::IsTerminal::is_terminal(&io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_writer(target);
    // Err: there is a log already.
    let _ = match config.format {
        LogFormat::Text => {
            tracing::subscriber::set_global_default(builder.with_ansi(ansi).finish())
        }
        LogFormat::Json => {
            tracing::subscriber::set_global_default(builder.json().flatten_event(true).finish())
        }
    };
    std::panic::set_hook(Box::new(|panic| tracing::error!("panic: {panic}")));
    Ok(())
}

/// What would keep the logs from being written, as far as it can be told without opening a file.
pub fn check(log: &Log, access_log: &config::AccessLog) -> Vec<String> {
    let mut errors = Vec::new();
    errors.extend(Format::parse(&access_log.format).err().map(format_error));
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
            errors.push(format!("{key}: {}: it is a folder", path.display()));
        } else if !folder.is_dir() {
            errors.push(format!(
                "{key}: {}: there is no folder {}",
                path.display(),
                folder.display()
            ));
        }
    }
    errors
}

fn format_error(error: String) -> String {
    format!("access_log.format: {error}")
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
        Ok(new) => {
            *current
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner) = new
        }
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
        match self.0 {
            Target::Stderr => io::stderr().write(bytes),
            Target::File { file, .. } => file
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is told of a log file that cannot be opened. Who may not is often a worker that runs as another user.
fn not_opened(path: &Path, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; expected a file and folders that the user who runs workers may open"
        }
        _ => "",
    };
    format!("{}: {error}{hint}", path.display())
}
