use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::zone::kill_tests::Writer;

const SIZE: u64 = KvZone::MIN_BYTES;
const TTL: Duration = Duration::from_nanos(10);

fn folder() -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().expect("folder");
    let folder = parent.path().join("zone");
    prepare_kv(&folder, "sessions", SIZE).expect("prepared");
    (parent, folder)
}

pub(super) fn zone() -> (TempDir, KvZone) {
    let (parent, folder) = folder();
    (
        parent,
        KvZone::open(&folder, "sessions", SIZE).expect("open"),
    )
}

pub(super) fn key(bytes: impl AsRef<[u8]>) -> Key {
    Key::new(bytes.as_ref()).expect("a good key")
}

pub(super) fn value(zone: &KvZone, name: &[u8], now_ns: u64) -> Option<Vec<u8>> {
    let value = zone.read(&key(name), now_ns, <[u8]>::to_vec);
    value.expect("readable")
}

pub(super) fn put(
    zone: &KvZone,
    name: impl AsRef<[u8]>,
    value: &[u8],
    ttl: Option<Duration>,
    now_ns: u64,
) -> Result<bool, ZoneError> {
    zone.put(&key(name), value, ttl, Expected::Anything, now_ns)
}

fn delete(zone: &KvZone, name: impl AsRef<[u8]>, now_ns: u64) -> bool {
    let deleted = zone.delete(&key(name), Expected::Anything, now_ns);
    deleted.expect("no error")
}

#[test]
fn an_entry_is_there_until_it_expires() {
    let (_folder, zone) = zone();
    put(&zone, b"a", b"1", Some(TTL), 100).expect("room");
    put(&zone, b"b", b"2", None, 100).expect("room");
    assert_eq!(value(&zone, b"a", 109).as_deref(), Some(&b"1"[..]));
    assert_eq!(value(&zone, b"a", 110), None);
    assert!(!delete(&zone, b"a", 110));
    assert_eq!(value(&zone, b"b", u64::MAX - 1).as_deref(), Some(&b"2"[..]));
    assert!(delete(&zone, b"b", 110));
    assert!(!delete(&zone, b"b", 110));
}

#[test]
fn sessions_are_beside_the_keys_of_plugins_and_expire_with_them() {
    let (_folder, zone) = zone();
    let digest = *b"sixteen bytes it";
    let session = Key::session(&digest);
    let read = |key: &Key, now_ns| {
        let value = zone.read(key, now_ns, <[u8]>::to_vec);
        value.expect("readable")
    };
    put(&zone, digest, b"a plugin's", Some(2 * TTL), 100).expect("room");
    let stored = zone.put(&session, b"peer", Some(TTL), Expected::Nothing, 100);
    assert!(stored.expect("room"));
    assert_eq!(read(&session, 109).as_deref(), Some(&b"peer"[..]));
    let listing = zone.list(b"", None, 10, 109).expect("no error");
    assert_eq!(listing.keys, [digest]);
    assert_eq!(zone.sweep(109, 10).expect("no error"), 0);
    assert_eq!(zone.sweep(110, 10).expect("no error"), 1);
    assert_eq!(read(&session, 105), None, "it is removed");
    assert_eq!(
        value(&zone, &digest, 119).as_deref(),
        Some(&b"a plugin's"[..])
    );
    assert_eq!(zone.sweep(120, 10).expect("no error"), 1);
    // A session that was written again does not go with its old time.
    for now_ns in [200, 205] {
        let stored = zone.put(&session, b"peer", Some(TTL), Expected::Anything, now_ns);
        assert!(stored.expect("room"));
    }
    assert_eq!(zone.sweep(214, 10).expect("no error"), 0);
    assert_eq!(zone.sweep(215, 10).expect("no error"), 1);
}

#[test]
fn a_change_is_made_where_what_is_there_is_as_expected() {
    let (_folder, zone) = zone();
    let k = key(b"k");
    let put = |value: &[u8], expected, now_ns| {
        let stored = zone.put(&k, value, Some(TTL), expected, now_ns);
        stored.expect("room")
    };
    let delete = |expected, now_ns| zone.delete(&k, expected, now_ns).expect("no error");
    assert!(!put(b"1", Expected::Value(b""), 0));
    assert!(put(b"1", Expected::Nothing, 0));
    assert!(!put(b"2", Expected::Nothing, 0));
    assert!(!put(b"2", Expected::Value(b"2"), 0));
    assert!(put(b"2", Expected::Value(b"1"), 0));
    assert!(!delete(Expected::Value(b"1"), 0));
    assert!(!delete(Expected::Nothing, 0));
    assert_eq!(value(&zone, b"k", 0).as_deref(), Some(&b"2"[..]));
    // Expired values count as nothing.
    assert!(!put(b"3", Expected::Value(b"2"), 10));
    assert!(!delete(Expected::Value(b"2"), 10));
    assert!(put(b"3", Expected::Nothing, 10));
    assert!(delete(Expected::Value(b"3"), 10));
    assert!(!delete(Expected::Anything, 10));
}

