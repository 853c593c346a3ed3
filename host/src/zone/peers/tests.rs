use super::*;

fn zone(cells: u32, rows: u32) -> PeersZone {
    let zone = PeersZone::create().unwrap();
    zone.take_cells(cells).unwrap();
    for row in 1..=rows {
        zone.take_row(row).unwrap();
    }
    zone
}

fn add(zone: &PeersZone, row: u32, cell: u32, active: u64) {
    let word = zone.word(row, cell).unwrap();
    word.store(word.load(Relaxed) + active, Relaxed);
}

#[test]
fn rows_are_summed_and_a_dead_workers_counts_no_more() {
    let zone = zone(3, 2);
    add(&zone, 1, 2, 5);
    add(&zone, 2, 2, 1 | 7 << 32);
    let sum = |active, connections| Load {
        active,
        connections,
    };
    assert_eq!(zone.sum(2), sum(6, 7));
    let mut others = [0; 2];
    zone.add_active_of_others(Some(1), &[2, 0], &mut others);
    assert_eq!(others, [1, 0]);
    zone.clear_row(2);
    assert_eq!(zone.sum(2), sum(5, 0));
    zone.clear_cell(2);
    assert_eq!(zone.sum(2), sum(0, 0));
}

#[test]
fn cells_and_rows_that_were_not_taken_are_none() {
    let zone = zone(1, 1);
    assert_eq!(zone.cells(), CHUNK);
    assert!(zone.record(CHUNK - 1).is_some() && zone.record(CHUNK).is_none());
    assert!(zone.word(1, 0).is_some() && zone.word(2, 0).is_none());
    assert!(zone.word(1, CHUNK).is_none());
    zone.take_cells(CHUNK + 1).unwrap();
    assert!(zone.word(1, CHUNK).is_some() && zone.record(CHUNK).is_some());
    assert!(zone.take_cells(PeersZone::CELLS + 1).is_err());
    assert!(zone.take_row(PeersZone::ROWS).is_err());
}

#[test]
fn another_process_sees_the_same_and_nothing_else_is_opened_as_one() {
    let zone = zone(1, 1);
    let file = || zone.descriptor().try_clone_to_owned().unwrap();
    let other = PeersZone::open(file()).unwrap();
    zone.record(0).unwrap().epoch.store(9, Relaxed);
    assert_eq!(other.record(0).unwrap().epoch.load(Relaxed), 9);
    add(&other, 1, 0, 3);
    assert_eq!(zone.sum(0).active, 3);
    let metrics = crate::zone::MetricsZone::create(512).unwrap();
    let wrong = metrics.descriptor().try_clone_to_owned().unwrap();
    assert!(matches!(
        PeersZone::open(wrong),
        Err(ZoneError::Mismatch { .. })
    ));
}
