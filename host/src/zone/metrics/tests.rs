use std::collections::BTreeMap;
use std::thread;

use super::*;
use crate::zone::kill_tests::{Writer, inherited};

fn zone() -> MetricsZone {
    let zone = MetricsZone::create(MetricsZone::MIN_CELLS).unwrap();
    zone.take_row(0).unwrap();
    zone
}

fn all(zone: &MetricsZone) -> BTreeMap<(u8, Vec<u8>, usize), Record> {
    let mut all = BTreeMap::new();
    zone.for_each(|kind, text, record| {
        let name = (kind, text.to_vec(), record.cells);
        let twice = all.insert(name, record);
        assert_eq!(twice, None, "{}", String::from_utf8_lossy(text));
    });
    all
}

/// No two records share a cell.
fn check_cells(records: impl Iterator<Item = Record>, zone: &MetricsZone) {
    let mut owners = vec![0; zone.cells()];
    for record in records {
        for owner in &mut owners[record.first_cell..record.first_cell + record.cells] {
            *owner += 1;
        }
    }
    assert!(owners.iter().all(|owners| *owners <= 1));
}

#[test]
fn a_record_is_added_once_and_found_by_kind_text_and_cells() {
    let zone = zone();
    assert_eq!(zone.find(1, b"requests", 1), None);
    let (requests, new) = zone.add(1, b"requests", 1).unwrap();
    assert!(new);
    assert_eq!(zone.add(1, b"requests", 1), Some((requests, false)));
    assert_eq!(zone.find(1, b"requests", 1), Some(requests));
    let others = [
        (2, &b"requests"[..], 1),
        (1, b"requests", 2),
        (1, b"request", 1),
        (1, b"", 1),
    ];
    for (kind, text, cells) in others {
        assert!(zone.add(kind, text, cells).unwrap().1);
    }
    assert_eq!(all(&zone).len(), 5);
    check_cells(all(&zone).into_values(), &zone);
}

#[test]
fn another_process_opens_what_the_master_made() {
    let zone = zone();
    let (record, _) = zone.add(1, b"a", 1).unwrap();
    zone.note(record).unwrap().store(7, Relaxed);
    zone.row(0).unwrap()[record.first_cell].store(5, Relaxed);
    let file = || zone.descriptor().try_clone_to_owned().unwrap();
    let opened = MetricsZone::open(file(), MetricsZone::MIN_CELLS).unwrap();
    assert_eq!(opened.add(1, b"a", 1), Some((record, false)));
    assert_eq!(opened.note(record).unwrap().load(Relaxed), 7);
    assert_eq!(opened.row(0).unwrap()[record.first_cell].load(Relaxed), 5);
    assert!(opened.row(1).is_none(), "nobody has taken it");
    let other_size = MetricsZone::open(file(), 100_000).unwrap_err();
    assert!(
        other_size.to_string().contains("size of the file"),
        "{other_size}"
    );
    let not_a_zone = std::fs::File::open("/dev/null").unwrap().into();
    assert!(MetricsZone::open(not_a_zone, MetricsZone::MIN_CELLS).is_err());
}

#[test]
fn a_full_zone_refuses_and_keeps_what_it_has() {
    let zone = zone();
    let most = zone.cells();
    for number in 0..most {
        assert!(
            zone.add(1, number.to_string().as_bytes(), 1).is_some(),
            "{number}"
        );
    }
    assert_eq!((zone.add(1, b"one more", 1), zone.refused()), (None, 1));
    assert_eq!(zone.cells_used(), most);
    assert_eq!(zone.find(1, b"0", 1), Some(zone.add(1, b"0", 1).unwrap().0));
    assert_eq!(zone.add(1, &vec![b'x'; 70_000], 1), None, "too long");
    check_cells(all(&zone).into_values(), &zone);
}

#[test]
fn a_full_zone_does_not_use_up_its_index() {
    let zone = zone();
    let used = |zone: &MetricsZone| {
        let used = |slot: &&AtomicU64| slot.load(Relaxed) != 0;
        zone.slots().iter().filter(used).count()
    };
    assert_eq!(zone.add(1, &[b'x'; 70_000], 1), None, "too long");
    assert_eq!(used(&zone), 0);
    let most = u16::try_from(zone.cells()).unwrap();
    zone.add(1, b"all cells", most).unwrap();
    for number in 0..10_000 {
        assert_eq!(zone.add(1, format!("{number}").as_bytes(), 1), None);
    }
    assert_eq!((used(&zone), zone.refused()), (1, 10_001));
    assert!(zone.add(1, b"no cells", 0).is_some());
}

