use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;
use crate::zone::kill_tests::{Writer, inherited};

fn zone(size_bytes: u64, rows: u32) -> GaugeZone {
    let zone = GaugeZone::create("busy", size_bytes).expect("memory");
    for row in 0..rows {
        zone.take_row(row).expect("memory");
    }
    zone
}

fn reopened(zone: &GaugeZone) -> GaugeZone {
    let file = zone.descriptor().try_clone_to_owned().expect("descriptor");
    GaugeZone::open(file, "busy", zone.size_bytes()).expect("the same")
}

#[test]
fn permits_are_counted_over_all_workers_and_end_with_theirs() {
    let zone = zone(GaugeZone::MIN_BYTES, 3);
    let workers = [1, 2].map(|row| Gauge::new(reopened(&zone), Some(row)));
    let [one, two] = workers
        .each_ref()
        .map(|worker| worker.enter(b"a", 2).unwrap());
    assert!(workers[0].enter(b"a", 2).unwrap().is_none());
    let place = workers[0].place_of(b"a");
    assert!(workers[0].is_at(one.as_ref().unwrap(), place));
    assert!(
        !workers[0].is_at(two.as_ref().unwrap(), place),
        "it is the other worker's"
    );
    let other = workers[0].enter(b"b", 1).unwrap().unwrap();
    assert!(!workers[0].is_at(&other, place));
    drop(one);
    assert_eq!(
        (zone.count(b"a"), zone.count(b"b"), zone.count(b"c")),
        (1, 1, 0)
    );
    // Worker 2 is killed.
    std::mem::forget(two);
    zone.clear_row(2);
    assert_eq!((zone.stats().keys, zone.stats().permits), (1, 1));
    let _both = [(); 2].map(|()| workers[0].enter(b"a", 2).unwrap().unwrap());
    assert!(workers[1].enter(b"a", 2).unwrap().is_none());
    assert!(workers[1].enter(b"a", 3).unwrap().is_some());
}

#[test]
fn a_full_zone_refuses_further_keys_and_has_room_again_when_some_go() {
    let zone = zone(GaugeZone::MIN_BYTES, 1);
    let worker = Gauge::new(zone, Some(0));
    let keys = |from: u32| (from..).map(|idx: u32| idx.to_le_bytes());
    let held: Vec<_> = keys(0)
        .map_while(|key| worker.enter(&key, 1).ok())
        .collect();
    assert!(
        held.len() > 128 && held.iter().all(Option::is_some),
        "{}",
        held.len()
    );
    let full = keys(1000)
        .take(2000)
        .filter(|key| worker.enter(key, 1).is_err());
    assert!(full.count() > 100);
    drop(held);
    for _ in 0..3 {
        let all = keys(0)
            .take(100)
            .map(|key| worker.enter(&key, 1).unwrap().unwrap());
        assert_eq!(all.collect::<Vec<_>>().len(), 100);
    }
    assert_eq!(worker.zone().stats().permits, 0);
    let no_row = Gauge::new(reopened(worker.zone()), None);
    assert!(matches!(no_row.enter(b"a", 1), Err(ZoneError::NoRow(_))));
}

#[test]
fn another_process_sees_the_same_and_nothing_else_is_opened_as_one() {
    let zone = zone(8 << 10, 1);
    let file = || zone.descriptor().try_clone_to_owned().unwrap();
    let told = |name, size| GaugeZone::open(file(), name, size).unwrap_err().to_string();
    assert_eq!(
        told("other", 8 << 10),
        "zone other: name is another, expected other"
    );
    assert_eq!(
        told("busy", 4 << 10),
        "zone busy: size is 8192, expected 4096"
    );
    let counter = crate::zone::CounterZone::create("busy", 64 << 10, 0).unwrap();
    let wrong = counter.descriptor().try_clone_to_owned().unwrap();
    assert!(matches!(
        GaugeZone::open(wrong, "busy", 8 << 10),
        Err(ZoneError::Mismatch { .. })
    ));
    assert!(matches!(
        GaugeZone::create("busy", 5 << 20),
        Err(ZoneError::Size { .. })
    ));
}

