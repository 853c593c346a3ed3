use castling_sdk::testing::{self, Exchange, FakePeer};
use proptest::prelude::*;

use super::*;

fn plugin(json: &str) -> HashRing {
    HashRing::configure(testing::config(json).unwrap()).unwrap()
}

fn by_user() -> HashRing {
    plugin(r#"{"key": "$http_x_user"}"#)
}

fn peers(n: usize) -> Vec<FakePeer> {
    let peer = |i| FakePeer::at(&format!("10.0.0.{i}:8080"));
    (1..=n).map(peer).collect()
}

fn choose(plugin: &mut HashRing, key: &str, peers: &[FakePeer]) -> Option<usize> {
    let exchange = Exchange::get("/").header("x-user", key);
    let mut exchange = peers.iter().cloned().fold(exchange, Exchange::peer);
    let peers = exchange.peers();
    plugin.balance(exchange.request(), &peers)
}

/// The peers of many keys, by the peers' addresses.
fn choices(peers: &[FakePeer]) -> Vec<usize> {
    let mut plugin = by_user();
    let key = |i| choose(&mut plugin, &format!("user {i}"), peers).unwrap();
    (0..KEYS).map(key).collect()
}

const KEYS: usize = 4_000;

#[test]
fn the_same_key_has_the_same_peer_in_every_instance() {
    let peers = peers(5);
    assert_eq!(choices(&peers), choices(&peers));
}

#[test]
fn keys_are_spread_by_weight() {
    let mut peers = peers(4);
    peers[3] = peers[3].clone().weight(5);
    let mut counts = [0_usize; 4];
    for idx in choices(&peers) {
        counts[idx] += 1;
    }
    for (idx, weight) in [1, 1, 1, 5].into_iter().enumerate() {
        let expected = KEYS * weight / 8;
        assert!(
            counts[idx].abs_diff(expected) < expected / 4,
            "{counts:?} for weights 1, 1, 1, 5"
        );
    }
}

#[test]
fn only_the_keys_of_a_peer_that_leaves_move() {
    let peers = peers(10);
    let before = choices(&peers);
    let leaves = 3;
    let mut left = peers;
    left.remove(leaves);
    let after: Vec<usize> = choices(&left)
        .into_iter()
        .map(|idx| if idx >= leaves { idx + 1 } else { idx })
        .collect();
    let moved: Vec<_> = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after)
        .collect();
    assert!(moved.iter().all(|(before, _)| **before == leaves));
    assert!(
        moved.len().abs_diff(KEYS / 10) < KEYS / 30,
        "{} of {KEYS} moved",
        moved.len()
    );
    // And not all to the same one.
    let heirs: std::collections::BTreeSet<_> = moved.iter().map(|(_, after)| after).collect();
    assert_eq!(heirs.len(), 9);
}

#[test]
fn the_order_of_the_peers_does_not_matter() {
    let forwards = peers(5);
    let backwards: Vec<_> = forwards.iter().rev().cloned().collect();
    let mirrored: Vec<_> = choices(&backwards).iter().map(|idx| 4 - idx).collect();
    assert_eq!(choices(&forwards), mirrored);
}

#[test]
fn the_next_on_the_ring_is_tried_after_one_that_failed() {
    let mut peers = peers(4);
    let mut plugin = by_user();
    let mut order = Vec::new();
    while let Some(idx) = choose(&mut plugin, "ada", &peers) {
        order.push(idx);
        peers[idx] = peers[idx].clone().tried();
    }
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [0, 1, 2, 3], "each once, then none");
    // A peer that failed lately is passed over in the same way, without being tried.
    let cooling = |idx: usize| {
        let mut peers = self::peers(4);
        peers[idx] = peers[idx].clone().cooling();
        peers
    };
    assert_eq!(
        choose(&mut plugin, "ada", &cooling(order[0])),
        Some(order[1])
    );
    assert_eq!(
        choose(&mut plugin, "ada", &cooling(order[1])),
        Some(order[0])
    );
}

