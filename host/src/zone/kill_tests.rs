//! Workers that are killed in the middle of their writes, as processes of their own.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::raw::Mapping;
use super::{CounterZone, Expected, Key, KvZone, now_ns, prepare_kv};

/// A process that runs one test of this binary, with a task.
pub(super) struct Writer(Child, Option<BufReader<ChildStdout>>);

impl Writer {
    pub(super) fn start(test: &str, task: &str) -> Self {
        let binary = std::env::current_exe().expect("a path");
        let mut child = Command::new(binary)
            .args(["--exact", test, "--nocapture"])
            .env(TASK, task)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let output = child.stdout.take().map(BufReader::new);
        Self(child, output)
    }

    /// In the process: what it is for. None in the ordinary run of the test.
    pub(super) fn task() -> Option<String> {
        std::env::var(TASK).ok()
    }

    /// In the process: lets the one that has started it go on.
    pub(super) fn ready() {
        println!("\n{READY}");
    }

    pub(super) fn wait_until_ready(&mut self) {
        let output = self.1.as_mut().expect("piped");
        let mut lines = output.lines().map_while(Result::ok);
        assert!(lines.any(|line| line == READY), "it ended before");
    }

    pub(super) fn kill(mut self) {
        let ended = self.0.try_wait().expect("it is ours");
        assert_eq!(ended, None, "it ended by itself");
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it is ours");
    }

