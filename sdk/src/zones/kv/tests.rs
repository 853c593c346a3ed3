use super::*;
use crate::testing::{ZoneFault, advance_clock, set_zone_fault};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_entry_is_there_until_it_expires() {
    let zone = kv("sessions");
    zone.put("a", "1", Some(SECOND)).unwrap();
    zone.put("b", "2", None).unwrap();
    advance_clock(SECOND - Duration::from_millis(1));
    assert_eq!(zone.get("a").unwrap().unwrap(), b"1");
    advance_clock(Duration::from_millis(1));
    assert_eq!(zone.get("a").unwrap(), None);
    assert!(!zone.delete("a").unwrap());
    assert!(zone.put_if_absent("a", "3", Some(Duration::ZERO)).unwrap());
    assert_eq!(zone.list("", 9).unwrap(), [b"a", b"b"]);
    advance_clock(Duration::from_millis(1));
    assert_eq!(zone.list("", 9).unwrap(), [b"b"]);
    assert!(zone.delete("b").unwrap());
    assert_eq!(kv("other").list("", 9).unwrap(), Vec::<Vec<u8>>::new());
}

#[test]
fn a_change_is_made_where_what_is_there_is_as_expected() {
    let zone = kv("sessions");
    assert!(!zone.compare_and_swap("k", Some(b"1"), "2", None).unwrap());
    assert!(zone.compare_and_swap("k", None, "1", None).unwrap());
    assert!(!zone.compare_and_swap("k", None, "2", None).unwrap());
    assert!(!zone.put_if_absent("k", "2", None).unwrap());
    assert!(zone.compare_and_swap("k", Some(b"1"), "2", None).unwrap());
    assert!(!zone.delete_if("k", "1").unwrap());
    assert!(zone.delete_if("k", "2").unwrap());
    assert!(!zone.delete_if("k", "2").unwrap());
}

#[test]
fn a_listing_goes_on_where_it_ended() {
    let zone = kv("sessions");
    for number in 0..2_500 {
        zone.put(format!("p/{number:04}"), "", None).unwrap();
    }
    zone.put("q", "", None).unwrap();
    let keys = zone.list("p/", 2_400).unwrap();
    assert_eq!(keys.len(), 2_400);
    assert_eq!(keys.last().unwrap(), b"p/2399");
    let rest = zone.list_after("p/", "p/2399", usize::MAX).unwrap();
    assert_eq!(rest.len(), 100);
    assert_eq!(rest.last().unwrap(), b"p/2499");
    assert_eq!(zone.list("p/", 0).unwrap().len(), 0);
    assert_eq!(zone.list_after("p/", "z", 9).unwrap().len(), 0);
}

#[test]
fn what_a_zone_refuses_is_an_error_that_names_it() {
    let zone = kv("sessions");
    let error = zone.get("").unwrap_err();
    assert_eq!(
        error.to_string(),
        "zone \"sessions\": get: bad argument: expected keys of 1 to 510 bytes"
    );
    assert!(zone.put(vec![b'k'; 511], "", None).is_err());
    let error = zone.put("k", vec![0; (1 << 20) + 1], None).unwrap_err();
    assert!(error.is_limit() && !error.is_full());
    assert_eq!(
        error.to_string(),
        "zone \"sessions\": put of 1048577 bytes: limit reached"
    );

    zone.put("k", "12", None).unwrap();
    set_zone_fault("sessions", Some(ZoneFault::Full));
    let error = zone.put("new", "1", None).unwrap_err();
    assert!(error.is_full() && !error.is_limit());
    assert_eq!(error.to_string(), "zone \"sessions\": put of 1 bytes: full");
    zone.put("k", "34", None).expect("as large as before");
    assert!(zone.put("k", "345", None).is_err());
    assert!(!zone.put_if_absent("k", "345", None).unwrap());
    assert!(zone.delete("k").unwrap());

    set_zone_fault("sessions", Some(ZoneFault::NotGranted));
    let error = zone.get("k").unwrap_err();
    assert_eq!(error.to_string(), "zone \"sessions\": get: not granted");
    set_zone_fault("sessions", None);
    assert_eq!(zone.get("k").unwrap(), None);
}

