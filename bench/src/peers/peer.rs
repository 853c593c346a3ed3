//! The proxies that are compared: how each is started, reloaded and ended.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::certificates;
use super::counters;
use super::front::Front;
use super::origin::Origin;
use super::probe::{self, Reply};
use super::source;
use super::template::{self, Values};
use crate::Places;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Software {
    Nginx,
    Haproxy,
    Envoy,
    Castling,
    /// Another build of it.
    CastlingBeside,
}

/// A proxy with the logic that a case wants of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Peer {
    /// Name of the peer in `--peers`.
    pub(crate) id: &'static str,
    pub(crate) software: Software,
    /// A file beside the base of its config, without the ending.
    pub(crate) logic: Option<&'static str>,
    /// How clients come to it.
    pub(crate) front: Front,
}

/// Settings that all peers of a run have in common.
pub(crate) struct Surroundings<'a> {
    pub(crate) places: &'a Places,
    pub(crate) origin: Origin,
    pub(crate) access_log: bool,
    /// The command that runs them.
    pub(crate) runner: Vec<String>,
    /// How long one may take until it answers, and until it has ended.
    pub(crate) patience: Duration,
}

/// A proxy that serves. Dropping it ends it.
pub(crate) struct Running {
    pub(crate) peer: Peer,
    pub(crate) address: SocketAddr,
    software: PathBuf,
    config: PathBuf,
    child: Child,
    patience: Duration,
}

