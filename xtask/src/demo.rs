//! `cargo xtask demo`: a gateway with two origins, on this machine alone, until Ctrl-C.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::build;
use crate::command::{self, say};
use crate::echo;
use crate::workspace::Workspace;

/// Where the gateway of `conf/demo.toml` listens.
pub(crate) const DEFAULT_PORT: u16 = 8080;

/// Builds, runs the gateway and tells what to try. Returns when Ctrl-C has stopped it; an error when it could not
/// start, or ended by itself.
pub(crate) fn run(workspace: &Workspace, port: u16) -> Result<()> {
    let interrupts = interrupts()?;
    let config = config(workspace, port)?;
    // Before the build, which takes minutes when it is the first.
    refuse_taken_addresses(&config, port)?;
    build::all(workspace, build::QUICK)?;
    echo::start()?;

    let mut gateway = Command::new(workspace.gateway());
    gateway
        .arg("run")
        .arg("--config")
        .arg(&config)
        .current_dir(&workspace.root);
    say!(
        "{} run --config {}",
        workspace.shown(&workspace.gateway()),
        workspace.shown(&config)
    );
    let mut gateway = gateway.spawn().context("the gateway cannot be started")?;

    let gone = match wait_until_it_serves(&mut gateway, port, &interrupts)? {
        Start::Serves => {
            print!("{}", what_to_try(port, &workspace.shown(&config)));
            wait_until_interrupted(&mut gateway, &interrupts)?
        }
        Start::Interrupted => false,
        Start::Gone => true,
    };
    if gone {
        let status = gateway.wait().context("cannot wait for the gateway")?;
        bail!("the gateway ended by itself ({status})");
    }
    stop(&mut gateway, &config, workspace, &interrupts)
}

/// `conf/demo.toml` itself; for another port a copy of it below `target/demo`.
fn config(workspace: &Workspace, port: u16) -> Result<PathBuf> {
    let shipped = workspace.root.join("conf/demo.toml");
    // The folder that the config keeps its run-time state in.
    let state = workspace.root.join("target/demo");
    fs::create_dir_all(&state).with_context(|| format!("cannot create {}", state.display()))?;
    if port == DEFAULT_PORT {
        return Ok(shipped);
    }
    let text = fs::read_to_string(&shipped)
        .with_context(|| format!("cannot read {}", shipped.display()))?;
    let copy = state.join("demo.toml");
    command::write_if_changed(&copy, with_port(&text, port, &workspace.root).as_bytes())?;
    Ok(copy)
}

/// Another port for the gateway, and paths that do not depend on where the file lies.
fn with_port(config: &str, port: u16, root: &Path) -> String {
    config
        .replace(
            &format!("\"127.0.0.1:{DEFAULT_PORT}\""),
            &format!("\"127.0.0.1:{port}\""),
        )
        .replace("\"../", &format!("\"{}/", root.display()))
}

fn refuse_taken_addresses(config: &Path, port: u16) -> Result<()> {
    let text =
        fs::read_to_string(config).with_context(|| format!("cannot read {}", config.display()))?;
    for address in bound_addresses(&text) {
        match TcpListener::bind(address) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AddrInUse && address.port() == port => {
                bail!("{address} is taken by another program; choose another port with --port")
            }
            Err(error) => bail!("{address}, which {} listens on: {error}", config.display()),
        }
    }
    Ok(())
}

fn bound_addresses(config: &str) -> Vec<SocketAddr> {
    let values = config.lines().filter_map(|line| {
        line.trim()
            .strip_prefix("bind")?
            .trim_start()
            .strip_prefix('=')
    });
    values
        .filter_map(|value| value.split('"').nth(1)?.parse().ok())
        .collect()
}

enum Start {
    Serves,
    Interrupted,
    Gone,
}

fn wait_until_it_serves(
    gateway: &mut Child,
    port: u16,
    interrupts: &Receiver<()>,
) -> Result<Start> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let deadline = Instant::now() + START_TIMEOUT;
    while Instant::now() < deadline {
        if has_ended(gateway)? {
            return Ok(Start::Gone);
        }
        if TcpStream::connect_timeout(&address, POLL).is_ok() {
            return Ok(Start::Serves);
        }
        if interrupted_within(POLL, interrupts) {
            return Ok(Start::Interrupted);
        }
    }
    gateway.kill().context("the gateway cannot be ended")?;
    bail!(
        "the gateway does not accept connections after {} s",
        START_TIMEOUT.as_secs()
    )
}

/// True when the gateway ended by itself.
fn wait_until_interrupted(gateway: &mut Child, interrupts: &Receiver<()>) -> Result<bool> {
    loop {
        if interrupted_within(POLL, interrupts) {
            return Ok(false);
        }
        if has_ended(gateway)? {
            // A Ctrl-C reaches both of us, and the gateway may be the quicker.
            return Ok(!interrupted_within(GRACE, interrupts));
        }
    }
}

