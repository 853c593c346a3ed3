//! Levels of peers: those of the own zone, those of other zones, and backups. Requests stay in the first level while enough of
//! it is available; the more is missing, the more goes to the second (Envoy's priority levels). Backups get requests when nobody
//! else is left (nginx `backup`).

/// Weights of a level.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Level {
    /// Weight of the peers that may be chosen.
    pub(super) available: f64,
    /// Weight of all of them.
    pub(super) total: f64,
}

/// Levels: peers of the own zone (all, where zones do not matter), of other zones, and backups.
pub(super) const LEVELS: usize = 3;
pub(super) const OWN_ZONE: usize = 0;
pub(super) const OTHER_ZONES: usize = 1;
pub(super) const BACKUP: usize = 2;

/// A level takes its share until less than 1 of this is available (Envoy `overprovisioning_factor`).
const OVERPROVISIONING: f64 = 1.4;

/// Chooses a level for each request.
#[derive(Debug)]
pub(super) struct Levels {
    /// Share of the requests that is for this level and those before it, of 2^32.
    up_to: [u32; LEVELS],
    /// Shares are taken in turns, as far from each other as can be, and not drawn.
    turn: u32,
}

impl Levels {
    pub(super) fn new(levels: [Level; LEVELS]) -> Self {
        let shares = shares(levels);
        let mut sum = 0.0;
        let mut up_to = shares.map(|share| {
            sum += share;
            // Saturates at the most that there is.
            (sum * (1_u64 << 32) as f64) as u32
        });
        // The last one has what rounding leaves.
        let last = shares.iter().rposition(|&share| share > 0.0);
        up_to[last.unwrap_or(BACKUP)..].fill(u32::MAX);
        Self { up_to, turn: 0 }
    }

    /// Level of the next request.
    #[inline]
    pub(super) fn next(&mut self) -> usize {
        // Multiples of the golden ratio, modulo 1.
        self.turn = self.turn.wrapping_add(0x9E37_79B9);
        let turn = self.turn;
        let level = self
            .up_to
            .iter()
            .position(|&up_to| turn < up_to || up_to == u32::MAX);
        level.unwrap_or(BACKUP)
    }
}

/// Share of the requests of each level; all are 0 where nothing is available.
fn shares(levels: [Level; LEVELS]) -> [f64; LEVELS] {
    let mut health = levels.map(|level| match level.total > 0.0 {
        true => (OVERPROVISIONING * level.available / level.total).min(1.0),
        false => 0.0,
    });
    if health[..BACKUP].iter().any(|&health| health > 0.0) {
        health[BACKUP] = 0.0;
    }
    let sum = health.iter().sum::<f64>().min(1.0);
    let mut left = 1.0_f64;
    health.map(|health| {
        let share = match sum > 0.0 {
            true => (health / sum).min(left),
            false => 0.0,
        };
        left -= share;
        share
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn levels(levels: [(f64, f64); LEVELS]) -> [Level; LEVELS] {
        levels.map(|(available, total)| Level { available, total })
    }

    fn percents(given: [(f64, f64); LEVELS]) -> [u32; LEVELS] {
        shares(levels(given)).map(|share| (share * 100.0).round() as u32)
    }

    #[test]
    fn requests_stay_in_the_zone_while_enough_of_it_is_available() {
        assert_eq!(
            percents([(10.0, 10.0), (10.0, 10.0), (1.0, 1.0)]),
            [100, 0, 0]
        );
        // 1 / 1.4 is 71 %.
        assert_eq!(
            percents([(72.0, 100.0), (1.0, 1.0), (1.0, 1.0)]),
            [100, 0, 0]
        );
        assert_eq!(
            percents([(50.0, 100.0), (1.0, 1.0), (1.0, 1.0)]),
            [70, 30, 0]
        );
        assert_eq!(
            percents([(0.0, 100.0), (1.0, 1.0), (1.0, 1.0)]),
            [0, 100, 0]
        );
        assert_eq!(percents([(0.0, 0.0), (1.0, 2.0), (1.0, 1.0)]), [0, 100, 0]);
    }

    #[test]
    fn what_both_zones_lack_is_shared_by_what_they_have() {
        assert_eq!(
            percents([(25.0, 100.0), (25.0, 100.0), (1.0, 1.0)]),
            [50, 50, 0]
        );
        assert_eq!(
            percents([(10.0, 100.0), (30.0, 100.0), (1.0, 1.0)]),
            [25, 75, 0]
        );
    }

    #[test]
    fn backups_are_for_when_nobody_else_is_left() {
        assert_eq!(percents([(0.0, 9.0), (1.0, 99.0), (1.0, 1.0)]), [0, 100, 0]);
        assert_eq!(percents([(0.0, 9.0), (0.0, 0.0), (1.0, 9.0)]), [0, 0, 100]);
        assert_eq!(percents([(0.0, 9.0), (0.0, 0.0), (0.0, 9.0)]), [0, 0, 0]);
    }

    #[test]
    fn requests_are_dealt_out_by_share() {
        let mut policy = Levels::new(levels([(50.0, 100.0), (1.0, 1.0), (1.0, 1.0)]));
        let mut counts = [0; LEVELS];
        for n in 1..=1000 {
            counts[policy.next()] += 1;
            let share = f64::from(n) * 0.7;
            assert!((f64::from(counts[0]) - share).abs() < 3.0, "{counts:?}");
        }
        assert_eq!(counts[BACKUP], 0);
        let mut whole = Levels::new(levels([(1.0, 1.0), (1.0, 1.0), (1.0, 1.0)]));
        assert!((0..10_000).all(|_| whole.next() == 0));
        let mut none = Levels::new(levels([(0.0, 1.0); 3]));
        assert_eq!(none.next(), BACKUP);
    }

    proptest! {
        #[test]
        fn shares_are_whole_where_anything_is_available(
            given in prop::array::uniform3((0_u16.., 1_u16..)),
        ) {
            let given = given.map(|(available, total)| {
                (f64::from(available.min(total)), f64::from(total))
            });
            let shares = shares(levels(given));
            let is_any = given.iter().any(|(available, _)| *available > 0.0);
            let sum: f64 = shares.iter().sum();
            prop_assert!((sum - f64::from(u8::from(is_any))).abs() < 1e-9);
            for (share, (available, _)) in shares.iter().zip(given) {
                prop_assert!(*share >= 0.0 && (*share == 0.0 || available > 0.0));
            }
        }
    }
}
