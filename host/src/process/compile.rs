//! Plugins to native code, each in a helper process of its own: the bytes are a stranger's, and the compiler that reads
//! them must not be able to take the gateway with it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;

use crate::config::{self, Config, PlacedPath, Plugin, Workers};
use crate::wasm::compile::{compile, engine_fingerprint};
use crate::wasm::{Manifest, module_text};

use super::confine::{self, Seal};
use super::module_store::{ModuleKey, ModuleStore, StoredModule};
use super::role::{COMPILER_LIMITS, Role};
use super::sys;

/// Largest module file, bytes.
pub const WASM_LIMIT_BYTES: u64 = 64 * 1024 * 1024;

/// Longest life of a helper: catches one that neither computes nor ends.
const WALL_CLOCK_LIMIT: Duration = Duration::from_secs(60);

/// Helpers that run at the same time.
const HELPERS: usize = 2;

/// Bytes of the helper's answer, and of what it says on standard error.
const ANSWER_LIMIT_BYTES: u64 = 1024 * 1024;

/// Returns the compiled modules of all plugins of a config, by plugin; what the store does not hold is compiled now. A file
/// that several plugins use is compiled once. Fails with a line for each plugin that cannot be had.
pub async fn modules(config: &Config) -> Result<BTreeMap<String, StoredModule>, Vec<String>> {
    let folder = &config.master.module_store;
    let store = ModuleStore::open(folder).map_err(|e| store_error(folder, &e))?;
    obtain_all(config, None, &store).await
}

/// [`modules`] for a check: the gateway's store is read, where it may be, and nothing is added to it; what it does not hold
/// is compiled into a folder that is gone when this returns.
pub async fn modules_for_check(
    config: &Config,
) -> Result<BTreeMap<String, StoredModule>, Vec<String>> {
    let folder = &config.master.module_store;
    let known = ModuleStore::open_existing(folder).map_err(|e| store_error(folder, &e))?;
    let own = tempfile::Builder::new()
        .prefix("castling-check-")
        .tempdir()
        .map_err(|e| vec![format!("a temporary folder cannot be made: {e}")])?;
    let store = ModuleStore::open(own.path())
        .map_err(|e| vec![format!("{}: {e}", own.path().display())])?;
    obtain_all(config, known.as_ref(), &store).await
}

fn store_error(folder: &PlacedPath, error: &std::io::Error) -> Vec<String> {
    let (place, folder) = (&folder.place, folder.display());
    vec![format!("{place}: module store {folder}: {error}")]
}

/// Takes modules from `known` or `store`; what neither holds is compiled into `store`.
async fn obtain_all(
    config: &Config,
    known: Option<&ModuleStore>,
    store: &ModuleStore,
) -> Result<BTreeMap<String, StoredModule>, Vec<String>> {
    let (jobs, unread) = read_aside(&config.plugins).await?;
    let mut errors: Vec<_> = unread
        .iter()
        .map(|(name, reason)| about(name, &config.plugins[name], reason))
        .collect();
    let results: Vec<_> = futures_util::stream::iter(jobs)
        .map(|(key, job)| async move {
            let known = known.and_then(|known| known.find(&key));
            let module = match known {
                Some(module) => Ok(module),
                None => obtain(store, &key, &job.wasm, &config.workers).await,
            };
            (job.plugins, module)
        })
        .buffer_unordered(HELPERS)
        .collect()
        .await;
    let mut modules = BTreeMap::new();
    for (plugins, result) in results {
        for name in plugins {
            match &result {
                Err(reason) => errors.push(about(&name, &config.plugins[&name], reason)),
                Ok(module) => drop(modules.insert(name, module.clone())),
            }
        }
    }
    match errors.is_empty() {
        true => Ok(modules),
        false => Err(errors),
    }
}