#[test]
fn peers_that_failed_lately_are_better_than_none() {
    let mut plugin = by_user();
    let all: Vec<_> = peers(3).into_iter().map(FakePeer::cooling).collect();
    let first = choose(&mut plugin, "ada", &peers(3));
    assert_eq!(choose(&mut plugin, "ada", &all), first);
    // Others were tried, so the one that is cooling is what is left.
    let left = [
        all[0].clone().tried(),
        all[1].clone().tried(),
        all[2].clone(),
    ];
    assert_eq!(choose(&mut plugin, "ada", &left), Some(2));
}

#[test]
fn without_a_key_the_choice_is_round_robins() {
    assert_eq!(choose(&mut by_user(), "", &peers(3)), None);
    let mut cookie = plugin(r#"{"key": "$cookie_session"}"#);
    assert_eq!(choose(&mut cookie, "x", &peers(3)), None);
}

#[test]
fn a_full_peer_hands_its_keys_on() {
    let mut bounded = plugin(r#"{"key": "$http_x_user", "balance_factor": 125}"#);
    let mut unbounded = by_user();
    let first = choose(&mut unbounded, "ada", &peers(4)).unwrap();
    // 20 requests, the new one included, among 4 peers: 5 each, 7 (6.25, rounded up) where loads are bounded.
    for (active, stays) in [(6, true), (7, false)] {
        let mut loaded: Vec<_> = peers(4)
            .into_iter()
            .map(|peer| peer.active((19 - active) / 3))
            .collect();
        loaded[first] = loaded[first].clone().active(active);
        let rest = (19 - active) % 3;
        let other = (first + 1) % 4;
        loaded[other] = loaded[other].clone().active((19 - active) / 3 + rest);
        let chosen = choose(&mut bounded, "ada", &loaded).unwrap();
        assert_eq!(chosen == first, stays, "{active} of 19 at its peer");
        assert_eq!(choose(&mut unbounded, "ada", &loaded), Some(first));
    }
}

proptest! {
    #[test]
    fn no_load_goes_beyond_the_bound(
        weights in proptest::collection::vec(1_u32..20, 1..12),
        factor in 100_u32..300,
        requests in 1_usize..200,
        keys in 1_usize..20,
    ) {
        let mut plugin = plugin(&format!(
            r#"{{"key": "$http_x_user", "balance_factor": {factor}, "points": 20}}"#
        ));
        let total: u64 = weights.iter().copied().map(u64::from).sum();
        let mut active = vec![0_u32; weights.len()];
        for request in 0..requests {
            let loaded: Vec<_> = peers(weights.len())
                .into_iter()
                .zip(weights.iter().zip(&active))
                .map(|(peer, (&weight, &active))| peer.weight(weight).active(active))
                .collect();
            let idx = choose(&mut plugin, &format!("key {}", request % keys), &loaded);
            active[idx.expect("one always has room")] += 1;
        }
        for (weight, active) in weights.iter().zip(&active) {
            let share = requests as u64 * u64::from(factor) * u64::from(*weight);
            let bound = share.div_ceil(100 * total);
            prop_assert!(u64::from(*active) <= bound, "{active} active, bound {bound}");
        }
    }
}

#[test]
fn a_bad_config_says_where() {
    for (json, text) in [
        ("{}", "config: missing field `key`"),
        (
            r#"{"key": "$status"}"#,
            "config.key: it speaks of the response",
        ),
        (
            r#"{"key": "$"}"#,
            "config.key: `$` is no variable's name: expected $name",
        ),
        (
            r#"{"key": "a", "balance_factor": 99}"#,
            "config.balance_factor: 99: expected a percentage",
        ),
        (
            r#"{"key": "a", "balance_factor": 1.25}"#,
            "config.balance_factor: invalid type: floating point",
        ),
        (
            r#"{"key": "a", "points": 0}"#,
            "config.points: 0: expected 1 to 10000",
        ),
    ] {
        let error = testing::config(json).and_then(HashRing::configure).err();
        let error = error.expect(json).to_string();
        assert!(error.starts_with(text), "{error}");
    }
}