#[test]
fn records_without_cells_cannot_fill_the_index() {
    let zone = zone();
    let added = (0..100_000).take_while(|n| zone.add(9, format!("{n}").as_bytes(), 0).is_some());
    let added = added.count();
    assert!(added >= zone.cells(), "{added}");
    assert!(zone.find(9, b"0", 0).is_some());
    assert_eq!(zone.find(9, b"none", 0), None);
}

#[test]
fn threads_that_add_the_same_agree() {
    let zone = zone();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..100 {
                    let text = format!("series {number}");
                    let (record, _) = zone.add(1, text.as_bytes(), 2).unwrap();
                    assert_eq!(zone.find(1, text.as_bytes(), 2), Some(record));
                }
            });
        }
    });
    assert_eq!(all(&zone).len(), 100);
    check_cells(all(&zone).into_values(), &zone);
}

#[test]
fn a_claim_of_the_dead_is_taken_over() {
    let zone = zone();
    let name = MetricName {
        kind: 1,
        text: b"a",
        cells: 1,
    };
    let hash = zone.hash(&name);
    let slot = &zone.slots()[(hash as usize) & (zone.layout.slots - 1)];
    slot.store(hash & TAG | CLAIM | 77, Relaxed);
    assert_eq!(zone.find(1, b"a", 1), None);
    let (record, new) = zone.add(1, b"a", 1).unwrap();
    assert!(new);
    assert_eq!(zone.find(1, b"a", 1), Some(record));
}

#[test]
fn nonsense_in_the_memory_is_passed_over() {
    let zone = zone();
    for (idx, slot) in zone.slots().iter().enumerate() {
        slot.store((idx as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15), Relaxed);
    }
    for (idx, word) in zone.heap().iter().enumerate() {
        word.store((idx as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9), Relaxed);
    }
    zone.for_each(|_, _, record| assert!(record.first_cell + record.cells <= zone.cells()));
    zone.find(1, b"a", 1);
    zone.add(1, b"a", 1);
}

const SERIES: u64 = 40;

/// Processes that add records and count are killed at random; the zone stays whole, nobody waits for ever, and no count is
/// lost but the one that was being made.
#[test]
fn killed_writers_leave_a_whole_zone() {
    const TEST: &str = "zone::metrics::tests::killed_writers_leave_a_whole_zone";
    if let Some(task) = Writer::task() {
        let words: Vec<&str> = task.split(' ').collect();
        let [process, fd, row] = words[..] else {
            panic!("{task}")
        };
        let zone = MetricsZone::open(inherited(process, fd), 8192).unwrap();
        let cells = zone.row(row.parse().unwrap()).unwrap();
        let (turns, _) = zone.add(1, b"turns", 1).unwrap();
        Writer::ready();
        for turn in 0_u64.. {
            let text = format!("{} {}", turn / SERIES, turn % SERIES);
            if let Some((record, _)) = zone.add(1, text.as_bytes(), 1) {
                cells[record.first_cell].fetch_add(1, Relaxed);
            }
            cells[turns.first_cell].fetch_add(1, Relaxed);
        }
    }
    let zone = MetricsZone::create(8192).unwrap();
    for row in 0..2 {
        zone.take_row(row).unwrap();
    }
    let fd = std::os::fd::AsRawFd::as_raw_fd(&zone.descriptor());
    let task = |row| format!("{} {fd} {row}", std::process::id());
    for _ in 0..10 {
        let mut writers = [0, 1].map(|row| Writer::start(TEST, &task(row)));
        for writer in &mut writers {
            writer.wait_until_ready();
        }
        thread::sleep(std::time::Duration::from_micros(
            zone.cells_used() as u64 % 500,
        ));
        for writer in writers {
            writer.kill();
        }
    }
    let records = all(&zone);
    check_cells(records.values().copied(), &zone);
    let (turns, _) = zone.add(1, b"turns", 1).unwrap();
    let counted = |record: Record| -> u64 {
        let of_row = |row| zone.row(row).unwrap()[record.first_cell].load(Relaxed);
        (0..2).map(of_row).sum()
    };
    let others = records.values().filter(|record| **record != turns);
    let sum: u64 = others.map(|record| counted(*record)).sum();
    assert!(
        sum >= counted(turns) || zone.refused() > 0,
        "{sum} {}",
        counted(turns)
    );
    assert!(counted(turns) > 0);
}
