//! Numbers, several keys at once, and zones that evict.

use super::tests::{key, put, value, zone};
use super::*;

const TTL: Duration = Duration::from_nanos(10);

fn all(zone: &KvZone, names: &[&[u8]], now_ns: u64) -> Vec<Option<Vec<u8>>> {
    let keys: Vec<Key> = names.iter().map(key).collect();
    let values = zone.read_all(&keys, now_ns, |values| {
        values
            .iter()
            .map(|value| value.map(<[u8]>::to_vec))
            .collect()
    });
    values.expect("readable")
}

fn put_all(
    zone: &KvZone,
    entries: &[(&[u8], &[u8])],
    ttl: Option<Duration>,
    now_ns: u64,
) -> Result<(), ZoneError> {
    let entries: Vec<_> = entries
        .iter()
        .map(|(name, value)| (key(name), *value))
        .collect();
    zone.put_all(&entries, ttl, now_ns)
}

#[test]
fn a_value_is_read_with_the_time_that_it_has_left() {
    let (_folder, zone) = zone();
    put(&zone, b"a", b"1", Some(TTL), 100).expect("room");
    put(&zone, b"b", b"2", None, 100).expect("room");
    let read = |name: &[u8], now_ns| {
        let read = zone.read_with_ttl(&key(name), now_ns, |value, ttl| (value.to_vec(), ttl));
        read.expect("readable")
    };
    assert_eq!(read(b"a", 100), Some((b"1".to_vec(), Some(TTL))));
    assert_eq!(
        read(b"a", 109),
        Some((b"1".to_vec(), Some(Duration::from_nanos(1))))
    );
    assert_eq!(read(b"a", 110), None);
    assert_eq!(read(b"b", u64::MAX - 1), Some((b"2".to_vec(), None)));
}

#[test]
fn a_number_counts_on_and_keeps_its_time() {
    let (_folder, zone) = zone();
    let add = |by, ttl, now_ns| zone.increment(&key(b"n"), by, ttl, now_ns);
    assert_eq!(add(3, Some(TTL), 100).expect("room"), 3);
    assert_eq!(add(-5, None, 105).expect("room"), -2);
    assert_eq!(
        value(&zone, b"n", 109),
        Some((-2_i64).to_le_bytes().to_vec())
    );
    // The number expires as the first one has said, and begins anew.
    assert_eq!(add(7, None, 110).expect("room"), 7);
    assert_eq!(
        value(&zone, b"n", u64::MAX - 1),
        Some(7_i64.to_le_bytes().to_vec())
    );
    assert!(matches!(
        add(i64::MAX, None, 110),
        Err(ZoneError::NumberOverflow)
    ));
    assert_eq!(add(0, None, 110).expect("room"), 7);
    assert_eq!(add(i64::MIN, None, 110).expect("room"), i64::MIN + 7);
    assert!(matches!(add(-8, None, 110), Err(ZoneError::NumberOverflow)));
    for length in [0, 7, 9] {
        put(&zone, b"n", &vec![1; length], None, 110).expect("room");
        assert!(matches!(add(1, None, 110), Err(ZoneError::NotANumber(it)) if it == length));
    }
}

#[test]
fn several_keys_are_read_stored_and_deleted_at_once() {
    let (_folder, zone) = zone();
    put(&zone, b"old", b"0", None, 0).expect("room");
    let entries: [(&[u8], &[u8]); 4] = [(b"a", b"1"), (b"b", b""), (b"old", b"2"), (b"a", b"3")];
    put_all(&zone, &entries, Some(TTL), 100).expect("room");
    let some = |value: &[u8]| Some(value.to_vec());
    let names: [&[u8]; 5] = [b"old", b"none", b"b", b"a", b"a"];
    let expected = [some(b"2"), None, some(b""), some(b"3"), some(b"3")];
    assert_eq!(all(&zone, &names, 109), expected);
    assert_eq!(all(&zone, &names, 110), [const { None }; 5]);
    assert_eq!(all(&zone, &[], 109), Vec::<Option<Vec<u8>>>::new());
    put_all(&zone, &[], None, 109).expect("nothing to do");

    let keys: Vec<Key> = names.iter().map(key).collect();
    assert_eq!(zone.delete_all(&keys, 110).expect("no error"), 0, "expired");
    assert_eq!(zone.delete_all(&keys, 109).expect("no error"), 3);
    assert_eq!(zone.delete_all(&[], 109).expect("no error"), 0);
    while zone.sweep(u64::MAX - 1, 100).expect("no error") > 0 {}
    let txn = zone.read_txn().expect("free");
    assert_eq!(
        zone.table.len(&txn).expect("readable"),
        0,
        "nothing is left"
    );
}