impl Peer {
    /// Name that a reader of the report knows.
    pub(crate) fn title(self) -> &'static str {
        match self.id {
            "nginx" => "nginx",
            "nginx-again" => "nginx, once more",
            "nginx-forwarded" => "nginx that sets X-Forwarded-* and Via",
            "nginx-room" => "nginx with keepalive 2048",
            "nginx-lua" => "nginx + Lua",
            "nginx-njs" => "nginx + njs",
            "haproxy" => "HAProxy",
            "envoy" => "Envoy",
            "envoy-wasm" => "Envoy + proxy-wasm",
            "castling-plain" => "Castling, no plugin",
            "castling-plain-beside" => "Castling's other build, no plugin",
            "castling-beside" => "Castling's other build",
            _ => "Castling",
        }
    }

    /// The program, and what of Debian's packages brings what this peer needs beyond it. An error says what is missing.
    pub(crate) fn find(self, places: &Places) -> Result<PathBuf, String> {
        let program = match self.software {
            Software::Castling => places.castling.clone(),
            Software::CastlingBeside => places.beside.clone().ok_or("there is no other build")?,
            Software::Nginx => on_path("nginx")?,
            Software::Haproxy => on_path("haproxy")?,
            Software::Envoy => {
                let installed = places.work.join("envoy/envoy/_bin/envoy");
                if installed.exists() {
                    installed
                } else {
                    on_path("envoy")?
                }
            }
        };
        let module = match self.id {
            "nginx-lua" => Some("ngx_http_lua_module.so"),
            "nginx-njs" => Some("ngx_http_js_module.so"),
            _ => None,
        };
        if let Some(module) = module {
            let file = nginx_modules(&program)?.join(module);
            if !file.exists() {
                return Err(format!("{} is missing", file.display()));
            }
        }
        if !program.exists() {
            return Err(format!("{} is missing", program.display()));
        }
        Ok(program)
    }

    /// Version that the program says it has.
    pub(crate) fn version(self, places: &Places) -> String {
        let said = |program: &Path, argument| {
            let output = Command::new(program).arg(argument).output().ok()?;
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text).trim().to_owned();
            text.lines().next().map(str::to_owned)
        };
        let Ok(program) = self.find(places) else {
            return "missing".to_owned();
        };
        let argument = match self.software {
            Software::Nginx | Software::Haproxy => "-v",
            Software::Envoy | Software::Castling | Software::CastlingBeside => "--version",
        };
        let said = said(&program, argument).unwrap_or_default();
        // Envoy begins with where it is.
        let mut version = match said.strip_prefix(&*program.to_string_lossy()) {
            Some(rest) => format!("envoy{rest}"),
            None => said,
        };
        let package = match self.id {
            "nginx-lua" => Some("libnginx-mod-http-lua"),
            "nginx-njs" => Some("libnginx-mod-http-js"),
            _ => None,
        };
        let of_package = package.and_then(|package| {
            let mut dpkg = Command::new("dpkg-query");
            dpkg.args(["--show", "--showformat", "${Package} ${Version}", package]);
            let output = dpkg.output().ok()?;
            output
                .status
                .success()
                .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        });
        if let Some(of_package) = of_package {
            version = format!("{version}, {of_package}");
        }
        if let Software::Castling = self.software
            && let Some(commit) = source::commit(&places.bench)
        {
            version = format!("{version}, {commit}");
        }
        version
            .trim_start_matches(|c: char| c.is_whitespace())
            .to_owned()
    }

    /// Writes its config into `folder` and waits until it answers.
    pub(crate) fn start(self, around: &Surroundings<'_>, folder: &Path) -> Result<Running, String> {
        let software = self.find(around.places)?;
        let folder = folder.join(self.id);
        fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let port = free_port()?;
        let config = self.write_config(around, &folder, port, &software)?;
        let log = folder.join("output.log");
        let output = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let errors = output.try_clone().map_err(|e| e.to_string())?;
        let child = self
            .command(around, &software, &config, &folder)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|e| format!("{}: {e}", software.display()))?;
        let mut running = Running {
            peer: self,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            software,
            config,
            child,
            patience: around.patience,
        };
        running
            .until_it_answers()
            .map_err(|error| format!("{}: {error}\n{}", self.id, tail(&log)))?;
        Ok(running)
    }

    fn write_config(
        self,
        around: &Surroundings<'_>,
        folder: &Path,
        port: u16,
        software: &Path,
    ) -> Result<PathBuf, String> {
        let (name, ending) = match self.software {
            Software::Nginx => ("nginx", "conf"),
            Software::Haproxy => ("haproxy", "cfg"),
            Software::Envoy => ("envoy", "yaml"),
            Software::Castling | Software::CastlingBeside => ("castling", "toml"),
        };
        let templates = around.places.bench.join("peers");
        let own = templates.join(name);
        let mut sections = vec![own.join(format!("fronts/{}.{ending}", self.front.name()))];
        if let Some(logic) = self.logic {
            sections.push(own.join(format!("{logic}.{ending}")));
        }
        let origin = match self.front {
            Front::Grpc => around.origin.grpc,
            Front::Plain | Front::Tls(_) | Front::Http2 | Front::Http2Tls => around.origin.address,
        };
        // The kernel knows no such system call.
        let under_valgrind = around
            .runner
            .first()
            .is_some_and(|first| first == "valgrind");
        let mut values: Values = vec![
            ("port", port.to_string()),
            ("origin", origin.to_string()),
            ("origin_port", origin.port().to_string()),
            ("connections", self.most_connections().to_string()),
            ("kept", self.kept().to_string()),
            ("dir", folder.display().to_string()),
            ("templates", templates.display().to_string()),
            ("shipped", around.places.plugins.display().to_string()),
            (
                "bench_plugins",
                around.places.bench_plugins.display().to_string(),
            ),
            ("access_log", self.access_log(around.access_log, folder)),
            ("seccomp", (!under_valgrind).to_string()),
        ];
        if self.software == Software::Nginx {
            let modules = nginx_modules(software)?;
            values.push(("modules", modules.display().to_string()));
            values.push(("user", format!("{} {}", id("-un")?, id("-gn")?)));
        }
        if let Some(key) = self.front.key() {
            let files = certificates::of(key, &around.places.work)?;
            values.extend(files.map(|(name, file)| (name, file.display().to_string())));
        }
        let base = own.join(format!("base.{ending}"));
        let text = template::render(&base, &sections, &values)?;
        let config = folder.join(format!("{name}.{ending}"));
        fs::write(&config, text).map_err(|e| format!("{}: {e}", config.display()))?;
        Ok(config)
    }

    /// Connections of clients that it is told to take, where it has to be told.
    fn most_connections(self) -> u32 {
        match (self.software, self.front) {
            (_, Front::Plain) => 8192,
            // nginx closes idle ones when fewer than a sixteenth is free.
            (Software::Nginx, _) => 12_000,
            // HAProxy wants two descriptors for each, of the 20,000 that a process often has at most.
            (_, Front::Tls(_) | Front::Http2 | Front::Http2Tls | Front::Grpc) => 9500,
        }
    }

    /// Idle connections to the origin that it may keep, where it has to be told.
    fn kept(self) -> u32 {
        match (self.id, self.front) {
            ("nginx-room", _) => 2048,
            // There are as many clients in most cases.
            (_, Front::Plain) => 64,
            // Clients of HTTP/2 have more requests under way than they have connections.
            (_, Front::Tls(_) | Front::Http2 | Front::Http2Tls | Front::Grpc) => 256,
        }
    }

    fn access_log(self, wanted: bool, folder: &Path) -> String {
        let file = folder.join("access.log").display().to_string();
        match (self.software, wanted) {
            (Software::Nginx | Software::Castling | Software::CastlingBeside, false) => {
                "off".to_owned()
            }
            (Software::Haproxy | Software::Envoy, false) => String::new(),
            (Software::Nginx, true) => format!("{file} combined buffer=64k flush=100ms"),
            (Software::Castling | Software::CastlingBeside, true) => file,
            (Software::Haproxy, true) => "log stdout format raw local0\n    option httplog".into(),
            (Software::Envoy, true) => format!(
                "access_log: [{{ name: file, typed_config: {{ \"@type\": \
                 type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: {file} }} }}]"
            ),
        }
    }

    /// The process ends with this program, whatever ends that.
    fn command(
        self,
        around: &Surroundings<'_>,
        software: &Path,
        config: &Path,
        folder: &Path,
    ) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]);
        command.args(&around.runner).arg(software);
        match self.software {
            Software::Nginx => command.arg("-p").arg(folder).arg("-c").arg(config),
            Software::Haproxy => command.args(["-W", "-db", "-f"]).arg(config),
            Software::Envoy => command
                .args([
                    "--concurrency",
                    "1",
                    "--disable-hot-restart",
                    "-l",
                    "warning",
                    "-c",
                ])
                .arg(config),
            Software::Castling | Software::CastlingBeside => {
                command.args(["run", "--config"]).arg(config)
            }
        };
        command
    }
}

