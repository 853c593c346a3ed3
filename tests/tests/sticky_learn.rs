//! Sessions that are learnt from the responses of peers, through the built binary: over workers, reloads, upgrades and deaths.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use castling_tests::origin::Origin;
use castling_tests::{Exposition, Proxy, Reply, Setup, raw_origin, until};

const CONFIG: &str = r#"
    [master]
    control = "{dir}/castling.sock"
    pid_file = "{dir}/castling.pid"
    zone_store = "{dir}/zones"

    [workers]
    count = WORKERS
    drain_timeout = "8s"

    [zones.kept]
    kind = "kv"
    size = "1MiB"

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = [PEERS]
    STICKY

    [[routes]]
    upstream = "app"
"#;

/// A plugin that uses the same zone.
const KEEPER: &str = r#"
    [zones.numbers]
    kind = "counter"
    size = "64KiB"

    [plugins.keeper]
    wasm = "{guests}/keeper.wasm"
    config = { zone = "kept" }
    grants = { zones = ["kept", "numbers"] }

    [[routes]]
    hosts = ["keeper"]
    plugins = ["keeper"]
"#;

const STICKY: &str = r#"sticky = { learn = ["$upstream_cookie_session"], lookup = ["$cookie_session"], zone = "kept" }"#;
const ALL: &str = r#""{a}", "{b}", "{c}""#;

fn config(workers: usize, peers: &str, sticky: &str) -> String {
    let config = CONFIG.replace("WORKERS", &workers.to_string());
    config.replace("PEERS", peers).replace("STICKY", sticky)
}

/// Applications a, b and c, and whether each is dead.
#[derive(Default)]
struct Apps {
    dead: [Arc<AtomicBool>; 3],
}

impl Apps {
    fn setup(&self, config: &str) -> Setup {
        let count = Arc::new(AtomicUsize::new(0));
        let apps = ["a", "b", "c"].into_iter().zip(&self.dead);
        apps.fold(Proxy::with_config(config), |setup, (name, dead)| {
            setup.origin(name, app(name, Arc::clone(dead), Arc::clone(&count)))
        })
    }

    fn dead(&self, name: &str) -> &AtomicBool {
        let place = ["a", "b", "c"].iter().position(|it| *it == name);
        &self.dead[place.expect("one of them")]
    }
}

/// An application that begins a session, by a cookie and by another field, where a request has none, and answers with its name. To
/// `/logout` it sets an empty cookie, to `/fail` it answers 503. While it is dead, its connections end without an answer.
fn app(name: &'static str, is_dead: Arc<AtomicBool>, count: Arc<AtomicUsize>) -> Origin {
    raw_origin::scripted(move |connection, _| {
        loop {
            let head = connection.read_head()?.to_ascii_lowercase();
            if is_dead.load(SeqCst) {
                return Ok(());
            }
            let session = format!("{name}-{}", count.fetch_add(1, SeqCst));
            let mut fields = "Set-Cookie: theme=dark; session=none\r\n".to_owned();
            if head.starts_with("get /logout") {
                fields += "Set-Cookie: session=; Max-Age=0\r\n";
            } else if !head.contains("session") {
                fields += &format!(
                    "Set-Cookie: session={session}; Path=/; HttpOnly\r\nX-Session: {session}\r\n"
                );
            }
            let status = match head.starts_with("get /fail") && name == "a" {
                true => "503 Not Now",
                false => "200 OK",
            };
            let length = name.len();
            connection.send(format!(
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{fields}\r\n{name}"
            ));
        }
    })
}

/// Sessions: the cookie of each, and the peer that answered last.
type Sessions = BTreeMap<String, String>;

/// The session's cookie that a reply sets, as a client sends it back.
fn cookie(reply: &Reply) -> Option<String> {
    let fields = reply.headers.get_all("set-cookie").iter();
    let values = fields.filter_map(|field| field.to_str().ok()?.split(';').next());
    let mut sessions = values.filter(|value| value.starts_with("session="));
    sessions.next_back().map(str::to_owned)
}

/// Begins so many sessions, each on a connection of its own.
fn begin(proxy: &Proxy, count: usize) -> Sessions {
    let begun = (0..count).map(|_| {
        let reply = proxy.get("/");
        assert_eq!(reply.status, 200);
        (cookie(&reply).expect("a session"), reply.text())
    });
    begun.collect()
}

fn again(proxy: &Proxy, cookie: &str) -> Reply {
    proxy.get_with("/", &[("cookie", cookie)])
}

/// A request of each session, on a connection of its own.
fn round(proxy: &Proxy, sessions: &Sessions) -> Sessions {
    let answered = sessions.keys().map(|it| {
        let reply = again(proxy, it);
        assert_eq!((reply.status.as_u16(), cookie(&reply)), (200, None));
        (it.clone(), reply.text())
    });
    answered.collect()
}

fn event(proxy: &Proxy, event: &str) -> f64 {
    let labels = [("upstream", "app"), ("event", event)];
    let text = proxy.command("metrics", &[]).stdout;
    Exposition::parse(&text).sum("castling_upstream_sessions_total", &labels)
}

