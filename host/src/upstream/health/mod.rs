//! Health of peers: what their requests say (`passive`), and what the gateway's own say (`active`).

pub(super) mod active;
mod grpc;
mod passive;

pub use passive::PassiveHealth;

use std::time::Duration;

/// `time`, longer or shorter by up to this share of it, at random.
fn jittered(time: Duration, share: f64, seed: u64) -> Duration {
    // SplitMix64: spreads neighbouring seeds.
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let unit = (mixed >> 11) as f64 / (1_u64 << 53) as f64;
    time.mul_f64(1.0 + share * (2.0 * unit - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_share_and_takes_all_of_it() {
        let second = Duration::from_secs(1);
        let times = (0..10_000).map(|seed| jittered(second, 0.25, seed).as_secs_f64());
        let (least, most) = times.fold((2.0_f64, 0.0_f64), |(least, most), time| {
            (least.min(time), most.max(time))
        });
        assert!((0.75..0.76).contains(&least) && (1.24..=1.25).contains(&most));
        assert_eq!(jittered(second, 0.0, 7), second);
    }
}
