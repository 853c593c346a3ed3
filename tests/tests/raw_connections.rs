//! Connections on which plugins speak what they like, and Redis as an example.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use castling_tests::{Proxy, module, until};
use http::StatusCode;

const CONFIG: &str = r#"
    [workers]
    count = 1

    [plugins.talker]
    wasm = "{guests}/talker.wasm"
    grants = { upstreams = ["peer", "gone"] }

    [listeners.web]
    bind = "{listen}"
    half_close = "0s"

    [upstreams.peer]
    peers = ["PEER"]

    [upstreams.gone]
    peers = ["{refusing}"]

    [upstreams.secret]
    peers = ["PEER"]

    [[routes]]
    plugins = ["talker"]
"#;

/// A server that has each connection served so.
fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, serve) = (listener.local_addr().unwrap(), Arc::new(serve));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn gateway(peer: SocketAddr, config: &str) -> Proxy {
    Proxy::with_config(&config.replace("PEER", &peer.to_string())).start()
}

fn done(proxy: &Proxy, headers: &[(&str, &str)]) -> (u16, String) {
    let reply = proxy.get_with("/", headers);
    (reply.status.as_u16(), reply.text())
}

/// Says the line that it was told, then much, and ends.
fn answers(mut stream: TcpStream) {
    let mut line = String::new();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let _ended = reader.read_line(&mut line);
    let _ended = stream.write_all(line.as_bytes());
    let _ended = stream.write_all(&vec![b'x'; 300_000]);
}

#[test]
fn a_plugin_speaks_with_a_peer_that_it_is_granted_until_one_of_them_ends() {
    let proxy = gateway(server(answers), CONFIG);
    let talk = |to: &str| {
        done(
            &proxy,
            &[("x-to", to), ("x-do", "talk"), ("x-data", "hello")],
        )
    };
    let (status, said) = talk("peer");
    assert_eq!(status, 200, "{said}");
    assert!(said.starts_with("300006 hello\nxxx"), "{said}");
    let (status, said) = talk("secret");
    assert_eq!(
        (status, said.as_str()),
        (502, "tcp::connect(\"secret\"): not granted")
    );
    let (status, said) = talk("gone");
    assert_eq!(status, 502);
    assert!(said.contains("Connection refused"), "{said}");
}

/// A server that says nothing and tells when a connection comes, and what it had said when it ended.
fn silent() -> (SocketAddr, Receiver<()>, Receiver<Vec<u8>>) {
    let ((came, comes), (ended, ends)) = (channel(), channel());
    let (came, ended) = (Mutex::new(came), Mutex::new(ended));
    let address = server(move |mut stream| {
        let _nobody_asks = came.lock().unwrap().send(());
        let mut read = Vec::new();
        let _ended = stream.read_to_end(&mut read);
        let _nobody_asks = ended.lock().unwrap().send(read);
    });
    (address, comes, ends)
}

#[test]
fn connections_close_with_their_request_and_waits_have_an_end() {
    let (peer, comes, ends) = silent();
    let proxy = gateway(peer, CONFIG);
    let next_end = || ends.recv_timeout(Duration::from_secs(10)).unwrap();
    let left = done(
        &proxy,
        &[("x-to", "peer"), ("x-do", "leave"), ("x-data", "x")],
    );
    assert_eq!(left, (200, "left".to_owned()));
    assert_eq!(next_end(), b"x\n");
    let waited = done(
        &proxy,
        &[("x-to", "peer"), ("x-do", "wait"), ("x-ms", "50")],
    );
    assert_eq!(
        waited,
        (502, "tcp read: nothing to read in 50ms".to_owned())
    );
    assert_eq!(next_end(), b"");
    // A client that leaves ends what its request waits for.
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-To: peer\r\nX-Do: wait\r\nX-Ms: 60000\r\n\r\n");
    (0..3).for_each(|_| comes.recv_timeout(Duration::from_secs(10)).unwrap());
    drop(client);
    assert_eq!(next_end(), b"");
    // Connections at a time, and in all.
    let many = done(&proxy, &[("x-to", "peer"), ("x-do", "many")]);
    assert_eq!(many, (200, "16 tcp::connect(\"peer\"): full".to_owned()));
    (0..16).for_each(|_| drop(next_end()));
    let few = CONFIG.replace("grants =", "limits = { calls = 3 }\ngrants =");
    let proxy = gateway(peer, &few);
    let (status, said) = done(&proxy, &[("x-to", "peer"), ("x-do", "many")]);
    assert_eq!(status, 200);
    assert!(
        said.starts_with("3 tcp::connect(\"peer\"): limit reached"),
        "{said}"
    );
}