impl Running {
    /// The process that was started; what it has started are its descendants.
    pub(crate) fn root(&self) -> u32 {
        self.child.id()
    }

    /// Sends one request on a connection of its own, as clients of this peer do.
    pub(crate) fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Reply, String> {
        match self.peer.front {
            Front::Plain | Front::Tls(_) => {
                probe::get_http1(self.peer.front, self.address, path, headers)
            }
            Front::Http2 | Front::Http2Tls | Front::Grpc => {
                probe::get_http2(self.peer.front, self.address, path, headers)
            }
        }
    }

    /// Has it read its config anew. Returns when it has been told, or for Castling, when the new generation serves.
    pub(crate) fn reload(&self) -> Result<(), String> {
        match self.peer.software {
            Software::Nginx => self.signal(Signal::HUP),
            Software::Haproxy => self.signal(Signal::USR2),
            Software::Envoy => Err("Envoy takes new configs from a control plane".to_owned()),
            Software::Castling | Software::CastlingBeside => {
                let mut reload = Command::new(&self.software);
                reload.args(["reload", "--config"]).arg(&self.config);
                let output = reload.output().map_err(|e| e.to_string())?;
                match output.status.success() {
                    true => Ok(()),
                    false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
                }
            }
        }
    }

    fn until_it_answers(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let Err(error) = self.get("/34", &[]) else {
                return Ok(());
            };
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("it has ended: {status}"));
            }
            if begun.elapsed() > self.patience {
                return Err(format!("it does not answer: {error}"));
            }
            std::thread::sleep(POLL);
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = i32::try_from(self.root()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or("a process without an id")?;
        kill_process(pid, signal).map_err(|e| e.to_string())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let descendants = counters::tree(self.root());
        let _ended_before = self.signal(Signal::TERM);
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if begun.elapsed() > self.patience {
                for pid in descendants {
                    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                        let _ended_before = kill_process(pid, Signal::KILL);
                    }
                }
                let _status = self.child.wait();
                return;
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Where nginx says its modules are.
fn nginx_modules(nginx: &Path) -> Result<PathBuf, String> {
    let output = Command::new(nginx)
        .arg("-V")
        .output()
        .map_err(|e| format!("{}: {e}", nginx.display()))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let path = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix("--modules-path="));
    Ok(PathBuf::from(path.unwrap_or("/usr/lib/nginx/modules")))
}

/// On `PATH`, or where Debian keeps servers, which an ordinary user's path may lack.
pub(crate) fn on_path(program: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("{program} is not installed"))
}

fn id(option: &str) -> Result<String, String> {
    let output = Command::new("id").arg(option).output();
    let output = output.map_err(|e| format!("id: {e}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn free_port() -> Result<u16, String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|e| format!("no free port: {e}"))
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

const POLL: Duration = Duration::from_millis(20);