#[test]
fn listings_are_bounded_and_go_on_where_they_ended() {
    let (_folder, zone) = zone();
    for key in ["a", "p/1", "p/2", "p/3", "q"] {
        put(&zone, key, b"", None, 0).expect("room");
    }
    put(&zone, b"p/0", b"", Some(TTL), 0).expect("room");
    let list = |prefix: &str, after: Option<&[u8]>, limit| {
        zone.list(prefix.as_bytes(), after, limit, 50)
            .expect("readable")
    };
    let first = list("p/", None, 2);
    assert_eq!(first.keys, [b"p/1", b"p/2"]);
    let second = list("p/", first.next.as_deref(), 2);
    assert_eq!(second.keys, [b"p/3"]);
    assert_eq!(second.next, None);
    assert_eq!(list("", None, 99).keys.len(), 5);
    assert_eq!(list("x", None, 99), Listing::default());
    assert_eq!(list("p/", Some(b"a"), 99).keys.len(), 3);
    assert_eq!(list("p/", Some(b"z"), 99).keys.len(), 0);
    assert_eq!(list("p/", None, 0).keys.len(), 0);
}

#[test]
fn sizes_out_of_bounds_are_refused() {
    let (_folder, zone) = zone();
    let put = |key: usize, value: usize| put(&zone, vec![7; key], &vec![7; value], None, 0);
    assert!(matches!(Key::new(&[]), Err(ZoneError::KeyLength(0))));
    assert!(matches!(
        Key::new(&[7; 511]),
        Err(ZoneError::KeyLength(511))
    ));
    assert!(put(510, zone.value_limit_bytes()).is_ok());
    assert!(matches!(
        put(1, zone.value_limit_bytes() + 1),
        Err(ZoneError::ValueTooLarge { .. })
    ));
    assert!(zone.list(&[7; 511], None, 1, 0).is_err());
}

