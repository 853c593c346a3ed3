use std::collections::HashMap;

use proptest::prelude::*;

use super::super::bounded_load::Bound;
use super::*;

fn addresses(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!("10.0.{}.{}:8080", n / 256, n % 256))
        .collect()
}

fn table(method: HashMethod, addresses: &[String], weight: impl Fn(usize) -> u32) -> HashTable {
    let peers = addresses.iter().enumerate();
    let peers: Vec<_> = peers
        .map(|(index, address)| (address.as_str(), weight(index)))
        .collect();
    HashTable::new(method, &peers)
}

fn key(n: usize) -> Vec<u8> {
    format!("/user/{n}/photo").into_bytes()
}

const METHODS: [HashMethod; 2] = [HashMethod::Ketama, HashMethod::Maglev];
const KEYS: usize = 20_000;

fn counts(table: &HashTable, peers: usize) -> Vec<usize> {
    let mut counts = vec![0; peers];
    for n in 0..KEYS {
        counts[table.choose(&key(n), |_| true).unwrap()] += 1;
    }
    counts
}

/// Standard deviation of the share that ketama gives a peer, in parts of it: 1 / sqrt(160); Maglev's is that of the keys alone.
#[test]
fn keys_are_spread_by_weight() {
    for method in METHODS {
        let counts = counts(&table(method, &addresses(10), |n| 1 + n as u32 % 2), 10);
        for (n, count) in counts.iter().enumerate() {
            let share = KEYS as f64 * (1 + n % 2) as f64 / 15.0;
            let of_table = if method == HashMethod::Ketama {
                0.08
            } else {
                0.002
            };
            let bound = 4.0 * (share.sqrt() + of_table * share);
            assert!(
                (*count as f64 - share).abs() < bound,
                "{method:?} {counts:?}"
            );
        }
    }
}

/// Keys that have moved, though neither their old nor their new peer came or went.
fn moved(before: &HashTable, after: &HashTable, changed: usize) -> (usize, usize) {
    let (mut its_own, mut others) = (0, 0);
    for n in 0..KEYS {
        let choose = |table: &HashTable| table.choose(&key(n), |_| true).unwrap();
        match (choose(before), choose(after)) {
            (from, to) if from == to => {}
            (from, to) if from == changed || to == changed => its_own += 1,
            _ => others += 1,
        }
    }
    (its_own, others)
}

#[test]
fn when_a_peer_comes_or_goes_its_own_keys_move() {
    let peers = 20;
    for method in METHODS {
        let all = table(method, &addresses(peers), |_| 1);
        let without = table(method, &addresses(peers), |n| u32::from(n != 7));
        let share = KEYS / peers;
        for (before, after) in [(&all, &without), (&without, &all)] {
            let (its_own, others) = moved(before, after, 7);
            assert!(
                its_own.abs_diff(share) < share / 2,
                "{method:?}: {its_own} of {share}"
            );
            // Maglev moves a few of the others' keys, ketama none.
            let most = if method == HashMethod::Ketama {
                0
            } else {
                KEYS / 50
            };
            assert!(others <= most, "{method:?}: {others}");
        }
    }
}

#[test]
fn keys_of_a_peer_that_is_not_allowed_go_to_all_others_and_come_back() {
    for method in METHODS {
        let table = table(method, &addresses(10), |_| 1);
        let mut others = HashMap::new();
        for n in 0..KEYS {
            let usual = table.choose(&key(n), |_| true).unwrap();
            let now = table.choose(&key(n), |index| index != 4).unwrap();
            match usual {
                4 => *others.entry(now).or_insert(0) += 1,
                _ => assert_eq!(usual, now),
            }
        }
        assert_eq!(others.len(), 9, "{method:?}");
        let most = others.values().max().unwrap();
        assert!(*most < KEYS / 10 / 3, "{method:?} {others:?}");
    }
}