    fn wait(&mut self) {
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end {
            if let Some(status) = self.0.try_wait().expect("it is ours") {
                assert!(status.success(), "{status}");
                return;
            }
            sleep(Duration::from_millis(5));
        }
        panic!("it hangs");
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const TASK: &str = "CASTLING_ZONE_TEST_TASK";
const READY: &str = "ready";

const KEYS: u64 = 20;
/// Size at which no set gets nine keys by chance: nothing is evicted.
const QUIET_BYTES: u64 = 4 << 20;
const CROWDED_BYTES: u64 = CounterZone::MIN_BYTES;
const HOUR: Duration = Duration::from_secs(3600);
/// Processes killed by one test.
const KILLS: usize = 40;

/// For each key: how many additions have been begun, and how many have ended.
struct Ledger(Mapping);

impl Ledger {
    fn word(&self, idx: u64) -> &AtomicU64 {
        let words = self.0.table::<AtomicU64>(0, 2 * KEYS as usize);
        &words.expect("fits")[idx as usize]
    }

    fn begun(&self, key: u64) -> &AtomicU64 {
        self.word(key)
    }

    fn ended(&self, key: u64) -> &AtomicU64 {
        self.word(KEYS + key)
    }
}

pub(super) fn inherited(process: &str, fd: &str) -> OwnedFd {
    let path = format!("/proc/{process}/fd/{fd}");
    let file = std::fs::File::options().read(true).write(true).open(path);
    file.expect("the parent lives").into()
}

fn random() -> impl FnMut() -> u64 {
    let mut state = now_ns() | 1;
    move || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// Starts writers, two at a time, and kills each a random while after it has begun.
fn kill_many(test: &str, task: &str) {
    let mut random = random();
    for _ in 0..KILLS / 2 {
        let mut pair = [Writer::start(test, task), Writer::start(test, task)];
        pair.iter_mut().for_each(Writer::wait_until_ready);
        for writer in pair {
            sleep(Duration::from_micros(random() % 5000));
            writer.kill();
        }
    }
}

#[test]
fn counter_writer() {
    let Some(task) = Writer::task() else { return };
    let words: Vec<&str> = task.split(' ').collect();
    let [process, quiet, crowded, ledger, rounds] = words[..] else {
        panic!("bad task")
    };
    let quiet = CounterZone::open(inherited(process, quiet), "quiet", QUIET_BYTES);
    let crowded = CounterZone::open(inherited(process, crowded), "crowded", CROWDED_BYTES);
    let (quiet, crowded) = (quiet.expect("quiet"), crowded.expect("crowded"));
    let ledger = Ledger(Mapping::open(inherited(process, ledger)).expect("ledger"));
    let mut random = random();
    Writer::ready();
    for _ in 0..rounds.parse::<u64>().expect("a number") {
        let key = random() % KEYS;
        ledger.begun(key).fetch_add(1, SeqCst);
        quiet.add(&key.to_be_bytes(), 1, HOUR, 0);
        ledger.ended(key).fetch_add(1, SeqCst);
        // Six times as many keys as slots: nearly each one takes the place of another.
        let key = random() % 16_000;
        crowded.add(
            &key.to_be_bytes(),
            1,
            Duration::from_millis(1 + random() % 20),
            now_ns(),
        );
    }
}

#[test]
fn counters_survive_writers_that_are_killed() {
    let quiet = CounterZone::create("quiet", QUIET_BYTES, 0).expect("memory");
    let crowded = CounterZone::create("crowded", CROWDED_BYTES, 0).expect("memory");
    let ledger = Ledger(Mapping::create("ledger", 4096).expect("memory"));
    for key in 0..500_u64 {
        quiet.add(
            &[&key.to_be_bytes()[..], b"untouched"].concat(),
            key + 1,
            HOUR,
            0,
        );
    }
    let fds = [
        quiet.descriptor(),
        crowded.descriptor(),
        ledger.0.descriptor(),
    ];
    let [a, b, c] = fds.map(|fd| fd.as_raw_fd());
    let task = |rounds: u64| format!("{} {a} {b} {c} {rounds}", std::process::id());
    let test = "zone::kill_tests::counter_writer";
    kill_many(test, &task(u64::MAX));
    // And what is left works: this one ends.
    let mut last = Writer::start(test, &task(100_000));
    last.wait_until_ready();
    last.wait();

    let mut added = 0;
    for key in 0..KEYS {
        let count = quiet.get(&key.to_be_bytes(), 0).expect("there").value;
        let (begun, ended) = (
            ledger.begun(key).load(SeqCst),
            ledger.ended(key).load(SeqCst),
        );
        assert!(
            (ended..=begun).contains(&count),
            "{ended} <= {count} <= {begun}"
        );
        added += ended;
    }
    assert!(added > 100_000, "{added}");
    for key in 0..500_u64 {
        let reading = quiet.get(&[&key.to_be_bytes()[..], b"untouched"].concat(), 0);
        assert_eq!(reading.expect("there").value, key + 1);
    }
    let stats = quiet.stats(0);
    assert_eq!(
        (stats.live, stats.evicted, stats.contended),
        (500 + KEYS as usize, 0, 0)
    );
    let stats = crowded.stats(now_ns());
    assert!(stats.evicted > 0, "{stats:?}");
    let later = now_ns() + 60_000_000_000;
    assert_eq!(crowded.stats(later).live, 0, "no slot is lost for ever");
    for key in 0..16_000_u64 {
        assert_eq!(crowded.add(&key.to_be_bytes(), 3, HOUR, later), 3);
        assert_eq!(crowded.add(&key.to_be_bytes(), 3, HOUR, later), 6);
    }
}

const KV_BYTES: u64 = 4 << 20;

#[test]
fn kv_writer() {
    let Some(task) = Writer::task() else { return };
    let words: Vec<&str> = task.split(' ').collect();
    let [process, ledger, rounds, folder] = words[..] else {
        panic!("bad task")
    };
    let ledger = Ledger(Mapping::open(inherited(process, ledger)).expect("ledger"));
    let zone = KvZone::open(folder.as_ref(), "kv", KV_BYTES).expect("open");
    let mut random = random();
    Writer::ready();
    for _ in 0..rounds.parse::<u64>().expect("a number") {
        let key = random() % KEYS;
        ledger.begun(key).fetch_add(1, SeqCst);
        while !count_one_more(&zone, key) {}
        ledger.ended(key).fetch_add(1, SeqCst);

        let blob = random() % 50;
        let size = random() % 20_000;
        let ttl = blob
            .is_multiple_of(2)
            .then(|| Duration::from_micros(random() % 5000));
        let key = [b"blob", &blob.to_be_bytes()[..]].concat();
        put(&zone, &key, &vec![size as u8; size as usize], ttl);
        check_blobs(&zone);
        replace_group(&zone, size as u8, ttl);
    }
}

/// Stores one value under several keys, whose values are always one.
fn replace_group(zone: &KvZone, byte: u8, ttl: Option<Duration>) {
    let keys = || (0..5_u8).map(|nth| Key::new(&[b"group", &[nth][..]].concat()).expect("short"));
    let keys_there: Vec<Key> = keys().collect();
    let is_one = |values: &[Option<&[u8]>]| values.iter().all(|value| *value == values[0]);
    assert!(
        zone.read_all(&keys_there, now_ns(), is_one)
            .expect("readable")
    );
    let value = vec![byte; usize::from(byte)];
    let entries: Vec<_> = keys().map(|key| (key, &value[..])).collect();
    zone.put_all(&entries, ttl, now_ns()).expect("room");
}

fn put(zone: &KvZone, key: &[u8], value: &[u8], ttl: Option<Duration>) {
    let key = Key::new(key).expect("short");
    zone.put(&key, value, ttl, Expected::Anything, now_ns())
        .expect("room");
}

fn value(zone: &KvZone, key: &[u8]) -> Option<Vec<u8>> {
    let key = Key::new(key).expect("short");
    zone.read(&key, now_ns(), <[u8]>::to_vec).expect("readable")
}

fn count_one_more(zone: &KvZone, key: u64) -> bool {
    let is_odd = !key.is_multiple_of(2);
    let key = key.to_be_bytes();
    if is_odd {
        let key = Key::new(&key).expect("short");
        zone.increment(&key, 1, None, now_ns()).expect("room");
        return true;
    }
    let old = value(zone, &key);
    let expected = old.as_deref().map_or(Expected::Nothing, Expected::Value);
    let count = old.as_deref().map_or(0, number);
    let new = (count + 1).to_le_bytes();
    let key = Key::new(&key).expect("short");
    zone.put(&key, &new, None, expected, now_ns())
        .expect("room")
}

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value.try_into().expect("eight bytes"))
}

/// Each is of one byte, which belongs to its length: none is half written.
fn check_blobs(zone: &KvZone) {
    for key in zone
        .list(b"blob", None, 5, now_ns())
        .expect("readable")
        .keys
    {
        if let Some(value) = value(zone, &key) {
            assert!(value.iter().all(|byte| *byte == value.len() as u8));
        }
    }
}

#[test]
fn kv_survives_writers_that_are_killed() {
    let parent = tempfile::tempdir().expect("folder");
    let folder = parent.path().join("kv");
    prepare_kv(&folder, "kv", KV_BYTES).expect("prepared");
    let zone = KvZone::open(&folder, "kv", KV_BYTES).expect("open");
    let ledger = Ledger(Mapping::create("ledger", 4096).expect("memory"));
    for key in 0..500_u64 {
        let name = [b"untouched", &key.to_be_bytes()[..]].concat();
        put(&zone, &name, &key.to_le_bytes(), None);
    }
    let (process, fd) = (std::process::id(), ledger.0.descriptor().as_raw_fd());
    let task = |rounds: u64| format!("{process} {fd} {rounds} {}", folder.display());
    let test = "zone::kill_tests::kv_writer";
    kill_many(test, &task(u64::MAX));
    let mut last = Writer::start(test, &task(500));
    last.wait_until_ready();
    last.wait();

    let mut added = 0;
    for key in 0..KEYS {
        let count = number(&value(&zone, &key.to_be_bytes()).expect("there"));
        let (begun, ended) = (
            ledger.begun(key).load(SeqCst),
            ledger.ended(key).load(SeqCst),
        );
        assert!(
            (ended..=begun).contains(&count),
            "{ended} <= {count} <= {begun}"
        );
        added += ended;
    }
    assert!(added > 500, "{added}");
    for key in 0..500_u64 {
        let name = [b"untouched", &key.to_be_bytes()[..]].concat();
        assert_eq!(number(&value(&zone, &name).expect("there")), key);
    }
    check_blobs(&zone);
    let all = zone.list(b"", None, 1000, 0).expect("readable");
    for key in all.keys {
        let key = Key::new(&key).expect("short");
        zone.delete(&key, Expected::Anything, 0).expect("room");
    }
    while zone.sweep(u64::MAX - 1, 100).expect("room") > 0 {}
    let used = zone.used_bytes().expect("readable");
    assert!(used <= 16 << 10, "{used}: nothing is left behind");
}