#[test]
fn what_a_hostile_module_asks_of_a_connection_is_refused_or_traps() {
    let (peer, _comes, _ends) = silent();
    let manifest = module::manifest(1, r#"["content"]"#);
    let calls = [
        (
            "(call $read (i32.const 0) (i32.const 0) (i32.const 10) (i32.const 10))",
            "-2",
        ),
        (
            "(call $write (i32.const -1) (i32.const 0) (i32.const 10) (i32.const 10))",
            "-2",
        ),
        ("(call $close (i32.const 99))", "-2"),
        (
            "(call $connect (i32.const 0) (i32.const 65536) (i32.const 10))",
            "-5",
        ),
    ];
    for (call, status) in calls {
        assert_eq!(
            hostile(peer, &manifest, call, status),
            StatusCode::NOT_FOUND,
            "{call}"
        );
    }
    for call in [
        "(call $connect (i32.const 65530) (i32.const 10) (i32.const 10))",
        "(call $read (i32.const 0) (i32.const 65530) (i32.const 10) (i32.const 10))",
        "(call $write (i32.const 0) (i32.const -1) (i32.const 10) (i32.const 10))",
    ] {
        let found = hostile(peer, &manifest, call, "0");
        assert_eq!(found, StatusCode::INTERNAL_SERVER_ERROR, "{call}");
    }
}

/// Status of the response where the call returns what is expected: 404, since the route has no other content.
fn hostile(peer: SocketAddr, manifest: &str, call: &str, expected: &str) -> StatusCode {
    let fields = format!(
        r#"(import "castling" "tcp_connect" (func $connect (param i32 i32 i32) (result i32)))
        (import "castling" "tcp_read" (func $read (param i32 i32 i32 i32) (result i32)))
        (import "castling" "tcp_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "castling" "tcp_close" (func $close (param i32) (result i32)))
        (func (export "castling_hook_content") (param i32 i32 i32) (result i32)
            (if (i32.ne {call} (i32.const {expected})) (then unreachable))
            i32.const 0)"#
    );
    let config = CONFIG
        .replace("{guests}/talker.wasm", "{dir}/hostile.wasm")
        .replace("PEER", &peer.to_string());
    let proxy = Proxy::with_config(&config)
        .file("hostile.wasm", module::plugin(manifest, &fields))
        .start();
    proxy.get("/").status
}

/// Redis, as far as INCR and EXPIRE.
fn scripted_redis() -> SocketAddr {
    let counts = Mutex::new(BTreeMap::<String, i64>::new());
    server(move |mut stream| {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while let Some(Ok(count)) = lines.next() {
            let count: usize = count.trim_start_matches('*').parse().unwrap();
            let words: Vec<_> = (0..count)
                .map(|_| {
                    let _length = lines.next();
                    lines.next().unwrap().unwrap()
                })
                .collect();
            let answer = match words[0].as_str() {
                "INCR" => {
                    let mut counts = counts.lock().unwrap();
                    let counted = counts.entry(words[1].clone()).or_default();
                    *counted += 1;
                    *counted
                }
                _ => 1,
            };
            let _ended = stream.write_all(format!(":{answer}\r\n").as_bytes());
        }
    })
}

struct Redis(Child);

impl Drop for Redis {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// A real Redis where one is installed, on a free port.
fn real_redis() -> Option<(Redis, SocketAddr)> {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let port = address.port().to_string();
    let mut command = Command::new("redis-server");
    command.args([
        "--port",
        &port,
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
    ]);
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let redis = Redis(child);
    until("Redis listens", || TcpStream::connect(address).is_ok());
    Some((redis, address))
}

#[test]
fn the_example_counts_in_redis() {
    let example = castling_tests::workspace_root().join("examples/redis-limit/castling.toml");
    let config = std::fs::read_to_string(example).unwrap();
    let config = config
        .replace("127.0.0.1:8080", "{listen}")
        .replace("127.0.0.1:9001", "{listen_origin}")
        .replace("../../dist/plugins", "{plugins}");
    let counts = |redis: SocketAddr| {
        let config = config.replace("127.0.0.1:6379", &redis.to_string());
        let proxies = [0, 1].map(|_| Proxy::with_config(&config).start());
        // Both gateways count the same client.
        let status = |request: usize| proxies[request % 2].get("/").status.as_u16();
        let all: Vec<_> = (0..12).map(status).collect();
        assert_eq!(all, [&[200; 10][..], &[429; 2]].concat());
    };
    counts(scripted_redis());
    if let Some((_redis, address)) = real_redis() {
        counts(address);
    }
    // Without Redis, requests pass.
    let refusing = config.replace("127.0.0.1:6379", "{refusing}");
    assert_eq!(Proxy::with_config(&refusing).start().get("/").status, 200);
}