#[test]
fn a_full_zone_refuses_and_works_again_after_deletions() {
    let (_folder, zone) = zone();
    for size_bytes in [10, 3000, 40_000, 65_536] {
        let value = vec![1; size_bytes];
        let fill = |from: u32| {
            let mut key = from;
            loop {
                match put(&zone, key.to_be_bytes(), &value, None, 0) {
                    Ok(_) => key += 1,
                    Err(ZoneError::Full(_)) => return key,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let count = fill(0);
        let used = zone.used_bytes().expect("readable");
        assert!(used > zone.limit_bytes() * 3 / 4, "{size_bytes}: {used}");
        put(&zone, 0_u32.to_be_bytes(), &value, None, 0).expect("replaces as much");
        for key in 0..count {
            assert!(delete(&zone, key.to_be_bytes(), 0), "{size_bytes}: {key}");
        }
        assert_eq!(fill(0), count, "{size_bytes}");
        for key in 0..count {
            delete(&zone, key.to_be_bytes(), 0);
        }
    }
}

#[test]
fn what_has_expired_makes_room() {
    let (_folder, zone) = zone();
    for key in 0..50_000_u32 {
        let now_ns = u64::from(key);
        put(&zone, key.to_be_bytes(), &[1; 100], Some(TTL), now_ns).expect("room");
    }
    let used = zone.used_bytes().expect("readable");
    assert!(used < 64 << 10, "{used}: writes sweep");

    let mut full_at = 100_000;
    let fill = |key: u32| put(&zone, key.to_be_bytes(), &[1; 100], Some(TTL), 200_000);
    while fill(full_at).is_ok() {
        full_at += 1;
    }
    assert!(full_at > 103_000, "{full_at}");
    put(&zone, b"later", &[1; 40_000], None, 300_000).expect("room after evicting");
    while zone.sweep(300_000, 100).expect("no error") > 0 {}
    assert_eq!(
        zone.list(b"", None, 10, 0).expect("readable").keys,
        [b"later"]
    );
}

#[test]
fn entries_that_are_none_are_absent_and_swept() {
    let (_folder, zone) = zone();
    let mut txn = zone.env.write_txn().expect("free");
    zone.table.put(&mut txn, b"ea", b"short").expect("room");
    zone.table.put(&mut txn, b"tshort", b"").expect("room");
    zone.table
        .put(&mut txn, &[b't'; 17], &[7; 600])
        .expect("room");
    zone.table.put(&mut txn, b"x", b"").expect("room");
    txn.commit().expect("room");
    assert_eq!(value(&zone, b"a", 0), None);
    assert_eq!(zone.list(b"", None, 9, 0).expect("readable").keys.len(), 0);
    assert_eq!(zone.sweep(u64::MAX, 9).expect("no error"), 3);
    put(&zone, b"a", b"1", None, 0).expect("room");
    assert_eq!(value(&zone, b"a", 0).as_deref(), Some(&b"1"[..]));
}

/// Also run as a process of its own, by the two tests below.
#[test]
fn holder() {
    let Some(task) = Writer::task() else { return };
    let (role, folder) = task.split_once(' ').expect("two words");
    let zone = KvZone::open(folder.as_ref(), "sessions", SIZE).expect("open");
    let reader = (role == "read").then(|| zone.read_txn().expect("free"));
    let mut writer = (role == "write").then(|| zone.env.write_txn().expect("free"));
    if let Some(txn) = &mut writer {
        zone.table.put(txn, b"ehalf", &[0; 50_000]).expect("room");
    }
    Writer::ready();
    std::thread::sleep(Duration::from_secs(60));
    drop((reader, writer));
}

#[test]
fn a_writer_killed_with_the_lock_held_holds_up_nobody() {
    let (_parent, folder) = folder();
    let zone = KvZone::open(&folder, "sessions", SIZE).expect("open");
    for round in 0..5_u8 {
        let mut writer = Writer::start(
            "zone::kv::tests::holder",
            &format!("write {}", folder.display()),
        );
        writer.wait_until_ready();
        assert_eq!(value(&zone, b"half", 0), None, "readers do not wait");
        writer.kill();
        put(&zone, b"k", &[round], None, 0).expect("room");
        assert_eq!(value(&zone, b"k", 0), Some(vec![round]));
        assert_eq!(value(&zone, b"half", 0), None);
    }
}

#[test]
fn a_reader_killed_in_its_read_does_not_fill_the_zone() {
    let (_parent, folder) = folder();
    let zone = KvZone::open(&folder, "sessions", SIZE).expect("open");
    put(&zone, b"k", &[0; 60_000], None, 0).expect("room");
    let mut reader = Writer::start(
        "zone::kv::tests::holder",
        &format!("read {}", folder.display()),
    );
    reader.wait_until_ready();
    reader.kill();
    for round in 0..100_u8 {
        put(&zone, b"k", &[round; 60_000], None, 0).expect("room");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u16, Option<u8>),
    PutIfAbsent(u8, u16, Option<u8>),
    Swap(u8, u8, Option<u16>),
    Delete(u8),
    Get(u8),
    List(u8, usize),
    Add(u8, i64, Option<u8>),
    PutAll(Vec<(u8, u16)>, Option<u8>),
    DeleteAll(Vec<u8>),
    GetAll(Vec<u8>),
    Sweep(usize),
    Wait(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..12_u8;
    let size = 0..5000_u16;
    let ttl = proptest::option::of(1..50_u8);
    let keys = proptest::collection::vec(key.clone(), 0..6);
    // Values of eight bytes are numbers to count in.
    let short = prop_oneof![Just(8), 0..3000_u16];
    let entries = proptest::collection::vec((key.clone(), short), 0..6);
    prop_oneof![
        (key.clone(), size.clone(), ttl.clone()).prop_map(|(k, v, t)| Step::Put(k, v, t)),
        (key.clone(), size.clone(), ttl.clone()).prop_map(|(k, v, t)| Step::PutIfAbsent(k, v, t)),
        (key.clone(), -2..5_i64, ttl.clone()).prop_map(|(k, n, t)| Step::Add(k, n, t)),
        (entries, ttl).prop_map(|(e, t)| Step::PutAll(e, t)),
        keys.clone().prop_map(Step::DeleteAll),
        keys.prop_map(Step::GetAll),
        (key.clone(), key.clone(), proptest::option::of(size))
            .prop_map(|(k, o, v)| Step::Swap(k, o, v)),
        key.clone().prop_map(Step::Delete),
        key.clone().prop_map(Step::Get),
        (key, 0..5_usize).prop_map(|(k, n)| Step::List(k, n)),
        (0..5_usize).prop_map(Step::Sweep),
        (0..30_u8).prop_map(Step::Wait),
    ]
}

fn bytes(size: u16) -> Vec<u8> {
    vec![size as u8; usize::from(size)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn behaves_as_a_map_with_expiry(steps in proptest::collection::vec(step(), 1..150)) {
        let (_folder, zone) = zone();
        let mut model: BTreeMap<u8, (Vec<u8>, u64)> = BTreeMap::new();
        let mut now = 5_u64;
        let ends = |now: u64, ttl: Option<u8>| ttl.map_or(u64::MAX, |ttl| now + u64::from(ttl));
        let ttl_of = |ttl: Option<u8>| ttl.map(|ttl| Duration::from_nanos(ttl.into()));
        for step in steps {
            model.retain(|_, (_, ends)| *ends > now);
            match step {
                Step::Put(name, size, ttl) => {
                    put(&zone, [name], &bytes(size), ttl_of(ttl), now).expect("room");
                    model.insert(name, (bytes(size), ends(now, ttl)));
                }
                Step::PutIfAbsent(name, size, ttl) => {
                    let done = zone.put(&key([name]), &bytes(size), ttl_of(ttl), Expected::Nothing, now);
                    let absent = !model.contains_key(&name);
                    prop_assert_eq!(done.expect("room"), absent);
                    model.entry(name).or_insert((bytes(size), ends(now, ttl)));
                }
                Step::Swap(name, other, size) => {
                    // The value of another key: right now and then.
                    let old = model.get(&other).map(|(value, _)| value.clone());
                    let expected = old.as_deref().map_or(Expected::Nothing, Expected::Value);
                    let there = model.get(&name).map(|(value, _)| value.clone());
                    let done = match size {
                        Some(size) => zone.put(&key([name]), &bytes(size), None, expected, now),
                        None => zone.delete(&key([name]), expected, now),
                    };
                    let matched = there == old && (size.is_some() || there.is_some());
                    prop_assert_eq!(done.expect("room"), matched);
                    if matched {
                        model.remove(&name);
                        model.extend(size.map(|size| (name, (bytes(size), u64::MAX))));
                    }
                }
                Step::Delete(name) => {
                    prop_assert_eq!(delete(&zone, [name], now), model.remove(&name).is_some());
                }
                Step::Get(name) => {
                    let ttl = |ends: u64| (ends < u64::MAX).then(|| Duration::from_nanos(ends - now));
                    let expected = model.get(&name).map(|(value, ends)| (value.clone(), ttl(*ends)));
                    let read = zone.read_with_ttl(&key([name]), now, |value, ttl| (value.to_vec(), ttl));
                    prop_assert_eq!(read.expect("readable"), expected);
                }
                Step::Add(name, by, ttl) => {
                    let done = zone.increment(&key([name]), by, ttl_of(ttl), now);
                    let fresh = (0_i64.to_le_bytes().to_vec(), ends(now, ttl));
                    let (value, _) = model.entry(name).or_insert(fresh);
                    match <[u8; 8]>::try_from(value.as_slice()) {
                        Ok(old) => {
                            let sum = i64::from_le_bytes(old) + by;
                            prop_assert_eq!(done.expect("room"), sum);
                            *value = sum.to_le_bytes().to_vec();
                        }
                        Err(_) => prop_assert!(matches!(done, Err(ZoneError::NotANumber(_)))),
                    }
                }
                Step::PutAll(entries, ttl) => {
                    let values: Vec<_> = entries.iter().map(|(name, size)| (*name, bytes(*size))).collect();
                    let entries: Vec<_> = values.iter().map(|(name, value)| (key([*name]), &value[..])).collect();
                    zone.put_all(&entries, ttl_of(ttl), now).expect("room");
                    model.extend(values.into_iter().map(|(name, value)| (name, (value, ends(now, ttl)))));
                }
                Step::DeleteAll(names) => {
                    let keys: Vec<Key> = names.iter().map(|name| key([*name])).collect();
                    let deleted = zone.delete_all(&keys, now).expect("no error");
                    let gone = names.iter().filter(|name| model.remove(name).is_some());
                    prop_assert_eq!(deleted, gone.count());
                }
                Step::GetAll(names) => {
                    let keys: Vec<Key> = names.iter().map(|name| key([*name])).collect();
                    let read = zone.read_all(&keys, now, |values| {
                        values.iter().map(|value| value.map(<[u8]>::to_vec)).collect::<Vec<_>>()
                    });
                    let there = names.iter().map(|name| model.get(name).map(|(value, _)| value.clone()));
                    prop_assert_eq!(read.expect("readable"), there.collect::<Vec<_>>());
                }
                Step::List(after, limit) => {
                    let listing = zone.list(b"", Some(&[after]), limit, now).expect("readable");
                    let keys = model.keys().filter(|key| **key > after).map(|key| vec![*key]);
                    prop_assert_eq!(listing.keys, keys.take(limit).collect::<Vec<_>>());
                }
                Step::Sweep(limit) => prop_assert!(zone.sweep(now, limit).expect("room") <= limit),
                Step::Wait(ns) => now += u64::from(ns),
            }
        }
        // Nothing is left behind: neither what has expired nor the records of what is due.
        for name in model.keys() {
            delete(&zone, [*name], now);
        }
        while zone.sweep(u64::MAX - 1, 100).expect("room") > 0 {}
        let txn = zone.read_txn().expect("free");
        prop_assert_eq!(zone.table.len(&txn).expect("readable"), 0);
    }
}