#[test]
fn a_number_counts_on_and_keeps_its_time() {
    let zone = kv("numbers");
    assert_eq!(zone.increment("n", 2, Some(SECOND)).unwrap(), 2);
    advance_clock(Duration::from_micros(400_500));
    assert_eq!(zone.increment("n", -3, None).unwrap(), -1);
    let left = Some(Duration::from_millis(600));
    let there = ((-1_i64).to_le_bytes().to_vec(), left);
    assert_eq!(zone.get_with_ttl("n").unwrap(), Some(there));
    advance_clock(SECOND);
    assert_eq!(zone.get_with_ttl("n").unwrap(), None);
    assert_eq!(zone.increment("n", 5, None).unwrap(), 5);
    let there = (5_i64.to_le_bytes().to_vec(), None);
    assert_eq!(zone.get_with_ttl("n").unwrap(), Some(there));

    let error = zone.increment("n", i64::MAX, None).unwrap_err();
    assert!(error.is_limit());
    assert_eq!(
        error.to_string(),
        "zone \"numbers\": increment: limit reached"
    );
    zone.put("text", "1234567", None).unwrap();
    let error = zone.increment("text", 1, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "zone \"numbers\": increment: bad argument: expected a key of 1 to 510 bytes, and a number of 8 bytes where it has a value"
    );
    assert!(zone.increment("", 1, None).is_err());
    set_zone_fault("numbers", Some(ZoneFault::Full));
    assert!(zone.increment("new", 1, None).unwrap_err().is_full());
    assert_eq!(zone.increment("n", 1, None).unwrap(), 6);
}

#[test]
fn several_keys_are_read_stored_and_deleted_at_once() {
    let zone = kv("sessions");
    let some = |value: &str| Some(value.as_bytes().to_vec());
    zone.put_all([("a", "1"), ("b", ""), ("a", "2")], Some(SECOND))
        .unwrap();
    let there = zone.get_all(["b", "none", "a", "a"]).unwrap();
    assert_eq!(there, [some(""), None, some("2"), some("2")]);
    let long = vec![7; 300_000];
    zone.put_all([("long", &long), ("longer", &long)], None)
        .unwrap();
    assert_eq!(zone.get_all(["longer"]).unwrap(), [Some(long)]);
    assert_eq!(zone.delete_all(["a", "a", "none", "long"]).unwrap(), 2);
    advance_clock(SECOND);
    assert_eq!(zone.delete_all(["b"]).unwrap(), 0);
    assert_eq!(
        zone.get_all([""; 0]).unwrap(),
        Vec::<Option<Vec<u8>>>::new()
    );
    assert_eq!(zone.delete_all([""; 0]).unwrap(), 0);
    zone.put_all([("", ""); 0], None).unwrap();
}

#[test]
fn several_keys_that_are_too_many_or_too_long_change_nothing() {
    let zone = kv("sessions");
    let keys: Vec<String> = (0..=MAX_KEYS_AT_ONCE).map(|key| key.to_string()).collect();
    let entries = |count| keys[..count].iter().map(|key| (key, "v"));
    assert!(zone.put_all(entries(101), None).unwrap_err().is_limit());
    assert_eq!(zone.list("", 9).unwrap(), Vec::<Vec<u8>>::new());
    zone.put_all(entries(100), None).unwrap();
    assert!(zone.get_all(&keys).unwrap_err().is_limit());
    assert!(zone.delete_all(&keys).unwrap_err().is_limit());
    assert_eq!(
        zone.get_all(&keys[..100]).unwrap(),
        vec![Some(b"v".to_vec()); 100]
    );
    let half = vec![0; (1 << 19) + 1];
    assert!(
        zone.put_all([("0", &half), ("1", &half)], None)
            .unwrap_err()
            .is_limit()
    );
    let error = zone.put_all([("0", "x"), ("", "x")], None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "zone \"sessions\": put_all: bad argument: expected keys of 1 to 510 bytes"
    );
    for bad in [vec![], vec![b'k'; 511], vec![b'k'; 70_000]] {
        assert!(zone.get_all([&b"0"[..], &bad]).is_err());
        assert!(zone.delete_all([&b"0"[..], &bad]).is_err());
        assert!(zone.put_all([(&bad, "x")], None).is_err());
    }
    set_zone_fault("sessions", Some(ZoneFault::Full));
    assert!(
        zone.put_all([("0", "w"), ("new", "x")], None)
            .unwrap_err()
            .is_full()
    );
    assert_eq!(zone.get("0").unwrap(), Some(b"v".to_vec()));
    zone.put_all([("0", "w"), ("1", "w")], None).unwrap();
    assert_eq!(zone.delete_all(&keys[..100]).unwrap(), 100);
    set_zone_fault("sessions", Some(ZoneFault::NotGranted));
    let error = zone.get_all(["0"]).unwrap_err();
    assert_eq!(error.to_string(), "zone \"sessions\": get_all: not granted");
    assert!(zone.put_all([("0", "w")], None).is_err() && zone.delete_all(["0"]).is_err());
}
