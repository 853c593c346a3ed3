//! The gateway that clients are tried with, and what stands behind it.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyUsagePurpose};
use serde_json::{Value, json};

use super::{origin, tool};
use crate::Proxy;
use crate::tls::{Authority, Pem};

/// A running gateway with a listener for each kind of client. Its certificates and keys are files beside its config: `ca.pem`
/// has signed `site.pem` (P-256) and `rsa.pem`, `clients.pem` has signed `ada.pem` and `eve.pem`, which is revoked.
#[derive(Debug)]
pub struct Site {
    pub proxy: Proxy,
    /// Servers in Python, where it has the packages.
    servers: Option<Servers>,
}

/// Name of the gateway in its certificates.
pub(super) const NAME: &str = "site.test";

impl Site {
    #[track_caller]
    pub fn start() -> Self {
        let servers = Servers::start();
        let address = |name| {
            let known = servers
                .as_ref()
                .map(|servers| servers.addresses[name].clone());
            // Nothing listens there: clients of it are missing, too.
            known.map_or("127.0.0.1:1".to_owned(), |known| {
                known.as_str().unwrap_or_default().to_owned()
            })
        };
        let frames = format!("127.0.0.1:{}", free_port());
        let config = CONFIG
            .replace("FRAMES", &frames)
            .replace("ECHO", &address("echo"))
            .replace("GRPC", &address("grpc"));
        let mut setup = Proxy::with_config(&config).origin("app", origin::serving());
        for (name, text) in files() {
            setup = setup.file(name, text);
        }
        let site = Self {
            proxy: setup.start(),
            servers,
        };
        let facts = json!({
            "name": NAME,
            "plain": site.address("listen"),
            "tls": site.address("listen_tls"),
            "frames": frames,
            "dir": site.file(""),
            "ca": site.file("ca.pem"),
        });
        std::fs::write(site.facts(), facts.to_string()).expect("a writable folder");
        site
    }

    /// Address of a listener, by its placeholder.
    pub(super) fn address(&self, listener: &str) -> SocketAddr {
        self.proxy.address_of(listener)
    }

    /// URL of a path by TLS, with the name of the certificates.
    pub(super) fn url(&self, listener: &str, path: &str) -> String {
        format!("https://{NAME}:{}{path}", self.address(listener).port())
    }

    /// Path of a file beside the config, as an argument.
    pub(super) fn file(&self, name: &str) -> String {
        self.proxy.path(name).display().to_string()
    }

    /// File that tells scripts where everything is.
    pub(super) fn facts(&self) -> PathBuf {
        self.proxy.path("site.json")
    }

    /// Address of the server that echoes WebSockets.
    pub(super) fn echo(&self) -> String {
        let servers = self.servers.as_ref();
        let address = servers.and_then(|servers| servers.addresses["echo"].as_str());
        address.unwrap_or_default().to_owned()
    }

    /// Whether WebSockets and gRPC have origins.
    pub(super) fn has_servers(&self) -> bool {
        self.servers.is_some()
    }
}

/// A port that was free a moment ago.
pub(super) fn free_port() -> u16 {
    let bound = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    bound.expect("a free port").port()
}

/// Servers of Python's `websockets` and grpcio. They end when this is dropped.
#[derive(Debug)]
struct Servers {
    process: Child,
    addresses: Value,
}

impl Servers {
    fn start() -> Option<Self> {
        let python = tool::python().ok()?;
        let mut command = Command::new(python);
        command.arg("-B").arg(tool::scripts().join("origins.py"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("a program that is there");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let addresses = serde_json::from_str(&line).expect("their addresses");
        Some(Self { process, addresses })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let _ended_before = self.process.kill();
        let _status = self.process.wait();
    }
}

fn files() -> Vec<(&'static str, String)> {
    let [site, clients] = ["Site CA", "Clients CA"].map(Authority::new);
    let p256 = site.certify_with(server(), &rcgen::PKCS_ECDSA_P256_SHA256);
    let rsa = site.certify_with(server(), &rcgen::PKCS_RSA_SHA256);
    let [ada, eve] = [("ada", ADA), ("eve", EVE)]
        .map(|(name, serial)| clients.certify_client(name, serial, (2020, 2100)));
    // A file with a certificate and its key, as HAProxy and others take it.
    let both = |pem: &Pem| format!("{}{}", pem.chain, pem.key);
    vec![
        ("ca.pem", site.pem()),
        ("clients.pem", clients.pem()),
        ("revoked.pem", clients.revoke(&[EVE], (2020, 2100))),
        ("both.pem", both(&p256)),
        ("ada.pem", both(&ada)),
        ("eve.pem", both(&eve)),
        ("site.pem", p256.chain),
        ("site.key", p256.key),
        ("rsa.pem", rsa.chain),
        ("rsa.key", rsa.key),
    ]
}

/// Certificate of a server as authorities issue it: good for less than 398 days.
fn server() -> CertificateParams {
    let mut params = Authority::params(&[NAME, "localhost", "127.0.0.1"]);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, NAME);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let now = SystemTime::now();
    let day = Duration::from_hours(24);
    params.not_before = (now - day).into();
    params.not_after = (now + 365 * day).into();
    params
}

/// Serial numbers of the clients' certificates.
const ADA: u64 = 7;
const EVE: u64 = 8;

const CONFIG: &str = r#"
    [listeners.web]
    bind = "{listen}"

    [listeners.tls]
    bind = "{listen_tls}"
    [listeners.tls.tls]
    certificates = [
        { certificate = "site.pem", key = "site.key" },
        { certificate = "rsa.pem", key = "rsa.key" },
    ]

    [listeners.clients]
    bind = "{listen_clients}"
    [listeners.clients.tls]
    certificates = [{ certificate = "site.pem", key = "site.key" }]
    client_certificates = { ca = "clients.pem", crl = "revoked.pem" }

    [listeners.proxied]
    bind = "{listen_proxied}"
    proxy_protocol = { from = ["127.0.0.0/8"] }

    [listeners.proxied_tls]
    bind = "{listen_proxied_tls}"
    proxy_protocol = { from = ["127.0.0.0/8"] }
    [listeners.proxied_tls.tls]
    certificates = [{ certificate = "site.pem", key = "site.key" }]

    [plugins.headers]
    wasm = "{plugins}/headers.wasm"
    [plugins.headers.config.response.set]
    x-client = "$client_address"
    x-tls = "$tls_version $tls_group resumed=$tls_resumed"
    x-tls-client = "$tls_client_subject"

    [upstreams.app]
    peers = ["{app}"]

    [upstreams.echo]
    peers = ["ECHO"]

    [upstreams.grpc]
    peers = ["GRPC"]
    protocol = "http2"

    [upstreams.dead]
    peers = ["{refusing}"]
    protocol = "http2"
    tries = 1

    # A script listens there for as long as it runs.
    [upstreams.frames]
    peers = ["FRAMES"]
    protocol = "http2"
    tries = 1

    [[routes]]
    plugins = ["headers"]
    upstream = "app"

    [[routes]]
    path = "/echo"
    upgrades = ["websocket"]
    upstream = "echo"

    [[routes]]
    path = "/castling.Test"
    upstream = "grpc"

    [[routes]]
    path = "/frames"
    upstream = "frames"

    [[routes]]
    path = "/castling.Dead"
    upstream = "dead"
"#;