/// The helper's side: limits itself, compiles standard input into the inherited file, and says on standard output what
/// came of it.
pub fn run_helper(out: RawFd, seccomp: bool) -> anyhow::Result<()> {
    sys::set_process_name(Role::Compiler.needs().process_name);
    confine::settle(Role::Compiler).map_err(anyhow::Error::msg)?;
    let mut out = File::from(sys::inherited(out)?);
    let seal = Seal {
        core_dumps: false,
        seccomp,
    };
    confine::seal(Role::Compiler, &seal).map_err(anyhow::Error::msg)?;
    let mut wasm = Vec::new();
    std::io::stdin()
        .lock()
        .take(WASM_LIMIT_BYTES)
        .read_to_end(&mut wasm)?;
    let answer = match compile(&wasm) {
        Ok((manifest, artefact)) => match out.write_all(&artefact) {
            Ok(()) => Answer::Compiled(manifest),
            Err(error) => Answer::Refused(format!("what it is compiled to has no room: {error}")),
        },
        Err(error) => Answer::Refused(error.to_string()),
    };
    serde_json::to_writer(std::io::stdout().lock(), &answer)?;
    Ok(())
}

/// Answer of the helper.
#[derive(Serialize, Deserialize)]
enum Answer {
    Compiled(Manifest),
    Refused(String),
}

/// A module and the plugins that are made of it.
struct Job {
    wasm: Vec<u8>,
    plugins: Vec<String>,
}

/// The modules of plugins, each read once; and why others cannot be read, by plugin.
type Jobs = (BTreeMap<ModuleKey, Job>, Vec<(String, String)>);

/// Reads modules in a thread of its own: reading may take as long as disk and network please, and the master answers
/// meanwhile.
async fn read_aside(plugins: &BTreeMap<String, Plugin>) -> Result<Jobs, Vec<String>> {
    if plugins.is_empty() {
        return Ok(Jobs::default());
    }
    let files: Vec<_> = plugins
        .iter()
        .map(|(name, plugin)| (name.clone(), plugin.wasm.clone()))
        .collect();
    tokio::task::spawn_blocking(|| jobs(files))
        .await
        .map_err(|error| vec![format!("modules cannot be read: {error}")])
}

fn jobs(files: Vec<(String, PathBuf)>) -> Jobs {
    let (mut jobs, mut errors) = Jobs::default();
    let engine_fingerprint = engine_fingerprint();
    for (plugin, path) in files {
        match read_module(&path) {
            Ok(wasm) => {
                let key = ModuleKey::new(&wasm, engine_fingerprint);
                let job = jobs.entry(key).or_insert_with(|| Job {
                    wasm,
                    plugins: Vec::new(),
                });
                job.plugins.push(plugin);
            }
            Err(reason) => errors.push((plugin, reason)),
        }
    }
    (jobs, errors)
}

/// Reads a module's file; one that is larger than [`WASM_LIMIT_BYTES`] is refused.
pub fn read_module(path: &Path) -> Result<Vec<u8>, String> {
    config::read_regular(path, WASM_LIMIT_BYTES).map_err(|error| match error.kind() {
        std::io::ErrorKind::FileTooLarge => {
            format!("larger than {} MiB", WASM_LIMIT_BYTES / 1024 / 1024)
        }
        _ => error.to_string(),
    })
}

fn about(name: &str, plugin: &Plugin, reason: &str) -> String {
    format!(
        "{}: plugin \"{name}\": {}: {reason}",
        plugin.place,
        plugin.wasm.display()
    )
}

async fn obtain(
    store: &ModuleStore,
    key: &ModuleKey,
    wasm: &[u8],
    workers: &Workers,
) -> Result<StoredModule, String> {
    if let Some(module) = store.find(key) {
        return Ok(module);
    }
    let started = std::time::Instant::now();
    let compiled = run_compiler(wasm, workers).await;
    let stored = compiled.and_then(|(manifest, artefact)| {
        store
            .insert(key, manifest, artefact)
            .map_err(|e| format!("the module store does not take it: {e}"))
    });
    if let Ok(module) = &stored {
        let (name, version) = (&module.manifest.name, &module.manifest.version);
        tracing::info!(plugin = %name, %version, took = ?started.elapsed(), "module compiled");
    }
    stored
}