#[test]
fn few_that_are_allowed_share_the_keys() {
    for method in METHODS {
        let table = table(method, &addresses(1000), |_| 1);
        let mut counts = [0; 3];
        for n in 0..1000 {
            let choose = || table.choose(&key(n), |index| index % 400 == 0).unwrap();
            counts[choose() / 400] += 1;
            assert_eq!(choose(), choose());
        }
        assert!(
            counts.iter().all(|&count| count > 200),
            "{method:?} {counts:?}"
        );
        assert_eq!(table.choose(b"key", |_| false), None);
    }
}

#[test]
fn nobody_is_nobody() {
    for method in METHODS {
        for peers in [&[][..], &[("10.0.0.1:80", 0)]] {
            assert_eq!(HashTable::new(method, peers).choose(b"key", |_| true), None);
        }
    }
}

/// Peers that nginx 1.22 chose with `hash $arg_k consistent` for the keys `key-0` to `key-39`.
#[test]
fn ketama_sends_keys_where_nginx_does() {
    let peers = [
        ("127.0.0.1:18081", 1),
        ("127.0.0.1:18082", 3),
        ("127.0.0.3:18083", 1),
        ("unix:/run/app.sock", 1),
        ("[::1]:18085", 2),
    ];
    let table = HashTable::new(HashMethod::Ketama, &peers);
    let choose = |n| table.choose(format!("key-{n}").as_bytes(), |_| true);
    let chosen: Vec<usize> = (0..40).filter_map(choose).collect();
    assert_eq!(
        chosen,
        [
            3, 0, 2, 1, 3, 0, 1, 2, 2, 4, 1, 1, 1, 1, 1, 1, 2, 4, 0, 0, 2, 1, 3, 4, 2, 4, 4, 4, 2,
            1, 1, 1, 2, 4, 2, 4, 4, 1, 2, 2,
        ]
    );
}

/// Gateways of other versions must agree where a key belongs.
#[test]
fn a_table_is_the_same_everywhere() {
    let hashes = [&b""[..], b"a", b"/user/1"].map(|bytes| hash(bytes, KEY_SEED));
    let known = [
        15_130_871_412_783_076_140,
        4_644_417_185_603_328_019,
        681_603_168_765_134_450,
    ];
    assert_eq!(hashes, known);
    let addresses = addresses(10);
    let table = table(HashMethod::Maglev, &addresses, |_| 1);
    let choose = |n| table.choose(&key(n), |_| true);
    let chosen: Vec<usize> = (0..10).filter_map(choose).collect();
    assert_eq!(chosen, [5, 5, 9, 8, 3, 1, 8, 4, 3, 4]);
}

#[test]
fn sizes_of_tables_are_prime() {
    for size in maglev::SIZES {
        assert!(
            (2..).take_while(|n| n * n <= size).all(|n| size % n > 0),
            "{size}"
        );
    }
}

proptest! {
    /// No peer ever has more than its bound, and some peer always may have the next request.
    #[test]
    fn loads_are_bounded(
        weights in prop::collection::vec(1_u32..20, 1..20),
        keys in prop::collection::vec(0_usize..5, 1..300),
        factor in 1.0..3.0_f64,
    ) {
        let addresses = addresses(weights.len());
        let table = table(HashMethod::Maglev, &addresses, |n| weights[n]);
        let total: u32 = weights.iter().sum();
        let mut active = vec![0_u32; weights.len()];
        for (requests, n) in keys.iter().enumerate() {
            let bound = Bound::new(factor, requests as f64, total.into());
            let admits = |index: usize| bound.admits(active[index], weights[index].into());
            let chosen = table.choose(&key(*n), admits);
            prop_assert!(chosen.is_some());
            let chosen = chosen.unwrap();
            active[chosen] += 1;
            let share = factor * (requests + 1) as f64 * f64::from(weights[chosen]) / f64::from(total);
            prop_assert!(f64::from(active[chosen]) <= share.ceil());
        }
    }
}