/// Entries of one transaction have one expiry: each has a record of its own that says so.
#[test]
fn entries_that_were_stored_at_once_are_swept() {
    let (_folder, zone) = zone();
    let names: Vec<[u8; 1]> = (0..100).map(|name| [name]).collect();
    let entries: Vec<_> = names.iter().map(|name| (key(name), &b"v"[..])).collect();
    zone.put_all(&entries, Some(TTL), 100).expect("room");
    assert_eq!(zone.sweep(109, 200).expect("no error"), 0);
    assert_eq!(zone.sweep(110, 200).expect("no error"), 100);
    assert_eq!(value(&zone, &[7], 100), None);
}

#[test]
fn of_several_that_do_not_fit_none_is_stored() {
    let (_folder, zone) = zone();
    let half = vec![1; zone.value_limit_bytes() / 2];
    put_all(&zone, &[(b"a", &half), (b"b", &half)], None, 0).expect("as long as one value");
    let more = [
        (&b"a"[..], &b""[..]),
        (b"c", &half),
        (b"d", &half),
        (b"e", b"1"),
    ];
    let refused = put_all(&zone, &more, None, 0);
    assert!(matches!(refused, Err(ZoneError::ValueTooLarge { .. })));
    let names = (0_u32..).take_while(|name| put(&zone, name.to_be_bytes(), &half, None, 0).is_ok());
    assert!(names.count() > 10);
    let refused = put_all(&zone, &[(b"b", b""), (b"c", &half), (b"d", &half)], None, 0);
    assert!(matches!(refused, Err(ZoneError::Full(_))), "{refused:?}");
    let expected = [Some(half.clone()), Some(half.clone()), None];
    assert_eq!(all(&zone, &[b"a", b"b", b"c"], 0), expected);
}

/// Names in an order that is not theirs, so that neighbours in time are none in the tree.
fn scattered(number: u32) -> [u8; 4] {
    number.wrapping_mul(0x9e37_79b1).to_be_bytes()
}

#[test]
fn a_full_zone_lets_many_keys_go_at_once() {
    let (_folder, zone) = zone();
    let fill = (0_u32..).take_while(|number| {
        let ttl = Some(Duration::from_secs(u64::from(*number) + 1));
        put(&zone, scattered(*number), &[1; 60], ttl, 0).is_ok()
    });
    let count = fill.count() as u32;
    let names: Vec<u32> = (0..count).collect();
    let mut deleted = 0;
    for names in names.chunks(100) {
        let keys: Vec<Key> = names.iter().map(|name| key(scattered(*name))).collect();
        deleted += zone.delete_all(&keys, 0).expect("no error");
    }
    assert_eq!(deleted, count as usize);
}

