use std::path::Path;
use std::rc::Rc;

use http::header::{COOKIE, SET_COOKIE};
use tempfile::TempDir;

use super::super::tests::peers;
use super::*;
use crate::exchange::Stage;
use crate::zone::prepare_kv;

/// Sessions of two peers, and the folder of their zone.
struct Fixture {
    sessions: LearntSessions,
    set: Rc<PeerSet>,
    folder: TempDir,
}

fn config(learn: &str, timeout: Duration) -> config::StickyLearn {
    config::StickyLearn {
        learn: vec![learn.to_owned()],
        lookup: vec!["$cookie_session".to_owned(), "$arg_session".to_owned()],
        zone: "sessions".to_owned(),
        timeout,
    }
}

fn open(folder: &Path) -> SessionStore {
    let zone = KvZone::open(folder, "sessions", KvZone::MIN_BYTES).expect("a zone");
    SessionStore {
        zone: Arc::new(zone),
        metrics: SessionMetrics::default(),
    }
}

fn sessions(learn: &str, timeout: Duration) -> Fixture {
    let folder = tempfile::tempdir().expect("folder");
    let zone = folder.path().join("zone");
    prepare_kv(&zone, "sessions", KvZone::MIN_BYTES).expect("prepared");
    let set = PeerSet::new(peers(&[1, 1]));
    let sessions = LearntSessions::new(&config(learn, timeout), "app", open(&zone));
    let sessions = sessions.expect("good texts");
    sessions.know(&set);
    Fixture {
        sessions,
        set,
        folder,
    }
}

impl Fixture {
    /// A request with this cookie.
    fn request(&self, cookie: &str) -> Box<Exchange> {
        let mut exchange = Exchange::idle();
        exchange.enter(Stage::Request);
        let field = format!("session={cookie}");
        let headers = &mut exchange.request_mut().headers;
        headers.add(&COOKIE, field.as_bytes());
        exchange
    }

    /// A request with this cookie, answered by this peer with that one. Returns where it was bound to.
    fn visit(&self, cookie: Option<&str>, by: usize, sets: Option<&str>) -> Option<usize> {
        let mut exchange = self.request(cookie.unwrap_or_default());
        let bound = self.sessions.place(&mut exchange);
        if let Some(sets) = sets {
            let field = format!("session={sets}; Path=/");
            let headers = &mut exchange.reply_mut().headers;
            headers.add(&SET_COOKIE, field.as_bytes());
        }
        self.sessions.bind(&self.set.as_slice()[by], &exchange);
        bound
    }

    /// Bytes that the zone has for a session.
    fn entry(&self, name: &str) -> Option<Vec<u8>> {
        let mut exchange = self.request(name);
        self.sessions.place(&mut exchange);
        let (_, value) = exchange.context().session.known()?;
        Some(value.to_vec())
    }
}

const LONG: Duration = Duration::from_secs(3600);

#[test]
fn a_session_is_its_peers_from_the_response_that_names_it() {
    let it = sessions("$upstream_cookie_session", LONG);
    assert_eq!(it.visit(None, 1, Some("s1")), None);
    assert_eq!(it.visit(Some("s1"), 1, None), Some(1));
    assert_eq!(it.visit(Some("s2"), 0, None), None);
    assert_eq!(it.entry("s2"), None, "nobody has confirmed it");
    // A name that a response repeats is written once.
    let written = it.entry("s1");
    it.visit(Some("s1"), 1, Some("s1"));
    assert_eq!(it.entry("s1"), written);
    // Another name, such as after a login, is the same peer's.
    it.visit(Some("s1"), 1, Some("s3"));
    assert_eq!(it.visit(Some("s3"), 1, None), Some(1));
}

#[test]
fn a_session_moves_to_the_peer_that_answers() {
    let it = sessions("$upstream_cookie_session", LONG);
    it.visit(None, 0, Some("s"));
    assert_eq!(it.visit(Some("s"), 1, None), Some(0));
    assert_eq!(it.visit(Some("s"), 1, None), Some(1));
    // A session whose peer leaves is known all the same, and goes on where it is answered.
    let left = PeerSet::new([Rc::clone(&it.set.as_slice()[0])]);
    it.sessions.know(&left);
    assert_eq!(it.visit(Some("s"), 0, None), None);
    assert_eq!(it.visit(Some("s"), 0, None), Some(0));
}

