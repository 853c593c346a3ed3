//! A gateway before its start: config, origins, the folder it lives in.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use tempfile::TempDir;

use crate::command::{self, Outcome};
use crate::origin::Origin;
use crate::proxy::Proxy;
use crate::raw_origin::DeadAddress;
use crate::template;

/// A gateway before its start. [`Proxy::with_config`] makes one.
///
/// Its config may have `{placeholders}`:
/// - `{listen}` and names that begin with `listen_`: an address on an ephemeral port, for `bind`;
/// - the names given to [`Setup::origin`]: the origin's address;
/// - `{refusing}`, `{silent}`: an address that refuses connections, one that never answers them;
/// - `{plugins}`, `{guests}`: the folders of the shipped and of the tests' modules; `{dir}`: a folder of this test,
///   where the config lies.
///
/// `[master]`, `[workers]` (2), `[access_log]` (`{dir}/access.log`) and `[log]` are appended where they are missing.
#[derive(Debug)]
pub struct Setup {
    pub(crate) dir: TempDir,
    pub(crate) config: String,
    /// Values of placeholders, beside listeners.
    known: BTreeMap<String, String>,
    pub(crate) listeners: BTreeMap<String, SocketAddr>,
    pub(crate) origins: BTreeMap<String, Origin>,
    stdout: Stdout,
    environment: Vec<(String, String)>,
    activated: Vec<(String, OwnedFd)>,
    _dead: Vec<DeadAddress>,
}

impl Setup {
    pub(crate) fn new(config: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("castling-test-")
            .tempdir()
            .expect("a temporary folder");
        let (refusing, silent) = (DeadAddress::refusing(), DeadAddress::silent());
        let known = BTreeMap::from([
            ("dir".to_owned(), dir.path().display().to_string()),
            ("refusing".to_owned(), refusing.address().to_string()),
            ("silent".to_owned(), silent.address().to_string()),
        ]);
        Self {
            dir,
            config: template::dedent(config),
            known,
            listeners: BTreeMap::new(),
            origins: BTreeMap::new(),
            stdout: Stdout::File,
            environment: Vec::new(),
            activated: Vec::new(),
            _dead: vec![refusing, silent],
        }
    }

    /// A running origin, whose address stands for `{name}`.
    pub fn origin(mut self, name: &str, origin: Origin) -> Self {
        self.known
            .insert(name.to_owned(), origin.address().to_string());
        self.origins.insert(name.to_owned(), origin);
        self
    }

