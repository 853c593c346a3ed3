//! pebble: Let's Encrypt's authority for tests, with a DNS server in which every name is this machine.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::tls::{Authority, TlsClient};
use crate::{setup, until};

/// A running authority. Dropping it ends it.
pub struct Pebble {
    /// Vouches for the TLS of its API.
    pub authority: Authority,
    api: SocketAddr,
    management: SocketAddr,
    dir: TempDir,
    children: Vec<Child>,
}

/// An authority before its start.
pub struct PebbleSetup {
    http: SocketAddr,
    tls: SocketAddr,
    environment: Vec<(&'static str, &'static str)>,
    validity_seconds: u32,
    external_account: bool,
}

/// Whether it can be started: Debian's package `pebble` is installed.
pub fn is_installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |name: &str| std::env::split_paths(&path).any(|folder| folder.join(name).exists());
    has("pebble") && has("pebble-challtestsrv")
}

/// An address on a port that was free a moment ago, and that no connection gets as its own: below those that the kernel hands out.
/// Each of a process is another.
pub fn free_address() -> SocketAddr {
    const FIRST: u32 = 10_000;
    const PORTS: u32 = 20_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let own = std::process::id().wrapping_mul(97);
    loop {
        let at = own.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % PORTS;
        let port = u16::try_from(FIRST + at).expect("a port");
        if let Ok(address) =
            TcpListener::bind(("127.0.0.1", port)).and_then(|listener| listener.local_addr())
        {
            return address;
        }
    }
}

/// An authority that looks for answers over HTTP and TLS at these addresses.
pub fn asking(http: SocketAddr, tls: SocketAddr) -> PebbleSetup {
    PebbleSetup {
        http,
        tls,
        environment: vec![
            ("PEBBLE_VA_NOSLEEP", "1"),
            ("PEBBLE_WFE_NONCEREJECT", "0"),
            ("PEBBLE_AUTHZREUSE", "0"),
        ],
        validity_seconds: 90 * 24 * 3600,
        external_account: false,
    }
}

impl PebbleSetup {
    /// Sets a variable of its environment.
    pub fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, value));
        self
    }

    /// Certificates are good for so long.
    pub fn lasting(mut self, seconds: u32) -> Self {
        self.validity_seconds = seconds;
        self
    }

    /// Accounts have to be bound to [`EXTERNAL_ACCOUNT`].
    pub fn with_external_account(mut self) -> Self {
        self.external_account = true;
        self
    }

    #[track_caller]
    pub fn start(self) -> Pebble {
        self.start_at(free_address())
    }

    /// Starts it with its API at this address.
    #[track_caller]
    pub fn start_at(self, api: SocketAddr) -> Pebble {
        let authority = Authority::new("pebble's API");
        let dir = tempfile::tempdir().expect("a temporary folder");
        let pem = authority.certify(&["localhost", "127.0.0.1"]);
        let write = |name: &str, text: &str| {
            fs::write(dir.path().join(name), text).expect("a writable folder");
        };
        write("api.pem", &pem.chain);
        write("api.key", &pem.key);
        let [management, dns, dns_management] = std::array::from_fn(|_| free_address());
        let mut config = serde_json::json!({
            "listenAddress": api.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": dir.path().join("api.pem"),
            "privateKey": dir.path().join("api.key"),
            "httpPort": self.http.port(),
            "tlsPort": self.tls.port(),
            "externalAccountBindingRequired": self.external_account,
            "certificateValidityPeriod": self.validity_seconds,
        });
        if self.external_account {
            let (kid, key) = EXTERNAL_ACCOUNT;
            config["externalAccountMACKeys"] = serde_json::json!({ kid: key });
        }
        write(
            "pebble.json",
            &serde_json::json!({ "pebble": config }).to_string(),
        );
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]);
        names.args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
        names.args(["-dns01", &dns.to_string()]);
        names.args(["-management", &dns_management.to_string()]);
        let mut pebble = Command::new("pebble");
        pebble.arg("-config").arg(dir.path().join("pebble.json"));
        pebble.args(["-dnsserver", &dns.to_string()]);
        pebble.envs(self.environment);
        let children = [(names, "names.log"), (pebble, "pebble.log")];
        let children = children.map(|(command, log)| spawn(command, &dir.path().join(log)));
        let pebble = Pebble {
            authority,
            api,
            management,
            dir,
            children: children.into(),
        };
        until("pebble", || {
            [api, management, dns_management]
                .iter()
                .all(|address| TcpStream::connect(address).is_ok())
        });
        pebble
    }
}

fn spawn(mut command: Command, log: &Path) -> Child {
    let log = File::create(log).expect("a writable folder");
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a descriptor"))
        .stderr(log);
    command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Id and key of the account that others may be bound to.
pub const EXTERNAL_ACCOUNT: (&str, &str) = (
    "kid-1",
    "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W",
);

impl Pebble {
    /// URL of its directory.
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.api)
    }

    /// Address of its API.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// Client that trusts the certificates that it has made since its start.
    #[track_caller]
    pub fn client(&self) -> TlsClient {
        TlsClient::trusting(&self.root())
    }

    /// Certificate of the authority that vouches for those that it makes, PEM.
    #[track_caller]
    pub fn root(&self) -> String {
        let said = self.get(self.management, "/roots/0");
        let begin = said.find("-----BEGIN").expect("a root");
        said[begin..].to_owned()
    }

    /// Body and head of an answer of its API, or of its management.
    #[track_caller]
    pub fn get(&self, address: SocketAddr, path: &str) -> String {
        let client = TlsClient::new(&self.authority);
        let mut tls = client.connect(address, "localhost").expect("pebble");
        tls.send(format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        ));
        tls.read_to_end().expect("an answer")
    }

    /// Everything that it has said.
    pub fn log(&self) -> String {
        setup::read(&self.path("pebble.log"))
    }

    /// How often its log has this text.
    pub fn said(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for child in &mut self.children {
            // A child may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- pebble\n{}---", self.log());
        }
    }
}