#[test]
fn what_would_expire_first_makes_room_in_a_zone_that_evicts() {
    let (_folder, zone) = zone();
    let zone = zone.evicting(true);
    for size in [20, 300, 5000, 60_000] {
        put(&zone, b"for ever", b"1", None, 0).expect("room");
        let before = zone.evicted().expect("readable");
        let count = 20_000_000 / (size + 1000);
        let ttl = |number: u32| Some(Duration::from_secs(1000 + u64::from(number)));
        for number in 0..count as u32 {
            put(&zone, scattered(number), &vec![1; size], ttl(number), 0).expect("room");
            let last = value(&zone, &scattered(number), 0);
            assert_eq!(
                last.map(|value| value.len()),
                Some(size),
                "what was put is there"
            );
        }
        let evicted = zone.evicted().expect("readable") - before;
        let is_there = |number: &u32| value(&zone, &scattered(*number), 0).is_some();
        let there = (0..count as u32).filter(is_there).count();
        assert_eq!(
            there as u64 + evicted,
            count as u64,
            "{size}: those and no others went"
        );
        let first = (0..count as u32).find(is_there).expect("one is left");
        assert!(
            (first..count as u32).all(|number| is_there(&number)),
            "{size}"
        );
        // A part of the pages is not full.
        let full_bytes = there * (size + 4 + 16 + 17 + 4 + 16);
        assert!(
            full_bytes > SIZE_BYTES * 3 / 10,
            "{size}: {there} entries, {full_bytes} bytes"
        );
        assert_eq!(value(&zone, b"for ever", 0).as_deref(), Some(&b"1"[..]));
        while zone.sweep(u64::MAX - 1, 100).expect("no error") > 0 {}
    }
}

const SIZE_BYTES: usize = KvZone::MIN_BYTES as usize;

#[test]
fn what_never_expires_stays_and_what_has_expired_goes_uncounted() {
    let (_folder, zone) = zone();
    let zone = zone.evicting(true);
    let fill = |ttl, now_ns| {
        let numbers = 0_u32..2000;
        let stored = numbers.take_while(|number| {
            let value = [1; 5000];
            put(&zone, scattered(*number), &value, ttl, now_ns).is_ok()
        });
        stored.count()
    };
    assert_eq!(fill(Some(TTL), 0), 2000);
    let evicted = zone.evicted().expect("readable");
    assert!(evicted > 1500, "{evicted}");
    // All has expired: nothing is evicted for what never expires, and that fills the zone.
    let count = fill(None, 100);
    assert!(count > 90, "{count}");
    assert_eq!(zone.evicted().expect("readable"), evicted);
    let refused = put(&zone, b"new", &[1; 5000], Some(TTL), 100);
    assert!(matches!(refused, Err(ZoneError::Full(_))));
    for number in 0..count as u32 {
        assert!(value(&zone, &scattered(number), 100).is_some());
    }
    put(&zone, scattered(0), &[2; 5000], None, 100).expect("as large as before");
    zone.increment(&key(b"number"), 1, Some(TTL), 100)
        .expect("little");
}

/// Each process has its own setting, which is nothing of the zone's.
#[test]
fn a_zone_that_is_opened_with_the_other_setting_keeps_its_contents() {
    let (parent, zone) = zone();
    put(&zone, b"a", b"1", Some(TTL), 0).expect("room");
    drop(zone);
    let zone = KvZone::open(&parent.path().join("zone"), "sessions", KvZone::MIN_BYTES);
    let zone = zone.expect("open").evicting(true);
    assert_eq!(value(&zone, b"a", 9).as_deref(), Some(&b"1"[..]));
}

#[test]
fn sessions_make_room_as_others_do() {
    let (_folder, zone) = zone();
    let zone = zone.evicting(true);
    let session = |number: u32| {
        let mut digest = [7; 16];
        digest[..4].copy_from_slice(&scattered(number));
        Key::session(&digest)
    };
    for number in 0..20_000 {
        let ttl = Some(Duration::from_secs(60 + u64::from(number)));
        let stored = zone.put(&session(number), b"10.0.0.1:80", ttl, Expected::Nothing, 0);
        assert!(stored.expect("room"));
    }
    let is_there = |number| {
        zone.read(&session(number), 0, |_| ())
            .expect("readable")
            .is_some()
    };
    assert!(is_there(19_999) && !is_there(0));
    assert!(zone.evicted().expect("readable") > 5000);
}
