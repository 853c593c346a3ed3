use std::collections::HashMap;

use proptest::prelude::*;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::*;

const SECOND: u64 = 1_000_000_000;
const SIZE: u64 = CounterZone::MIN_BYTES;

fn zone() -> CounterZone {
    CounterZone::create("limits", SIZE, 0).expect("memory")
}

fn reopened(zone: &CounterZone, name: &str, size_bytes: u64) -> Result<CounterZone, ZoneError> {
    let file = zone.descriptor().try_clone_to_owned().expect("descriptor");
    CounterZone::open(file, name, size_bytes)
}

#[test]
fn counts_within_a_window_and_begins_anew_after_it() {
    let zone = zone();
    let window = Duration::from_secs(1);
    assert_eq!(zone.add(b"a", 2, window, SECOND), 2);
    assert_eq!(zone.add(b"a", 3, window, SECOND + SECOND / 2), 5);
    assert_eq!(zone.add(b"b", 1, window, SECOND), 1);
    let reading = zone.get(b"a", SECOND).expect("there");
    assert_eq!(reading.value, 5);
    assert!(reading.expires_in >= window);
    assert!(reading.expires_in < window + Duration::from_millis(2));
    assert_eq!(zone.add(b"a", 1, window, 2 * SECOND + 2_000_000), 1);
    assert_eq!(zone.get(b"a", 9 * SECOND), None);
}

#[test]
fn extremes_are_no_errors() {
    let zone = zone();
    assert_eq!(zone.add(b"", u64::MAX, Duration::MAX, 0), u64::MAX);
    assert_eq!(zone.add(b"", 1, Duration::MAX, 0), u64::MAX);
    assert_eq!(zone.add(b"zero", 0, Duration::MAX, 0), 0);
    assert_eq!(zone.get(b"zero", 0), None);
    assert_eq!(zone.add(b"instant", 1, Duration::ZERO, 5), 1);
    assert_eq!(zone.add(b"late", 1, Duration::MAX, u64::MAX), 1);
    assert_eq!(zone.get(b"late", u64::MAX), None);
}

#[test]
fn a_window_that_became_shorter_ends_in_time() {
    let zone = zone();
    zone.add(b"a", 1, Duration::from_secs(3600), 0);
    assert_eq!(zone.add(b"a", 1, Duration::from_secs(1), 0), 2);
    assert_eq!(zone.get(b"a", 2 * SECOND), None);
}

#[test]
fn update_stores_what_the_function_says() {
    let zone = zone();
    let ttl = Duration::from_secs(1);
    let grow = |value: Option<u64>| Some(value.map_or(10, |value| value + 1));
    assert_eq!(zone.update(b"a", ttl, 0, grow), Updated::Stored(10));
    assert_eq!(zone.update(b"a", ttl, 0, grow), Updated::Stored(11));
    assert_eq!(zone.update(b"a", ttl, 0, |_| None), Updated::Left(Some(11)));
    assert_eq!(
        zone.update(b"a", ttl, 2 * SECOND, |_| None),
        Updated::Left(None)
    );
}

#[test]
fn another_process_sees_the_same_numbers_and_a_wrong_one_is_refused() {
    let zone = zone();
    zone.add(b"a", 7, Duration::from_secs(1), 0);
    let again = reopened(&zone, "limits", SIZE).expect("the same");
    assert_eq!(again.get(b"a", 0).map(|reading| reading.value), Some(7));

    let refused = |name, size| {
        reopened(&zone, name, size)
            .expect_err("another")
            .to_string()
    };
    assert_eq!(
        refused("other", SIZE),
        "zone other: name is another, expected other"
    );
    assert_eq!(
        refused("limits", SIZE * 2),
        "zone limits: size is 65536, expected 131072"
    );
}

#[test]
fn files_that_are_no_zones_are_refused() {
    let flags = MemfdFlags::ALLOW_SEALING;
    let open = |file| CounterZone::open(file, "limits", SIZE).expect_err("no zone");
    let unsealed = memfd_create("x", flags).expect("memory");
    ftruncate(&unsealed, SIZE).expect("size");
    assert!(matches!(open(unsealed), ZoneError::Io { .. }));
    let small = Mapping::create("x", 64).expect("memory");
    let file = small.descriptor().try_clone_to_owned().expect("descriptor");
    assert!(matches!(open(file), ZoneError::Damaged { .. }));
    let zeroes = Mapping::create("x", 65536).expect("memory");
    let file = zeroes
        .descriptor()
        .try_clone_to_owned()
        .expect("descriptor");
    assert!(matches!(open(file), ZoneError::Damaged { .. }));
    let text = std::fs::File::open("/proc/self/exe").expect("file");
    assert!(matches!(open(text.into()), ZoneError::Io { .. }));
    assert!(CounterZone::create("limits", 5, 0).is_err());
    assert!(CounterZone::create("", SIZE, 0).is_err());
}

