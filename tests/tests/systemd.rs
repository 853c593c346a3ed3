//! Notices to systemd (sd_notify(3)), and the sockets that it hands to the gateway (sd_listen_fds(3)).

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

use castling_tests::process::Process;
use castling_tests::{DEADLINE, Proxy, Setup, origin, until};
use rustix::process::Signal;

const CONFIG: &str = r#"
    [workers]
    count = 2

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    upstream = "app"
"#;

/// Stands where systemd listens.
struct Systemd(UnixDatagram);

impl Systemd {
    fn beside(setup: &Setup) -> Self {
        let socket = UnixDatagram::bind(setup.dir().join("notify")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(socket)
    }

    /// The next message but those for the watchdog.
    #[track_caller]
    fn hears(&self) -> String {
        loop {
            let message = self.hears_any();
            if message != "WATCHDOG=1\n" {
                return message;
            }
        }
    }

    #[track_caller]
    fn hears_any(&self) -> String {
        let mut message = vec![0; 4096];
        let length = self.0.recv(&mut message).expect("a message in time");
        message.truncate(length);
        String::from_utf8(message).unwrap()
    }
}

fn setup(config: &str) -> Setup {
    Proxy::with_config(config).origin("app", origin::text("hello"))
}

fn notified(config: &str) -> (Setup, Systemd) {
    let setup = setup(config);
    let systemd = Systemd::beside(&setup);
    (setup.environment("NOTIFY_SOCKET", "{dir}/notify"), systemd)
}

#[test]
fn systemd_hears_of_start_reload_and_stop() {
    let (setup, systemd) = notified(CONFIG);
    let mut proxy = setup.start();
    assert_eq!(
        systemd.hears(),
        "READY=1\nSTATUS=generation 1 serves, workers: 2\n"
    );

    proxy
        .reload_with(&CONFIG.replace("count = 2", "count = 1"))
        .expect_success();
    let begins = systemd.hears();
    let since_boot = begins
        .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
        .and_then(|rest| rest.trim().parse::<u64>().ok());
    assert!(since_boot.is_some(), "{begins}");
    assert_eq!(
        systemd.hears(),
        "READY=1\nSTATUS=generation 2 serves, workers: 1\n"
    );

    proxy
        .reload_with(&CONFIG.replace("count = 2", "count = 0"))
        .expect_refusal();
    assert!(systemd.hears().starts_with("RELOADING=1\n"));
    assert_eq!(
        systemd.hears(),
        "READY=1\nSTATUS=generation 2 serves, workers: 1; the last reload was refused\n"
    );

    // Variables for the master is not in its workers' environment.
    for worker in proxy.workers() {
        let environment = fs::read(format!("/proc/{}/environ", worker.0)).unwrap();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        assert!(!environment.contains("NOTIFY_SOCKET"), "{environment}");
    }
    proxy.master().signal(Signal::TERM);
    assert_eq!(proxy.until_ended(), Some(0));
    assert_eq!(
        systemd.hears(),
        "STOPPING=1\nSTATUS=finishes what is under way\n"
    );
}

#[test]
fn an_upgrade_names_the_new_main_process_once_it_serves() {
    let (setup, systemd) = notified(CONFIG);
    let mut proxy = setup.start();
    systemd.hears();
    proxy.upgrade(&["--binary", "/bin/false"]).expect_refusal();
    for generation in 2..4 {
        proxy.upgrade(&[]).expect_success();
        // The old master is the main process until systemd has read this, so it is the one to say it.
        assert_eq!(systemd.hears(), format!("MAINPID={}\n", proxy.master().0));
        assert_eq!(
            systemd.hears(),
            format!("READY=1\nSTATUS=generation {generation} serves, workers: 2\n")
        );
    }
    proxy.reload().expect_success();
    assert!(systemd.hears().starts_with("RELOADING=1\n"));
    assert!(systemd.hears().starts_with("READY=1\n"));
    proxy.command("stop", &[]).expect_success();
    assert!(systemd.hears().starts_with("STOPPING=1\n"));
}

#[test]
fn the_watchdog_hears_the_master_that_is_watched() {
    let (setup, systemd) = notified(CONFIG);
    let mut proxy = setup
        .environment("WATCHDOG_USEC", "400000")
        .environment("WATCHDOG_PID", "$$")
        .start();
    let barks = |systemd: &Systemd| {
        for _ in 0..2 {
            while systemd.hears_any() != "WATCHDOG=1\n" {}
        }
    };
    barks(&systemd);
    let old = proxy.master();
    proxy.upgrade(&[]).expect_success();
    until("the old master's end", || !old.is_alive());
    systemd.0.set_nonblocking(true).unwrap();
    let mut message = [0; 4096];
    while systemd.0.recv(&mut message).is_ok() {}
    systemd.0.set_nonblocking(false).unwrap();
    barks(&systemd);
    // A master that stands still does not pretend.
    let master = proxy.master();
    master.signal(Signal::STOP);
    until("it stands still", || is_stopped(master));
    systemd
        .0
        .set_read_timeout(Some(Duration::from_millis(1500)))
        .unwrap();
    let silent = loop {
        if let Err(error) = systemd.0.recv(&mut message) {
            break error.kind();
        }
    };
    master.signal(Signal::CONT);
    assert_eq!(silent, std::io::ErrorKind::WouldBlock);
}

fn is_stopped(process: Process) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", process.0)).unwrap();
    status.contains("State:\tT")
}

