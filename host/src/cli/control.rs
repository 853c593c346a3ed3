//! `castling reload`, `upgrade`, `stop`, `reopen`, `drain` and `metrics`: commands for a running gateway.

use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config;
use crate::process::{Reply, Request};

use super::Outcome;

pub(super) fn reload(config: &Path) -> Outcome {
    match ask(config, Request::Reload)? {
        Reply::Reloaded(done) => {
            println!(
                "generation {} serves ({}), {:.2} s",
                done.generation,
                workers(done.workers),
                done.seconds
            );
            Ok(())
        }
        other => Err(unexpected(other)),
    }
}

pub(super) fn upgrade(
    config: &Path,
    binary: Option<PathBuf>,
    timeout: Option<Duration>,
) -> Outcome {
    // The gateway may have been started in another folder.
    let binary = binary.map(std::path::absolute).transpose().map_err(lines)?;
    match ask(config, Request::Upgrade { binary, timeout })? {
        Reply::Upgraded(done) => {
            println!(
                "castling {} serves: pid {}, generation {} ({}), {:.2} s",
                done.version,
                done.pid,
                done.generation,
                workers(done.workers),
                done.seconds
            );
            Ok(())
        }
        other => Err(unexpected(other)),
    }
}

fn workers(count: usize) -> String {
    match count {
        1 => "1 worker".to_owned(),
        count => format!("{count} workers"),
    }
}

pub(super) fn stop(config: &Path, fast: bool) -> Outcome {
    let begun = Instant::now();
    match ask(config, Request::Stop { fast })? {
        Reply::Stopping => {
            println!("stopped, {:.2} s", begun.elapsed().as_secs_f64());
            Ok(())
        }
        other => Err(unexpected(other)),
    }
}

pub(super) fn reopen(config: &Path) -> Outcome {
    match ask(config, Request::ReopenLogs)? {
        Reply::LogsReopened => Ok(()),
        other => Err(unexpected(other)),
    }
}

pub(super) fn drain(config: &Path) -> Outcome {
    match ask(config, Request::Drain)? {
        Reply::Draining => {
            println!("workers drain; new connections wait until a reload");
            Ok(())
        }
        other => Err(unexpected(other)),
    }
}

pub(super) fn metrics(config: &Path) -> Outcome {
    match ask(config, Request::Metrics)? {
        Reply::Metrics(text) => {
            // A reader that has seen enough (`| head`) is no failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            Ok(())
        }
        other => Err(unexpected(other)),
    }
}

/// Sends a request to the gateway that was started with this config. Of the config, only the control socket's place
/// matters, so that a gateway whose config was broken since can still be told to reload or stop.
pub(super) fn ask(config: &Path, request: Request) -> Result<Reply, Vec<String>> {
    let control = config::control_socket(config).map_err(lines)?;
    let meanwhile = |line: String| eprintln!("castling: {line}");
    let reply = in_runtime(crate::process::ask(&control, request, meanwhile))?;
    reply.map_err(|error| vec![error])
}

pub(super) fn unexpected(reply: Reply) -> Vec<String> {
    match reply {
        Reply::Refused(errors) => errors,
        Reply::Reloaded(_)
        | Reply::Status(_)
        | Reply::Stopping
        | Reply::LogsReopened
        | Reply::Draining
        | Reply::Waits(_)
        | Reply::Metrics(_)
        | Reply::Upstream(_)
        | Reply::Upgraded(_) => {
            vec!["the gateway answers another question; is it of another version?".to_owned()]
        }
    }
}

/// Runs one future to its end.
pub(super) fn in_runtime<T>(work: impl Future<Output = T>) -> Result<T, Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(lines)?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(result)
}

pub(super) fn lines(error: impl Display) -> Vec<String> {
    error.to_string().lines().map(str::to_owned).collect()
}