fn used_bytes(proxy: &Proxy) -> u64 {
    proxy.status()["zones"][0]["used_bytes"].as_u64().unwrap()
}

/// Answer of that plugin.
#[track_caller]
fn keeper(proxy: &Proxy, path: &str, headers: &[(&str, &str)]) -> String {
    let headers = [&[("host", "keeper")], headers].concat();
    let reply = proxy.get_with(path, &headers);
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    reply.text()
}

#[test]
fn sessions_stay_at_their_peers_over_workers_reloads_and_upgrades() {
    let mut proxy = Apps::default().setup(&config(2, ALL, STICKY)).start();
    let sessions = begin(&proxy, 60);
    let peers: Vec<&String> = sessions.values().collect();
    assert!(
        ["a", "b", "c"]
            .iter()
            .all(|name| peers.contains(&&(*name).to_owned()))
    );
    assert_eq!(event(&proxy, "learnt"), 60.0);
    assert_eq!(round(&proxy, &sessions), sessions);
    proxy.reload().expect_success();
    assert_eq!(round(&proxy, &sessions), sessions);
    proxy.upgrade(&[]).expect_success();
    assert_eq!(round(&proxy, &sessions), sessions);
    let workers = proxy.workers();
    workers[0].signal(rustix::process::Signal::KILL);
    until("another worker", || {
        let now = proxy.workers();
        now.len() == 2 && !now.contains(&workers[0])
    });
    assert_eq!(round(&proxy, &sessions), sessions);
    assert_eq!(
        (event(&proxy, "moved"), event(&proxy, "failed")),
        (0.0, 0.0)
    );
    let told = proxy.check().expect_success().stdout;
    assert!(
        told.contains("  sessions learnt by $upstream_cookie_session, looked up by $cookie_session, 600s in zone kept\n"),
        "{told}"
    );
}