#[test]
fn noise_in_place_of_numbers_is_worked_with() {
    let mapping = Mapping::create("castling:limits", 65536).expect("memory");
    let file = mapping
        .descriptor()
        .try_clone_to_owned()
        .expect("descriptor");
    drop(CounterZone::create("limits", SIZE, 0).expect("memory"));
    let words = mapping.table::<AtomicU64>(0, 65536 / 8).expect("fits");
    let source = zone();
    let good = source.mapping.table::<AtomicU64>(0, 24).expect("fits");
    let mut noise = 1_u64;
    for (idx, word) in words.iter().enumerate() {
        noise = noise
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let kept = good.get(idx).map(|word| word.load(Relaxed));
        word.store(kept.unwrap_or(noise), Relaxed);
    }
    let zone = CounterZone::open(file, "limits", SIZE).expect("the header is good");
    for key in 0..5000_u32 {
        let key = key.to_be_bytes();
        assert_eq!(zone.add(&key, 1, Duration::from_secs(1), 5), 1);
        assert_eq!(zone.add(&key, 1, Duration::from_secs(1), 5), 2);
    }
}

#[test]
fn a_full_zone_keeps_working_and_says_so() {
    let zone = zone();
    let slots = zone.stats(0).slots;
    for key in 0..4 * slots {
        let key = key.to_be_bytes();
        let ttl = Duration::from_secs(1 + key[7] as u64);
        assert_eq!(zone.add(&key, 1, ttl, 0), 1);
        assert_eq!(zone.get(&key, 0).map(|reading| reading.value), Some(1));
    }
    let stats = zone.stats(0);
    assert!(stats.live > slots * 9 / 10, "{stats:?}");
    assert_eq!(stats.evicted as usize + stats.live, 4 * slots, "{stats:?}");
    assert_eq!(zone.stats(1000 * SECOND).live, 0);
}

#[derive(Clone, Debug)]
enum Step {
    Add(u8, u64, u64),
    Update(u8, u64, u64),
    Get(u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let seconds = 1..20_u64;
    prop_oneof![
        (0..30_u8, 1..9_u64, seconds.clone()).prop_map(|(k, n, w)| Step::Add(k, n, w)),
        (0..30_u8, any::<u64>(), seconds).prop_map(|(k, v, t)| Step::Update(k, v, t)),
        (0..30_u8).prop_map(Step::Get),
        (0..5_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Times are odd half seconds for steps and whole ones for windows, so that no tick is in doubt.
    #[test]
    fn behaves_as_a_map_with_expiry(steps in proptest::collection::vec(step(), 1..200)) {
        let zone = zone();
        let mut model: HashMap<u8, (u64, u64)> = HashMap::new();
        let mut now = SECOND / 2;
        for step in steps {
            model.retain(|_, (_, ends)| *ends > now);
            match step {
                Step::Add(key, amount, seconds) => {
                    let ends = now + seconds * SECOND;
                    let (count, old_end) = model.get(&key).copied().unwrap_or((0, ends));
                    let count = count.saturating_add(amount);
                    model.insert(key, (count, old_end.min(ends)));
                    let window = Duration::from_secs(seconds);
                    prop_assert_eq!(zone.add(&[key], amount, window, now), count);
                }
                Step::Update(key, value, seconds) => {
                    let before = model.get(&key).map(|(value, _)| *value);
                    model.insert(key, (value, now + seconds * SECOND));
                    let mut seen = None;
                    let stored = zone.update(&[key], Duration::from_secs(seconds), now, |old| {
                        seen = old;
                        Some(value)
                    });
                    prop_assert_eq!(stored, Updated::Stored(value));
                    prop_assert_eq!(seen, before);
                }
                Step::Get(key) => {
                    let value = zone.get(&[key], now).map(|reading| reading.value);
                    prop_assert_eq!(value, model.get(&key).map(|(value, _)| *value));
                }
                // Past the tick in which a window may still be open.
                Step::Wait(seconds) => now += seconds * SECOND + 2_000_000,
            }
        }
        prop_assert_eq!(zone.stats(now).evicted, 0);
    }
}