#[test]
fn what_another_worker_has_said_meanwhile_counts() {
    let it = sessions("$upstream_cookie_session", LONG);
    it.visit(None, 0, Some("s"));
    let mut slow = it.request("s");
    assert_eq!(it.sessions.place(&mut slow), Some(0));
    it.visit(Some("s"), 1, None);
    it.visit(Some("s"), 0, None);
    let moved_back = it.entry("s");
    it.sessions.bind(&it.set.as_slice()[1], &slow);
    assert_eq!(it.entry("s"), moved_back);
}

#[test]
fn use_prolongs_a_session_and_is_seldom_written() {
    let it = sessions("$upstream_cookie_session", LONG);
    let entry = |age: Duration| {
        let age = u64::try_from(age.as_nanos()).expect("some centuries");
        let written_ns = now_ns().saturating_sub(age);
        let label = "";
        it.sessions.is_to_be_renewed(Entry { written_ns, label })
    };
    assert!(!entry(Duration::ZERO));
    assert!(!entry(LONG / 8 - Duration::from_secs(60)));
    assert!(entry(LONG / 8));
    let write = |name: &str, age: Duration| {
        it.visit(None, 0, Some(name));
        let age = u64::try_from(age.as_nanos()).expect("some centuries");
        let written = Entry {
            written_ns: now_ns().saturating_sub(age),
            label: &it.set.as_slice()[0].label,
        };
        let mut exchange = it.request(name);
        it.sessions.place(&mut exchange);
        let (digest, value) = exchange.context().session.known().expect("an entry");
        let (key, expected) = (Key::session(digest), Expected::Value(value));
        let zone = &it.sessions.store.zone;
        let put = zone.put(&key, &written.to_bytes(), Some(LONG), expected, now_ns());
        assert!(put.expect("room"));
        written.to_bytes()
    };
    let (young, old) = (write("young", LONG / 16), write("old", LONG / 4));
    for name in ["young", "old"] {
        assert_eq!(it.visit(Some(name), 0, None), Some(0));
    }
    assert_eq!(it.entry("young"), Some(young));
    assert!(it.entry("old").is_some_and(|entry| entry != old));
}

#[test]
fn names_are_of_one_upstream_and_of_bounded_length() {
    let it = sessions("$upstream_cookie_session", LONG);
    let long = "x".repeat(MAX_NAME_BYTES);
    it.visit(None, 0, Some(&long));
    assert_eq!(it.visit(Some(&long), 0, None), Some(0));
    let longer = format!("{long}x");
    it.visit(None, 0, Some(&longer));
    assert_eq!(it.entry(&longer), None);
    for empty in ["", "\"\""] {
        it.visit(None, 0, Some(empty));
    }
    assert_eq!(it.entry(""), None);
    let folder = it.folder.path().join("zone");
    let learn = config("$upstream_cookie_session", LONG);
    let mut exchange = it.request(&long);
    // A process opens a zone once.
    drop(it.sessions);
    let other = LearntSessions::new(&learn, "other", open(&folder)).expect("good texts");
    other.know(&it.set);
    assert_eq!(other.place(&mut exchange), None);
}

#[test]
fn a_request_may_name_its_session_itself() {
    let it = sessions("$cookie_session", LONG);
    assert_eq!(it.visit(Some("s"), 1, None), None);
    assert_eq!(it.visit(Some("s"), 1, None), Some(1));
}

#[test]
fn a_full_zone_is_counted_and_no_more() {
    let it = sessions("$upstream_cookie_session", LONG);
    let zone = &it.sessions.store.zone;
    let filled = (0_u32..).find(|n| {
        let key = Key::new(&n.to_be_bytes()).expect("a key");
        let put = zone.put(&key, &[0; 10_000], None, Expected::Anything, now_ns());
        put.is_err()
    });
    assert!(filled.is_some_and(|filled| filled > 50));
    for n in 0..5000 {
        it.visit(None, 0, Some(&n.to_string()));
    }
    assert!(it.entry("4999").is_none());
    assert!(
        it.sessions
            .losses
            .borrow_mut()
            .written(clock::now)
            .is_none()
    );
}

#[test]
fn an_entry_is_read_as_it_was_written() {
    let entry = Entry {
        written_ns: 7,
        label: "10.0.0.1:80",
    };
    assert_eq!(Entry::parse(&entry.to_bytes()), Some(entry));
    for other in [
        &b""[..],
        b"\x01",
        b"\x01\0\0\0\0\0\0\0",
        b"\x02\0\0\0\0\0\0\0\0a",
    ] {
        assert_eq!(Entry::parse(other), None);
    }
    assert_eq!(Entry::parse(b"\x01\0\0\0\0\0\0\0\0\xff"), None);
}
