use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn key(number: u16) -> Key {
    let address = SocketAddr::from(([10, 0, 0, 1], number));
    ("app.test:80".into(), address.into())
}

fn keys(numbers: &[u16]) -> Vec<Key> {
    numbers.iter().copied().map(key).collect()
}

fn slots(numbers: &mut Numbers, peers: &[u16], now_ns: u64) -> Vec<u32> {
    let taken = numbers.take("u", &keys(peers), now_ns).unwrap();
    let slots = taken.peers.iter().flatten().map(|given| given.slot);
    slots.collect()
}

#[test]
fn a_peer_that_comes_back_in_time_finds_its_numbers() {
    let mut numbers = Numbers::new(100);
    assert_eq!(slots(&mut numbers, &[1, 2, 3], 0), [0, 1, 2]);
    let second = numbers.take("u", &keys(&[3, 4]), SECOND).unwrap();
    numbers.release("u", &keys(&[1, 2, 3]), SECOND);
    let given = |slot, cell, is_new, joins| {
        Some(Given {
            slot,
            cell,
            is_new,
            joins,
        })
    };
    let expected = [given(2, 3, false, false), given(3, 4, true, true)];
    assert_eq!(second.peers, expected);
    assert_eq!(second.own.cell, 0);
    let back = numbers.take("u", &keys(&[2, 2, 5]), SECOND * 2).unwrap();
    let expected = [given(1, 2, false, true), None, given(4, 5, true, true)];
    assert_eq!(back.peers, expected);
}

#[test]
fn a_peer_joins_only_an_upstream_that_runs() {
    let mut numbers = Numbers::new(100);
    let mut joins = |peers: &[u16]| -> Vec<bool> {
        let taken = numbers.take("u", &keys(peers), 0).unwrap();
        taken.peers.iter().flatten().map(|it| it.joins).collect()
    };
    assert_eq!(joins(&[1, 2]), [false, false], "all are new");
    assert_eq!(joins(&[1, 2, 3]), [false, false, true]);
    assert_eq!(joins(&[1, 3]), [false, false], "another list has it");
    for peers in [&[1, 2][..], &[1, 2, 3], &[1, 3]] {
        numbers.release("u", &keys(peers), SECOND);
    }
    let taken = numbers.take("u", &keys(&[1, 4]), SECOND).unwrap();
    assert!(!taken.peers.iter().flatten().any(|it| it.joins));
}

#[test]
fn the_numbers_of_one_that_stays_away_go_to_the_next_new_one() {
    let mut numbers = Numbers::new(100);
    assert_eq!(slots(&mut numbers, &[1, 2, 9], 0), [0, 1, 2]);
    numbers.take("u", &keys(&[9]), 0).unwrap();
    numbers.release("u", &keys(&[2]), 0);
    numbers.release("u", &keys(&[1]), SECOND);
    assert_eq!(slots(&mut numbers, &[3], KEPT_NS - 1), [3]);
    assert_eq!(slots(&mut numbers, &[4, 5], KEPT_NS), [1, 4]);
    assert_eq!(slots(&mut numbers, &[6], KEPT_NS + SECOND), [0]);
    assert_eq!(slots(&mut numbers, &[1], KEPT_NS + SECOND), [5]);
}

#[test]
fn an_upstream_with_many_slots_gives_them_out_at_once() {
    let mut numbers = Numbers::new(10_000);
    let many: Vec<u16> = (0..4096).collect();
    slots(&mut numbers, &many, 0);
    numbers.take("u", &keys(&[0]), 0).unwrap();
    numbers.release("u", &keys(&many), SECOND);
    assert_eq!(slots(&mut numbers, &[5000], SECOND), [1]);
}

#[test]
fn without_a_cell_the_oldest_that_is_gone_is_taken_and_else_nothing() {
    let mut numbers = Numbers::new(6);
    numbers.take("u", &keys(&[1, 2]), 0).unwrap();
    numbers.take("w", &keys(&[1]), 0).unwrap();
    numbers.release("w", &keys(&[1]), SECOND);
    // Five of six are taken, two of which nobody has.
    let refused = numbers.take("x", &keys(&[1, 2, 3]), SECOND).unwrap_err();
    assert!(refused.contains("at most 6"), "{refused}");
    let taken = numbers.take("x", &keys(&[1, 2]), SECOND).unwrap();
    assert!(taken.peers.iter().flatten().all(|given| given.is_new));
    assert!(numbers.take("u", &keys(&[3]), SECOND).is_err());
    assert!(numbers.take("u", &keys(&[1]), SECOND).is_ok());
    assert!(!numbers.upstreams.contains_key("w"), "it has nothing left");
}

