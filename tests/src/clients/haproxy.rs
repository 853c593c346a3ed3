//! HAProxy in front, with PROXY headers: the client's address arrives.

use std::process::{Child, Command, Stdio};

use super::{Done, Outcome, Site, Stopped, expect, site, tool};
use crate::until;

/// Ways of HAProxy to the gateway: what it does with clients' TLS, the gateway's listener, and the header it sends.
const WAYS: [Way; 5] = [
    Way::new("http", "listen_proxied", "send-proxy"),
    Way::new("http", "listen_proxied", "send-proxy-v2"),
    Way::new("https", "listen_proxied", "send-proxy-v2-ssl"),
    Way::new("https", "listen_proxied", "send-proxy-v2-ssl-cn"),
    Way {
        passes_tls: true,
        ..Way::new("https", "listen_proxied_tls", "send-proxy-v2")
    },
];

/// Address of the client, which no other has.
const CLIENT: &str = "127.0.0.77";

struct Way {
    scheme: &'static str,
    passes_tls: bool,
    listener: &'static str,
    header: &'static str,
}

impl Way {
    const fn new(scheme: &'static str, listener: &'static str, header: &'static str) -> Self {
        Self {
            scheme,
            passes_tls: false,
            listener,
            header,
        }
    }
}

pub(super) fn run(site: &mut Site) -> Outcome {
    let haproxy = tool::program("haproxy")?;
    let curl = tool::program("curl")?;
    let ports = WAYS.map(|_| site::free_port());
    let config = site.file("haproxy.cfg");
    std::fs::write(&config, text(site, &ports)).expect("a writable folder");
    let mut command = Command::new(&haproxy);
    command.args(["-db", "-f", &config]).stdin(Stdio::null());
    let log = std::fs::File::create(site.file("haproxy.log")).expect("a writable folder");
    command.stdout(log.try_clone().expect("a descriptor"));
    let _running = Running(
        command
            .stderr(log)
            .spawn()
            .expect("a program that is there"),
    );
    for (way, port) in WAYS.iter().zip(ports) {
        until("HAProxy listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        ask(&curl, site, way, port)?;
    }
    Ok(Done::new(
        tool::version(&haproxy, "-v"),
        "send-proxy, send-proxy-v2, -ssl and -ssl-cn, and v2 before TLS that it passes: the client's address arrives",
    ))
}

fn ask(curl: &std::path::Path, site: &Site, way: &Way, port: u16) -> Result<(), Stopped> {
    let url = format!("{}://{}:{port}/", way.scheme, site::NAME);
    let resolve = format!("{}:{port}:127.0.0.1", site::NAME);
    let ca = site.file("ca.pem");
    let arguments = [
        "--silent",
        "--max-time",
        "30",
        "--interface",
        CLIENT,
        "--cacert",
        &ca,
        "--resolve",
        &resolve,
        "--write-out",
        " %header{x-client}",
        &url,
    ];
    let outcome = tool::run(curl, &arguments);
    expect(outcome.stdout == format!("hello {CLIENT}"), || {
        format!("HAProxy with {}: {outcome:?}", way.header)
    })
}

fn text(site: &Site, ports: &[u16]) -> String {
    let mut text =
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n"
            .to_owned();
    for (way, port) in WAYS.iter().zip(ports) {
        let tls = match way.scheme == "https" && !way.passes_tls {
            true => format!(" ssl crt {}", site.file("both.pem")),
            false => String::new(),
        };
        let server = site.address(way.listener);
        text += &format!(
            "listen p{port}\n  bind 127.0.0.1:{port}{tls}\n  server gateway {server} {}\n",
            way.header
        );
    }
    text
}

/// HAProxy, which ends when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_before = self.0.kill();
        let _status = self.0.wait();
    }
}
