//! Running other programs, and what this one says.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Context, Result, bail};

/// A line about what is being done, marked so that it is found between the lines of other programs.
macro_rules! say {
    ($($text:tt)*) => { println!("==> {}", format_args!($($text)*)) };
}
pub(crate) use say;

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    if COMPILES_SOONER.load(Ordering::Relaxed) {
        for package in COMPILED_SOONER {
            let setting = format!("profile.release.package.{package}.opt-level=1");
            cargo.args(["--config", &setting]);
        }
    }
    cargo
}

/// From here on the largest of our own crates are compiled with few optimisations: half of the time that tests take from nothing is
/// the compiler's, and most of that went into code which runs for seconds.
pub(crate) fn compile_sooner() {
    COMPILES_SOONER.store(true, Ordering::Relaxed);
}

static COMPILES_SOONER: AtomicBool = AtomicBool::new(false);

/// Crates of the gateway. That of plugins is not among them: the guests' profile inherits what the release's says of it.
const COMPILED_SOONER: [&str; 3] = ["castling", "castling-bench", "castling-tests"];

/// The compiler that cargo takes by itself.
pub(crate) fn rustc() -> PathBuf {
    env::var_os("RUSTC")
        .unwrap_or_else(|| "rustc".into())
        .into()
}

/// Whether it ended with success. An error names a program that could not be started.
pub(crate) fn succeeds(command: &mut Command) -> Result<bool> {
    Ok(named(command, Command::status)?.success())
}

/// Runs a command as [`succeeds`] does; one that takes longer is ended and has failed.
pub(crate) fn succeeds_within(command: &mut Command, limit: Duration) -> Result<bool> {
    let mut child = named(command, Command::spawn)?;
    let status = wait_until(&mut child, Instant::now() + limit)?;
    if status.is_none() {
        child
            .kill()
            .and_then(|()| child.wait().map(drop))
            .context("a program that took too long cannot be ended")?;
    }
    Ok(status.is_some_and(|status| status.success()))
}

/// None when it still runs then.
pub(crate) fn wait_until(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    loop {
        let status = child.try_wait().context("cannot wait for a program")?;
        if status.is_some() || Instant::now() >= deadline {
            return Ok(status);
        }
        thread::sleep(POLL);
    }
}

/// Output of a command, without the space around it. An error when the command fails, with what it said.
pub(crate) fn text(command: &mut Command) -> Result<String> {
    let output = named(command, Command::output)?;
    if !output.status.success() {
        bail!(
            "{}: {}",
            program(command),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let text = String::from_utf8(output.stdout)
        .with_context(|| format!("{} prints no UTF-8", program(command)))?;
    Ok(text.trim().to_owned())
}

/// Throws away what it will print.
pub(crate) fn quiet(command: &mut Command) -> &mut Command {
    command.stdout(Stdio::null()).stderr(Stdio::null())
}

pub(crate) fn is_on_path(program: &str) -> bool {
    path_of(program).is_some()
}

/// Where `PATH` has it.
pub(crate) fn path_of(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Writes a file whose contents differ, in one step: a reader finds the old or the new, never a part. Creates the
/// folders above it. Says whether it wrote.
pub(crate) fn write_if_changed(file: &Path, contents: &[u8]) -> Result<bool> {
    match fs::read(file) {
        Ok(now) if now == contents => return Ok(false),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
    replace(file, |temporary| fs::write(temporary, contents))?;
    Ok(true)
}

/// Copies a file, with its permissions, where the contents differ, in one step. Says whether it copied.
pub(crate) fn copy_if_changed(from: &Path, to: &Path) -> Result<bool> {
    let contents = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|now| now == contents) {
        return Ok(false);
    }
    replace(to, |temporary| fs::copy(from, temporary).map(drop))?;
    Ok(true)
}

fn replace(file: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let mut name = file
        .file_name()
        .with_context(|| format!("{} names no file", file.display()))?
        .to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = file.with_file_name(name);
    let replaced = fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))
        .and_then(|()| write(&temporary))
        .and_then(|()| fs::rename(&temporary, file));
    replaced.with_context(|| format!("cannot write {}", file.display()))
}

fn named<T>(
    command: &mut Command,
    act: impl FnOnce(&mut Command) -> std::io::Result<T>,
) -> Result<T> {
    act(command).with_context(|| format!("cannot run {}", program(command)))
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

const POLL: Duration = Duration::from_millis(20);