#[test]
fn what_two_masters_give_out_during_an_upgrade_is_not_the_same() {
    let mut old = Numbers::new(5000);
    let first = old.take("u", &keys(&[1, 2]), 0).unwrap();
    old.release("u", &keys(&[1, 2]), 0);
    let held = old.take("u", &keys(&[2]), 0).unwrap();
    let offer = serde_json::to_string(&old.offer()).unwrap();
    let offer = serde_json::from_str(&offer).unwrap();
    let (mut new, in_use) = Numbers::inherit(offer, 5000);
    assert_eq!(in_use, [("u".to_owned(), keys(&[2]))]);
    let later = KEPT_NS * 2;
    let [ours, theirs] = [&mut old, &mut new].map(|numbers| {
        let taken = numbers.take("u", &keys(&[7, 8]), later).unwrap();
        let cells = taken.peers.iter().flatten().map(|given| given.cell);
        cells.collect::<BTreeSet<_>>()
    });
    assert!(ours.is_disjoint(&theirs), "{ours:?} {theirs:?}");
    // The one that is gone gives its cell to the new master's.
    let gone = first.peers[0].unwrap().cell;
    assert!(theirs.contains(&gone), "{theirs:?}");
    let stays = new.take("u", &keys(&[2]), later).unwrap();
    assert_eq!(stays.peers, held.peers);
    let (used_by, used) = &in_use[0];
    new.release(used_by, used, later);
    old.keep();
    assert!(old.take("u", &keys(&[9]), later).is_ok());
}

#[test]
fn numbers_that_make_no_sense_are_not_taken_over() {
    let place = |cell| PlaceOffer {
        cell,
        gone_ns: None,
    };
    let peer = |number, slot, cell| PeerOffer {
        name: "app.test:80".into(),
        address: key(number).1,
        slot,
        place: place(cell),
    };
    let slots = SlotsOffer {
        own: Some(place(0)),
        next: 1,
        free: BTreeSet::from([0, 7]),
        peers: vec![
            peer(1, 0, 1),
            peer(2, 0, 2),
            peer(3, 1, 1),
            peer(4, 2, 10),
            peer(5, u32::MAX, 3),
        ],
    };
    let offer = NumbersOffer {
        next_cell: u32::MAX,
        upstreams: BTreeMap::from([("u".to_owned(), slots)]),
    };
    let (mut numbers, in_use) = Numbers::inherit(offer, 10);
    assert_eq!(in_use, [("u".to_owned(), keys(&[1, 5]))]);
    assert!(
        numbers.take("u", &keys(&[6]), 0).is_err(),
        "no cell is left"
    );
}

/// A step of what may happen.
#[derive(Clone, Debug)]
enum Step {
    Take(u8, Vec<u16>),
    /// Releases the list that was taken so many steps ago.
    Release(u8),
    Wait(u16),
    HandOver,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_u8, prop::collection::vec(0..12_u16, 0..6)).prop_map(|(u, p)| Step::Take(u, p)),
        any::<u8>().prop_map(Step::Release),
        (0..500_u16).prop_map(Step::Wait),
        Just(Step::HandOver),
    ]
}

proptest! {
    #[test]
    fn no_two_have_the_same_number_and_who_is_there_keeps_its_own(
        steps in prop::collection::vec(step(), 1..80),
        cells in 8..40_u32,
    ) {
        let (mut numbers, mut now_ns) = (Numbers::new(cells), 0);
        let mut lists: Vec<(String, Vec<Key>, Taken)> = Vec::new();
        for step in steps {
            match step {
                Step::Take(upstream, peers) => {
                    let (upstream, keys) = (format!("u{upstream}"), keys(&peers));
                    if let Ok(taken) = numbers.take(&upstream, &keys, now_ns) {
                        lists.push((upstream, keys, taken));
                    }
                }
                Step::Release(at) if !lists.is_empty() => {
                    let (upstream, keys, taken) = lists.swap_remove(at as usize % lists.len());
                    let held = keys.into_iter().zip(taken.peers);
                    let held: Vec<Key> = held.filter_map(|(key, it)| it.map(|_| key)).collect();
                    numbers.release(&upstream, &held, now_ns);
                }
                Step::Release(_) => {}
                Step::Wait(seconds) => now_ns += u64::from(seconds) * SECOND,
                // All that was in use ends with the old master.
                Step::HandOver => {
                    let offer = numbers.offer();
                    let (new, in_use) = Numbers::inherit(offer, cells);
                    numbers = new;
                    for (upstream, keys) in in_use {
                        numbers.release(&upstream, &keys, now_ns);
                    }
                    lists.clear();
                }
            }
            let mut by_cell = BTreeMap::new();
            let mut by_slot = BTreeMap::new();
            for (upstream, keys, taken) in &lists {
                let own = by_cell.insert(taken.own.cell, (upstream, None));
                prop_assert!(own.is_none_or(|own| own == (upstream, None)));
                let peers = keys.iter().zip(&taken.peers);
                for (key, given) in peers.filter_map(|(key, it)| it.map(|it| (key, it))) {
                    prop_assert!(given.cell < cells);
                    let other = by_cell.insert(given.cell, (upstream, Some(key)));
                    prop_assert!(other.is_none_or(|other| other == (upstream, Some(key))));
                    let other = by_slot.insert((upstream, given.slot), key);
                    prop_assert!(other.is_none_or(|other| other == key));
                }
            }
        }
    }
}