proptest! {
    /// Against a map: whatever two workers take, give back or leave behind.
    #[test]
    fn a_gauge_is_a_map_of_counts(steps in proptest::collection::vec((0..4_u8, 0..2_usize, 0..6_u8, 1..4_u64), 1..200)) {
        let zone = zone(GaugeZone::MIN_BYTES, 2);
        let workers = [0, 1].map(|row| Gauge::new(reopened(&zone), Some(row)));
        let mut held: BTreeMap<(usize, u8), Vec<Permit>> = BTreeMap::new();
        for (step, worker, key, max) in steps {
            let sum: usize = (0..2).map(|row| held.get(&(row, key)).map_or(0, Vec::len)).sum();
            match step {
                0 | 1 => {
                    let entered = workers[worker].enter(&[key], max).unwrap();
                    prop_assert_eq!(entered.is_some(), (sum as u64) < max);
                    held.entry((worker, key)).or_default().extend(entered);
                }
                2 => drop(held.get_mut(&(worker, key)).and_then(Vec::pop)),
                _ => {
                    held.retain(|(row, _), permits| {
                        let stays = *row != worker;
                        if !stays {
                            std::mem::take(permits).into_iter().for_each(std::mem::forget);
                        }
                        stays
                    });
                    zone.clear_row(u32::try_from(worker).unwrap());
                }
            }
            let all: usize = held.values().map(Vec::len).sum();
            prop_assert_eq!(zone.stats().permits, all as u64);
        }
    }
}

/// Keys that many workers fight for, in a zone with so few cells that their cells go from one to the other.
const KEYS: u8 = 200;
const MAX: u64 = 2;
const WORKERS: u32 = 4;

/// Enters and leaves at random, and counts in `inside` what it holds of each key.
fn fight(worker: &Arc<Gauge>, inside: &[AtomicU64], mut random: u64, until: impl Fn() -> bool) {
    let mut held: Vec<(u8, Permit)> = Vec::new();
    while until() {
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let key = (random >> 33) as u8 % KEYS;
        if held.len() > 10 || random >> 63 == 0 && !held.is_empty() {
            let (key, permit) = held.swap_remove(0);
            inside[usize::from(key)].fetch_sub(1, SeqCst);
            drop(permit);
        } else if let Ok(Some(permit)) = worker.enter(&[key], MAX) {
            let others = inside[usize::from(key)].fetch_add(1, SeqCst);
            assert!(others < MAX, "{others} others have a permit of {key}");
            held.push((key, permit));
        }
    }
    for (key, permit) in held {
        inside[usize::from(key)].fetch_sub(1, SeqCst);
        drop(permit);
    }
}

#[test]
fn never_more_than_the_most_are_out_whoever_fights_for_them() {
    let zone = zone(GaugeZone::MIN_BYTES, WORKERS);
    let inside: Vec<_> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for row in 0..WORKERS {
            let worker = Gauge::new(reopened(&zone), Some(row));
            let (inside, is_over) = (&inside, &is_over);
            scope.spawn(move || {
                fight(&worker, inside, u64::from(row) + 1, || {
                    !is_over.load(Relaxed)
                });
            });
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
        is_over.store(true, Relaxed);
    });
    assert_eq!(zone.stats().permits, 0);
}

/// Processes that are killed in the middle: nothing of them is left, and all permits can be taken.
#[test]
fn killed_workers_leave_no_permit_out() {
    if let Some(task) = Writer::task() {
        let [parent, fd] = task.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{task}")
        };
        let zone = GaugeZone::open(inherited(parent, fd), "busy", GaugeZone::MIN_BYTES).unwrap();
        let worker = Gauge::new(zone, Some(1));
        let inside: Vec<_> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
        Writer::ready();
        fight(&worker, &inside, u64::from(std::process::id()), || true);
    }
    use std::os::fd::AsRawFd;
    let zone = zone(GaugeZone::MIN_BYTES, 2);
    let task = format!("{} {}", std::process::id(), zone.descriptor().as_raw_fd());
    let worker = Gauge::new(reopened(&zone), Some(0));
    for _ in 0..10 {
        let mut other = Writer::start(
            "zone::gauge::tests::killed_workers_leave_no_permit_out",
            &task,
        );
        other.wait_until_ready();
        std::thread::sleep(std::time::Duration::from_millis(3));
        other.kill();
        zone.clear_row(1);
        assert_eq!(zone.stats().permits, 0);
        for key in 0..KEYS {
            let all = [(); MAX as usize].map(|()| worker.enter(&[key], MAX).unwrap());
            assert!(all.iter().all(Option::is_some));
            assert!(worker.enter(&[key], MAX).unwrap().is_none());
        }
    }
}