#[test]
fn sessions_of_a_peer_that_dies_move_once_and_stay() {
    let apps = Apps::default();
    let mut proxy = apps.setup(&config(2, ALL, STICKY)).start();
    let sessions = begin(&proxy, 30);
    let own = sessions.values().filter(|peer| *peer == "a").count();
    apps.dead("a").store(true, SeqCst);
    let moved = round(&proxy, &sessions);
    for (session, peer) in &sessions {
        match peer.as_str() {
            "a" => assert_ne!(moved[session], "a"),
            _ => assert_eq!(moved[session], *peer),
        }
    }
    assert_eq!(event(&proxy, "moved"), own as f64);
    assert_eq!(round(&proxy, &moved), moved);
    apps.dead("a").store(false, SeqCst);
    assert_eq!(round(&proxy, &moved), moved);
    // Sessions of a peer that leaves the config go on, too, and do not go back when it is there again.
    proxy
        .reload_with(&config(2, r#""{a}", "{c}""#, STICKY))
        .expect_success();
    let left = round(&proxy, &moved);
    assert!(left.values().all(|peer| peer != "b"));
    proxy.reload_with(&config(2, ALL, STICKY)).expect_success();
    assert_eq!(round(&proxy, &left), left);
}

#[test]
fn a_drained_peer_keeps_its_sessions_and_one_that_is_down_does_not() {
    let proxy = Apps::default().setup(&config(2, ALL, STICKY)).start();
    let sessions = begin(&proxy, 30);
    let a = proxy.origin("a").address().to_string();
    let order = |what: &str| {
        drop(
            proxy
                .command("upstream", &["app", what, &a])
                .expect_success(),
        )
    };
    order("drain");
    assert_eq!(round(&proxy, &sessions), sessions);
    assert!(begin(&proxy, 12).values().all(|peer| peer != "a"));
    order("down");
    let moved = round(&proxy, &sessions);
    assert!(moved.values().all(|peer| peer != "a"));
    order("up");
    assert_eq!(round(&proxy, &moved), moved);
}

#[test]
fn made_up_names_write_nothing() {
    let proxy = Apps::default().setup(&config(1, ALL, STICKY)).start();
    let before = used_bytes(&proxy);
    let mut peers = BTreeMap::<String, usize>::new();
    for n in 0..300 {
        let reply = again(&proxy, &format!("session=made-up-{n}"));
        *peers.entry(reply.text()).or_default() += 1;
    }
    assert!(peers.values().all(|count| *count == 100), "{peers:?}");
    // Nor does one that is empty, or that is too long.
    for name in [String::new(), "x".repeat(5000)] {
        again(&proxy, &format!("session={name}"));
    }
    proxy.get_with("/logout", &[("cookie", "session=made-up-0")]);
    assert_eq!(event(&proxy, "learnt"), 0.0);
    assert_eq!(used_bytes(&proxy), before);
}

#[test]
fn a_session_without_requests_expires() {
    let sticky = STICKY.replace(" }", ", timeout = \"1s\" }");
    let proxy = Apps::default().setup(&config(1, ALL, &sticky)).start();
    let before = used_bytes(&proxy);
    let sessions = begin(&proxy, 300);
    assert!(used_bytes(&proxy) > before);
    until("what has expired is removed", || {
        used_bytes(&proxy) == before
    });
    // A name that nobody knows is balanced.
    let session = sessions.keys().next().expect("a session");
    let peers: Vec<String> = (0..3).map(|_| again(&proxy, session).text()).collect();
    assert!(
        ["a", "b", "c"]
            .iter()
            .all(|it| peers.contains(&(*it).to_owned())),
        "{peers:?}"
    );
}

#[test]
fn use_prolongs_a_session() {
    let sticky = STICKY.replace(" }", ", timeout = \"2s\" }");
    let proxy = Apps::default().setup(&config(2, ALL, &sticky)).start();
    let started = Instant::now();
    let sessions = begin(&proxy, 3);
    let mut asked = started;
    while started.elapsed() < Duration::from_secs(5) {
        let begun = Instant::now();
        let now = round(&proxy, &sessions);
        // A machine that has stood still for so long may have let them expire.
        if asked.elapsed() > Duration::from_secs(1) {
            return;
        }
        assert_eq!(now, sessions);
        asked = begun;
    }
}

#[test]
fn a_full_zone_loses_sessions_and_no_request() {
    let config = config(2, ALL, STICKY) + KEEPER;
    let proxy = Apps::default().setup(&config).start();
    let sessions = begin(&proxy, 9);
    // The plugin neither sees the sessions nor reaches them.
    assert_eq!(keeper(&proxy, "/list/", &[]), "");
    for size in ["10000", "100"] {
        let filled = keeper(&proxy, &format!("/fill/x{size}-"), &[("x-size", size)]);
        assert!(filled.ends_with("full"), "{filled}");
    }
    let mut client = proxy.raw();
    until("no session has room", || {
        for _ in 0..50 {
            let reply = client
                .send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                .read_reply();
            assert_eq!(reply.status, 200);
        }
        event(&proxy, "failed") > 0.0
    });
    proxy.until_log_has("sessions are not kept: zone kept: full");
    for _ in 0..100 {
        let reply = client
            .send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .read_reply();
        assert_eq!(reply.status, 200);
    }
    assert_eq!(proxy.log().matches("sessions are not kept").count(), 1);
    // Sessions that were learnt before are known still.
    assert_eq!(round(&proxy, &sessions), sessions);
    for n in 0..20 {
        keeper(&proxy, &format!("/delete/x10000-{n:05}"), &[]);
    }
    let new = begin(&proxy, 9);
    assert_eq!(round(&proxy, &new), new);
}

#[test]
fn names_come_by_other_fields_and_by_the_request_alone() {
    let by_field = STICKY
        .replace("$upstream_cookie_session", "$sent_http_x_session")
        .replace("$cookie_session", "$http_x_session\", \"$arg_session");
    let mut proxy = Apps::default().setup(&config(2, ALL, &by_field)).start();
    for _ in 0..6 {
        let first = proxy.get("/");
        let session = first.header("x-session").expect("a session").to_owned();
        for _ in 0..3 {
            let by_header = proxy.get_with("/", &[("x-session", &session)]);
            let by_query = proxy.get(&format!("/?session={session}"));
            assert_eq!(
                [by_header.text(), by_query.text()],
                [first.text(), first.text()]
            );
        }
    }
    let by_request = STICKY.replace("$upstream_cookie_session", "$cookie_session");
    proxy
        .reload_with(&config(2, ALL, &by_request))
        .expect_success();
    for n in 0..6 {
        let name = format!("session=own-{n}");
        let first = again(&proxy, &name).text();
        assert!((0..3).all(|_| again(&proxy, &name).text() == first));
    }
}

#[test]
fn nothing_is_learnt_from_a_response_that_the_client_does_not_get() {
    let retried = format!("{STICKY}\nretry = {{ on = [\"connect\", \"503\"] }}");
    let apps = Apps::default();
    let mut proxy = apps.setup(&config(1, r#""{a}", "{b}""#, &retried)).start();
    let mut failed = None;
    for _ in 0..4 {
        let reply = proxy.get("/fail");
        assert_eq!(reply.text(), "b");
        failed = cookie(&reply);
    }
    assert_eq!(event(&proxy, "learnt"), 4.0);
    let session = failed.expect("a session of b");
    assert_eq!(again(&proxy, &session).text(), "b");
    // Without another peer, the failure is the client's, with the session that it begins.
    proxy
        .reload_with(&config(1, r#""{a}""#, &retried))
        .expect_success();
    assert_eq!(proxy.get("/fail").status, 503);
    assert_eq!(event(&proxy, "learnt"), 5.0);
    // The gateway's own answers begin none, and forget none.
    apps.dead("a").store(true, SeqCst);
    assert_eq!(again(&proxy, &session).status, 502);
    assert_eq!(event(&proxy, "learnt"), 5.0);
    apps.dead("a").store(false, SeqCst);
    proxy
        .reload_with(&config(1, r#""{a}", "{b}""#, &retried))
        .expect_success();
    assert_eq!(again(&proxy, &session).text(), "b");
}
