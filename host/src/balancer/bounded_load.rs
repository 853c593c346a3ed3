//! Bounded loads: a peer that has too many requests under way passes further ones on (Mirrokni, Thorup and Zadimoghaddam,
//! "Consistent Hashing with Bounded Loads", 2016).

/// How many requests a peer may have, at this moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// Requests for each unit of weight.
    per_weight: f64,
}

impl Bound {
    /// `factor`: how much more than the average a peer may have, at least 1. `active` and `weight`: those of all peers that may be
    /// chosen, together.
    #[inline]
    pub(super) fn new(factor: f64, active: f64, weight: f64) -> Self {
        // This request counts.
        let requests = active + 1.0;
        Self {
            per_weight: factor * requests / weight,
        }
    }

    /// Whether a peer with so many requests may have one more. One of all always may: together, they may have more than they do.
    #[inline]
    pub(super) fn admits(self, active: u32, weight: f64) -> bool {
        f64::from(active) < (self.per_weight * weight).ceil()
    }
}