    /// A file beside the config.
    pub fn file(self, name: &str, contents: impl AsRef<[u8]>) -> Self {
        let path = self.dir.path().join(name);
        let folder = path.parent().expect("a file of the test's folder");
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, contents))
            .expect("a writable folder");
        self
    }

    /// Where the config will lie.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Other users may pass through its folder to files that are theirs, and make some in it.
    pub fn open_to_others(self) -> Self {
        let mode = fs::Permissions::from_mode(0o1777);
        fs::set_permissions(self.dir.path(), mode).expect("a folder of ours");
        self
    }

    /// Makes standard output a pipe that fills up, since nobody reads it. [`Proxy::stdout`] has nothing then.
    pub fn stdout_that_nobody_reads(mut self) -> Self {
        self.stdout = Stdout::UnreadPipe;
        self
    }

    /// A variable of its environment, in whose value `{dir}` stands for the test's folder, and `$$` for its pid.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        let value = value.replace("{dir}", &self.dir.path().display().to_string());
        self.environment.push((name.to_owned(), value));
        self
    }

    /// A listening socket that it finds at its start, as if from systemd, by this name.
    pub fn activated(mut self, name: &str, socket: impl Into<OwnedFd>) -> Self {
        self.activated.push((name.to_owned(), socket.into()));
        self
    }

    /// Listener activated with this socket, whose address stands for `{name}`.
    pub fn activated_listener(mut self, name: &str, socket: TcpListener) -> Self {
        let address = socket.local_addr().expect("a bound socket");
        self.listeners.insert(name.to_owned(), address);
        self.activated(name, socket)
    }

    /// The folder of the config.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts it and waits until it serves. Panics with what it said when it does not.
    #[track_caller]
    pub fn start(mut self) -> Proxy {
        for _ in 0..PORT_TRIES {
            self.write_config();
            match self.try_start() {
                Ok(master) => return Proxy::started(self, master),
                // Another process got the port between our asking for a free one and the gateway's bind.
                Err(said) if said.contains("in use") => self.listeners.clear(),
                Err(said) => panic!("the gateway does not start:\n{said}"),
            }
        }
        panic!("no free port in {PORT_TRIES} tries")
    }

    /// `castling check`, without starting anything.
    pub fn check(mut self) -> Checked {
        self.write_config();
        let mut command = self.command();
        command.arg("check").arg("--config").arg(self.config_path());
        let outcome = command::run(command, Duration::from_secs(30));
        Checked {
            outcome,
            dir: self.dir,
        }
    }

    /// Writes the config without starting anything: its folder, which goes when this is dropped, and its path.
    pub fn written(mut self) -> (TempDir, PathBuf) {
        self.write_config();
        let path = self.config_path();
        (self.dir, path)
    }

    /// `castling run`, which is expected to end by itself.
    pub fn run(mut self) -> Checked {
        self.write_config();
        let outcome = command::castling("run", &self.config_path(), &[]);
        Checked {
            outcome,
            dir: self.dir,
        }
    }

    pub(crate) fn try_start(&self) -> Result<Child, String> {
        let create =
            |name| File::create(self.dir.path().join(name)).expect("a file of the test's folder");
        let mut command = self.command();
        command.arg("run").arg("--config").arg(self.config_path());
        command
            .stdin(Stdio::null())
            .stdout(match self.stdout {
                Stdout::File => create("stdout.log").into(),
                // Our end stays open in the `Child`.
                Stdout::UnreadPipe => Stdio::piped(),
            })
            .stderr(create("stderr.log"));
        let mut master = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let start = Instant::now();
        loop {
            if master.try_wait().expect("a child of ours").is_some() {
                return Err(read(&self.dir.path().join("stderr.log")));
            }
            if self.dir.path().join(CONTROL).exists() && self.serves() {
                return Ok(master);
            }
            if start.elapsed() > START_LIMIT {
                let _ended_meanwhile = master.kill();
                let _status = master.wait();
                return Err(format!(
                    "not up within {START_LIMIT:?}:\n{}",
                    read(&self.dir.path().join("stderr.log"))
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The binary, in the environment and with the sockets that it is to find.
    fn command(&self) -> Command {
        if self.environment.is_empty() && self.activated.is_empty() {
            return Command::new(crate::castling_bin());
        }
        let mut variables = String::new();
        let mut set = |name: &str, value: &str| variables += &format!("{name}=\"{value}\" ");
        for (name, value) in &self.environment {
            set(name, value);
        }
        let mut mappings = Vec::new();
        if !self.activated.is_empty() {
            let names: Vec<_> = self.activated.iter().map(|(name, _)| &**name).collect();
            set("LISTEN_PID", "$$");
            set("LISTEN_FDS", &names.len().to_string());
            set("LISTEN_FDNAMES", &names.join(":"));
            for (child_fd, (_, socket)) in (FIRST_FD..).zip(&self.activated) {
                let parent_fd = socket.try_clone().expect("a descriptor");
                mappings.push(FdMapping {
                    parent_fd,
                    child_fd,
                });
            }
        }
        // Only the process itself knows its pid.
        let mut command = Command::new("sh");
        let script = format!("{variables} exec \"$0\" \"$@\"");
        command.arg("-c").arg(script).arg(crate::castling_bin());
        command.fd_mappings(mappings).expect("each number once");
        command
    }

    fn serves(&self) -> bool {
        command::castling("status", &self.config_path(), &[]).code == Some(0)
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.dir.path().join("castling.toml")
    }

    pub(crate) fn write_config(&mut self) {
        let mut text = self.config.clone();
        for name in template::placeholders(&text) {
            let value = self.value_of(&name);
            text = text.replace(&format!("{{{name}}}"), &value);
        }
        let dir = self.dir.path().display();
        let store = module_store();
        let whole = template::with_defaults(
            &text,
            &[
                (
                    "master",
                    format!(
                        "control = \"{dir}/{CONTROL}\"\nmodule_store = \"{}\"\nzone_store = \"{dir}/zones\"",
                        store.display()
                    ),
                ),
                ("workers", "count = 2\ndrain_timeout = \"5s\"".to_owned()),
                (
                    "access_log",
                    format!("file = \"{dir}/access.log\"\nflush = \"10ms\""),
                ),
                ("log", "level = \"info\"".to_owned()),
            ],
        );
        fs::write(self.config_path(), whole).expect("a writable folder");
    }

    fn value_of(&mut self, name: &str) -> String {
        if let Some(known) = self.known.get(name) {
            return known.clone();
        }
        match name {
            "plugins" => crate::plugins_dir().display().to_string(),
            "guests" => crate::guests_dir().display().to_string(),
            _ if name == "listen" || name.starts_with("listen_") => self
                .listeners
                .entry(name.to_owned())
                .or_insert_with(free_address)
                .to_string(),
            _ => panic!("{{{name}}} in the config is neither an origin nor a listener"),
        }
    }
}

/// Where a gateway's standard output goes.
#[derive(Clone, Copy, Debug)]
enum Stdout {
    /// `stdout.log` beside the config.
    File,
    UnreadPipe,
}

/// Output of a command about a config, and the folder that it lay in.
#[derive(Debug)]
pub struct Checked {
    pub outcome: Outcome,
    dir: TempDir,
}

impl Checked {
    /// Panics unless the command exits with 1 and one line of its standard error is `error`, in which `{dir}` stands
    /// for the config's folder.
    #[track_caller]
    pub fn expect_error(self, error: &str) {
        let error = error.replace("{dir}", &self.dir.path().display().to_string());
        let said = self.outcome.expect_refusal().stderr;
        assert!(said.contains(&error), "expected: {error}\nsaid:     {said}");
    }
}

/// An address on a port that was free a moment ago.
fn free_address() -> SocketAddr {
    let bound = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    bound.expect("a free port")
}

/// Where all tests keep compiled plugins, so that each is compiled once.
fn module_store() -> PathBuf {
    crate::workspace_root().join("target/test-modules")
}

pub(crate) fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// First descriptor of those that come from systemd (sd_listen_fds(3)).
const FIRST_FD: i32 = 3;

/// The control socket in the test's folder.
const CONTROL: &str = "castling.sock";

/// How often another port is tried when one was taken.
const PORT_TRIES: usize = 5;

/// From the start of the process to its first answer; plugins are compiled in it.
const START_LIMIT: Duration = Duration::from_secs(60);