const ACTIVATED: &str = r#"
    [workers]
    count = 2

    [listeners.web]
    bind = "{listen}"

    [listeners.local]
    bind = "unix:{dir}/web.sock"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    upstream = "app"
"#;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn answer(mut connection: impl Read) -> String {
    let mut text = String::new();
    connection.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn sockets_from_systemd_are_listened_on_and_outlive_the_gateway() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobodys = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, nobodys_address) = (tcp.local_addr().unwrap(), nobodys.local_addr().unwrap());
    let setup = setup(ACTIVATED);
    let path = setup.dir().join("web.sock");
    let unix = UnixListener::bind(&path).unwrap();
    // The test holds them, too, as systemd does.
    let held = (
        tcp.try_clone().unwrap(),
        unix.try_clone().unwrap(),
        nobodys.try_clone().unwrap(),
    );
    let datagrams = UnixDatagram::unbound().unwrap();

    // A client that connects before the gateway is there waits for it.
    let mut early = TcpStream::connect(address).unwrap();
    early.write_all(REQUEST).unwrap();
    let mut proxy = setup
        .activated_listener("listen", tcp)
        .activated("local", unix)
        .activated("nobodys", nobodys)
        .activated("datagrams", datagrams)
        .start();
    assert!(answer(early).ends_with("\r\n\r\nhello"));
    let by_path = |path| {
        let mut connection = UnixStream::connect(path).unwrap();
        connection.write_all(REQUEST).unwrap();
        answer(connection)
    };
    assert!(by_path(&path).ends_with("\r\n\r\nhello"));
    let log = proxy.log();
    for expected in [
        format!("no listener has the address of a socket from systemd: closed here name=\"nobodys\" address={nobodys_address}"),
        format!("listens on a socket from systemd name=\"listen\" address={address}"),
        format!("listens on a socket from systemd name=\"local\" address=unix:{}", path.display()),
        "a socket from systemd is of no use: closed here name=\"datagrams\" reason=\"it is no stream socket\"".to_owned(),
    ] {
        assert!(log.contains(&expected), "{expected}\n{log}");
    }
    for worker in proxy.workers() {
        let environment = fs::read(format!("/proc/{}/environ", worker.0)).unwrap();
        assert!(!String::from_utf8_lossy(&environment).contains("LISTEN_"));
    }

    // Over reload and upgrade they stay.
    proxy.reload().expect_success();
    assert!(by_path(&path).ends_with("hello"));
    proxy.upgrade(&[]).expect_success();
    let old = proxy.masters()[0];
    until("the old master's end", || !old.is_alive());
    assert!(by_path(&path).ends_with("hello"));
    assert_eq!(proxy.get("/").text(), "hello");
    assert_eq!(proxy.error_lines(), [""; 0]);

    // After a stop they take connections still, for the next start.
    proxy.command("stop", &[]).expect_success();
    assert_eq!(proxy.until_ended(), Some(0));
    let mut early = UnixStream::connect(&path).unwrap();
    early.write_all(REQUEST).unwrap();
    proxy.start_again();
    assert!(answer(early).ends_with("\r\n\r\nhello"));
    assert_eq!(proxy.get("/").text(), "hello");
    drop(held);
}

#[test]
fn sockets_for_another_process_are_let_be() {
    let proxy = setup(CONFIG)
        .environment("LISTEN_PID", "1")
        .environment("LISTEN_FDS", "1")
        .start();
    assert_eq!(proxy.get("/").text(), "hello");
    assert!(!proxy.log().contains("systemd"), "{}", proxy.log());
}