/// Has a helper compile a module. Returns the manifest, and the code in a memory file. The helper may run as another user,
/// and has no file of the store's open.
async fn run_compiler(wasm: &[u8], workers: &Workers) -> Result<(Manifest, File), String> {
    let room =
        |error: std::io::Error| format!("there is no memory for what it is compiled to: {error}");
    let artefact = memfd_create("castling-module", MemfdFlags::CLOEXEC)
        .map(File::from)
        .map_err(|error| room(error.into()))?;
    let theirs = OwnedFd::from(artefact.try_clone().map_err(room)?);
    let out = theirs.as_raw_fd().to_string();
    let mut command = Role::Compiler.start("compile", workers.user.as_ref(), vec![theirs]);
    command
        .args(["--out", &out])
        .args((!workers.seccomp).then_some("--no-seccomp"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let helper = command
        .spawn()
        .map_err(|e| format!("the compiler cannot be started: {e}"))?;
    match converse(helper, wasm).await? {
        Answer::Compiled(manifest) => match manifest.check() {
            Ok(()) => Ok((manifest, artefact)),
            Err(error) => Err(module_text::text(&error.to_string())),
        },
        Answer::Refused(reason) => Err(module_text::text(&reason)),
    }
}

/// Gives the helper the module, and returns what it answers. Fails for the plugin's author when it ends without an answer or
/// takes too long.
async fn converse(mut helper: Child, wasm: &[u8]) -> Result<Answer, String> {
    let (stdin, stdout, stderr) = (
        helper.stdin.take(),
        helper.stdout.take(),
        helper.stderr.take(),
    );
    let conversation = async {
        let write = async {
            if let Some(mut stdin) = stdin {
                // A helper that died says why by its status.
                let _ = stdin.write_all(wasm).await;
            }
        };
        let ((), answer, complaint) = tokio::join!(write, read_some(stdout), read_some(stderr));
        (answer, complaint, helper.wait().await)
    };
    let Ok((answer, complaint, status)) =
        tokio::time::timeout(WALL_CLOCK_LIMIT, conversation).await
    else {
        return Err(format!(
            "compiling takes more than {} s",
            WALL_CLOCK_LIMIT.as_secs()
        ));
    };
    let status = status.map_err(|e| format!("the compiler cannot be waited for: {e}"))?;
    if !status.success() {
        return Err(explain(status, &String::from_utf8_lossy(&complaint)));
    }
    serde_json::from_slice(&answer).map_err(|error| {
        let error = module_text::text(&error.to_string());
        format!("the compiler gave no answer: {error}")
    })
}

async fn read_some(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // An error ends the reading: what came before is all there is to tell.
        let _ = pipe.take(ANSWER_LIMIT_BYTES).read_to_end(&mut bytes).await;
    }
    bytes
}

/// The reason why a helper ended without an answer, for the plugin's author.
fn explain(status: ExitStatus, complaint: &str) -> String {
    let out_of_memory = complaint.contains("memory allocation of");
    let signal = status.signal();
    if out_of_memory {
        let gib = COMPILER_LIMITS.address_space_bytes / 1024 / 1024 / 1024;
        return format!("compiling needs more than {gib} GiB of memory");
    }
    if signal == Some(Signal::XCPU.as_raw()) {
        let seconds = COMPILER_LIMITS.cpu_seconds;
        return format!("compiling takes more than {seconds} s of CPU time");
    }
    if signal == Some(Signal::KILL.as_raw()) {
        return "the compiler was killed; the system may be out of memory".to_owned();
    }
    // A panic says where in its first line and why in its second.
    let complaint: Vec<_> = complaint
        .lines()
        .filter(|line| !line.is_empty())
        .take(2)
        .collect();
    match complaint.is_empty() {
        true => format!("the compiler crashed: {status}"),
        false => format!(
            "the compiler crashed: {status}: {}",
            module_text::text(&complaint.join(" "))
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_that_ended_by_a_limit_is_explained_by_it() {
        let aborted = ExitStatus::from_raw(6);
        let out_of_memory = explain(aborted, "memory allocation of 8589934592 bytes failed\n");
        assert_eq!(out_of_memory, "compiling needs more than 4 GiB of memory");
        let out_of_time = explain(ExitStatus::from_raw(Signal::XCPU.as_raw()), "");
        assert_eq!(out_of_time, "compiling takes more than 60 s of CPU time");
        assert!(explain(ExitStatus::from_raw(9), "").contains("was killed"));
        let panicked = explain(aborted, "\nthread panicked at a.rs:1:2:\nwhy\nnote: more\n");
        assert!(
            panicked.ends_with("thread panicked at a.rs:1:2: why"),
            "{panicked}"
        );
    }
}