/// A Ctrl-C has reached the gateway too; a signal to this process alone has not, so the gateway is told. A second
/// interrupt ends it at once.
fn stop(
    gateway: &mut Child,
    config: &Path,
    workspace: &Workspace,
    interrupts: &Receiver<()>,
) -> Result<()> {
    say!("stopping (Ctrl-C again ends it at once)");
    let mut told = false;
    let started = Instant::now();
    while !has_ended(gateway)? {
        if interrupted_within(POLL, interrupts) || started.elapsed() > STOP_TIMEOUT {
            gateway.kill().context("the gateway cannot be ended")?;
            bail!("the gateway had to be killed");
        }
        if !told && started.elapsed() > GRACE {
            told = true;
            let mut stop = Command::new(workspace.gateway());
            stop.args(["stop", "--fast", "--config"]).arg(config);
            command::succeeds(command::quiet(&mut stop))?;
        }
    }
    let status = gateway.wait().context("cannot wait for the gateway")?;
    if !status.success() {
        bail!("the gateway ended with an error ({status})");
    }
    say!("stopped");
    Ok(())
}

fn has_ended(gateway: &mut Child) -> Result<bool> {
    Ok(gateway
        .try_wait()
        .context("cannot wait for the gateway")?
        .is_some())
}

fn interrupted_within(time: Duration, interrupts: &Receiver<()>) -> bool {
    match interrupts.recv_timeout(time) {
        Ok(()) => true,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => false,
    }
}

/// A message for every Ctrl-C, SIGTERM and SIGHUP.
fn interrupts() -> Result<Receiver<()>> {
    let (sender, receiver) = mpsc::channel();
    // The receiver is gone only when this program ends anyway.
    ctrlc::set_handler(move || sender.send(()).unwrap_or_default())
        .context("Ctrl-C cannot be handled")?;
    Ok(receiver)
}

/// Text that says what is running, with the lines to try.
fn what_to_try(port: u16, config: &str) -> String {
    let lines = TRY.iter().map(|(arguments, expected)| {
        let curl = format!(
            "curl {}",
            arguments
                .replace("{gateway}", &format!("http://127.0.0.1:{port}"))
                .replace("{secure}", SECURE)
        );
        format!("  {curl}\n      {expected}\n")
    });
    let lines: String = lines.collect();
    format!(
        "\nThe gateway listens on http://127.0.0.1:{port}. Behind it are two origins, which the plugin `hello` plays on\n\
         listeners of their own. All of it is written in {config}.\n\nTry, in another terminal:\n\n{lines}\n  \
         A WebSocket at ws://127.0.0.1:{port}/echo, or with TLS at wss://127.0.0.1:8443/echo, sends back what it gets.\n\n\
         Change {config} and load it anew, without losing a request; or look at what runs:\n\n  \
         dist/castling check  --config {config}\n  \
         dist/castling reload --config {config}\n  \
         dist/castling status --config {config}\n\nCtrl-C stops it.\n\n"
    )
}

/// Where the gateway of `conf/demo.toml` listens with TLS.
const SECURE: &str = "https://127.0.0.1:8443";

/// Arguments of curl, and what to expect.
const TRY: [(&str, &str); 8] = [
    (
        "-i {gateway}/",
        "200 from an origin, which X-Served-By names (`headers` sets it); they take turns",
    ),
    (
        "-ik {secure}/",
        "the same by TLS and HTTP/2; -k, since nobody vouches for the demo's own certificate",
    ),
    ("-i {gateway}/private/", "401: `token-auth` wants a token"),
    (
        "-i -H 'x-token: s3cret' {gateway}/private/",
        "200; the origin got X-User: alice, the access log has her too",
    ),
    (
        "-i {gateway}/translated/",
        "`substitute` turned \"hello\" into \"good day\" in the body",
    ),
    (
        "-i {gateway}/quick/",
        "200; `ewma` chose the quicker of the two origins",
    ),
    (
        "-i {gateway}/direct/",
        "200 from `hello` in the gateway itself, without an upstream",
    ),
    (
        "-N {gateway}/ticks/",
        "an event a second, which `ticks` streams until curl is stopped",
    ),
];

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the gateway may take to notice a Ctrl-C by itself.
const GRACE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_port_changes_the_gateway_alone() {
        let config = "wasm = \"../dist/plugins/hello.wasm\"\nbind = \"127.0.0.1:8080\"\nbind = \"127.0.0.1:28081\"\n";
        let expected = "wasm = \"/r/dist/plugins/hello.wasm\"\nbind = \"127.0.0.1:9000\"\nbind = \"127.0.0.1:28081\"\n";
        assert_eq!(with_port(config, 9000, Path::new("/r")), expected);
    }

    #[test]
    fn the_addresses_of_the_shipped_config_are_found() {
        let addresses = bound_addresses(include_str!("../../conf/demo.toml"));
        assert_eq!(addresses.len(), 4);
        assert!(addresses.contains(&SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT))));
    }

    #[test]
    fn the_lines_to_try_name_the_port() {
        let text = what_to_try(9000, "conf/demo.toml");
        assert!(text.contains("curl -i http://127.0.0.1:9000/\n"));
        assert!(!text.contains("{gateway}"));
    }
}
