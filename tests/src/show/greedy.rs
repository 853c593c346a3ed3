//! Greedy clients: hundreds that ask for large bodies and read nothing, and how long others wait meanwhile. The same of
//! nginx, where it is installed.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::watched::Watched;
use super::{Progress, Report};
use crate::{DEADLINE, Proxy, RawClient, origin, raw_origin};

/// Size of the show.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub clients: usize,
    /// Bytes of each body.
    pub body_bytes: usize,
    /// How long others are watched, from when the greedy ones ask.
    pub watch: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clients: 300,
            body_bytes: 100_000_000,
            watch: Duration::from_secs(5),
        }
    }
}

/// Kind of body that the greedy clients are sent.
#[derive(Clone, Copy)]
enum Kind {
    Large,
    /// Chunks of a byte.
    Chunks,
}

impl Kind {
    const fn told(self) -> &'static str {
        match self {
            Self::Large => "large bodies",
            Self::Chunks => "chunks of a byte",
        }
    }

    fn origin(self, bytes: usize) -> origin::Origin {
        let (head, unit): (String, &[u8]) = match self {
            Self::Large => (format!("Content-Length: {bytes}"), b"0123456789abcdef"),
            Self::Chunks => ("Transfer-Encoding: chunked".to_owned(), b"1\r\nx\r\n"),
        };
        let piece = unit.repeat(64 * 1024 / unit.len());
        raw_origin::scripted(move |connection, _| {
            // This thread's: hundreds of them would take the cores from the gateway. Where it is not granted, they do.
            let _granted = rustix::process::setpriority_process(None, 19);
            connection.read_head()?;
            connection.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n"));
            let mut left = bytes;
            while left > 0 {
                let now = left.min(piece.len());
                // The other side may have had enough.
                std::io::Write::write_all(&mut connection.socket(), &piece[..now])
                    .map_err(|error| error.to_string())?;
                left -= now;
            }
            Ok(())
        })
    }
}

/// Runs it.
pub fn run(options: &Options, progress: &mut Progress) -> Report {
    let mut report = Report::new(format!(
        "Greedy: {} clients that read nothing of {} bytes each, one worker",
        options.clients, options.body_bytes
    ));
    for kind in [Kind::Large, Kind::Chunks] {
        progress.step(&format!("castling, {}", kind.told()));
        let watched = beside_greedy(options, kind, |greedy, modest| {
            let config = CASTLING
                .replace("GREEDY", &greedy.to_string())
                .replace("MODEST", &modest.to_string());
            let proxy = Proxy::with_config(&config).start();
            (proxy.address(), Served::Castling(Box::new(proxy)))
        });
        report.claim(
            format!("0 requests of others fail, {}", kind.told()),
            watched.failures.len(),
            watched.failures.is_empty(),
        );
        report.figure("  how long others wait", watched.told());
        report.details(watched.failures);
        progress.step(&format!("nginx, {}", kind.told()));
        if Command::new("nginx")
            .arg("-v")
            .stderr(Stdio::null())
            .status()
            .is_ok()
        {
            let watched = beside_greedy(options, kind, start_nginx);
            report.figure("  beside nginx", watched.told());
        }
    }
    report
}

/// A gateway that ends with this.
enum Served {
    Castling(#[expect(dead_code, reason = "it is ended by being dropped")] Box<Proxy>),
    Nginx {
        child: Child,
        _dir: tempfile::TempDir,
    },
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Self::Nginx { child, .. } = self {
            // The process may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn beside_greedy(
    options: &Options,
    kind: Kind,
    start: impl FnOnce(SocketAddr, SocketAddr) -> (SocketAddr, Served),
) -> Watched {
    let greedy = kind.origin(options.body_bytes);
    let modest = origin::text("modest");
    let (gateway, served) = start(greedy.address(), modest.address());
    // Once around, so that what is made once is there.
    Watched::watch(gateway, REQUEST, "modest", Duration::from_millis(200));
    let watching = options.watch;
    let watcher = std::thread::spawn(move || Watched::watch(gateway, REQUEST, "modest", watching));
    let clients: Vec<RawClient> = (0..options.clients)
        .map(|_| {
            let mut client = RawClient::connect(gateway);
            client.send("GET /greedy HTTP/1.1\r\nHost: a\r\n\r\n");
            client
        })
        .collect();
    let watched = watcher.join().expect("the watcher");
    drop(clients);
    drop(served);
    watched
}

fn start_nginx(greedy: SocketAddr, modest: SocketAddr) -> (SocketAddr, Served) {
    let dir = tempfile::tempdir().expect("a folder");
    let bound = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = bound.expect("a free port");
    let config = NGINX
        .replace("DIR", &dir.path().display().to_string())
        .replace("ADDRESS", &address.to_string())
        .replace("GREEDY", &greedy.to_string())
        .replace("MODEST", &modest.to_string());
    let file = dir.path().join("nginx.conf");
    fs::write(&file, config).expect("a writable folder");
    let child = Command::new("nginx")
        .arg("-c")
        .arg(&file)
        .stderr(Stdio::null())
        .spawn()
        .expect("nginx");
    let begun = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        assert!(begun.elapsed() < DEADLINE, "nginx does not answer");
        std::thread::sleep(Duration::from_millis(10));
    }
    (address, Served::Nginx { child, _dir: dir })
}

const REQUEST: &str = "GET /modest HTTP/1.1\r\nHost: a\r\n\r\n";

const CASTLING: &str = r#"
[workers]
count = 1
[listeners.web]
bind = "{listen}"
[upstreams.greedy]
peers = ["GREEDY"]
[upstreams.modest]
peers = ["MODEST"]
[[routes]]
path = "/greedy"
upstream = "greedy"
[[routes]]
upstream = "modest"
"#;

const NGINX: &str = "
worker_processes 1;
daemon off;
master_process off;
pid DIR/nginx.pid;
error_log DIR/error.log warn;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path DIR/body;
    proxy_temp_path DIR/proxy;
    fastcgi_temp_path DIR/fastcgi;
    uwsgi_temp_path DIR/uwsgi;
    scgi_temp_path DIR/scgi;
    proxy_max_temp_file_size 0;
    proxy_http_version 1.1;
    keepalive_requests 1000000;
    server {
        listen ADDRESS;
        location /greedy { proxy_pass http://GREEDY; }
        location / { proxy_pass http://MODEST; }
    }
}
";
