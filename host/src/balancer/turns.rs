//! Turns by weight: each takes its turns at even steps of a virtual time, and the one whose step ends first is
//! next (earliest deadline first).
//!
//! A step is the inverse of the weight, so that in any time of 1 each takes as many turns as its weight says. The first step of
//! each is cut to another fraction: those of one weight take turns at different times, which mixes them among the others, and the
//! workers of a gateway begin with different peers.

/// Virtual time in fixed point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Deadline(pub(super) u64);

/// The virtual time of a set of peers.
#[derive(Debug, Default)]
pub(super) struct Turns {
    now: u64,
}

impl Turns {
    /// Deadline of a first turn. `phase`: the number of the peer in the set, counted from a start that is random.
    pub(super) fn first(phase: u32, weight: f64) -> Deadline {
        // Multiples of the golden ratio, modulo 1, are spread as evenly as can be, however many there are.
        let fraction = f64::from(phase.wrapping_mul(GOLDEN)) / f64::from(u32::MAX);
        Deadline((fraction * SCALE / weight) as u64)
    }

    /// Takes the turn that this was the deadline of: returns the one of the next.
    #[inline]
    pub(super) fn take(&mut self, deadline: Deadline, weight: f64) -> Deadline {
        // Turns that had to be let pass are not made up for: the one that is late begins anew from now.
        self.now = self.now.max(deadline.0);
        Deadline(self.now + (SCALE / weight) as u64)
    }

    /// How far all deadlines are to be moved back before the time runs over, mostly not at all: a day of 50,000 requests a
    /// second to two peers.
    pub(super) fn overdue(&mut self) -> Option<u64> {
        match self.now < REBASE {
            true => None,
            false => Some(std::mem::take(&mut self.now)),
        }
    }
}

impl Deadline {
    pub(super) fn moved_back(self, by: u64) -> Self {
        Self(self.0.saturating_sub(by))
    }
}

/// A time of 1. With it, a step of the largest weight is right to 5 digits.
const SCALE: f64 = (1_u64 << 32) as f64;
const REBASE: u64 = 1 << 63;
const GOLDEN: u32 = 0x9E37_79B9;

#[cfg(test)]
impl Turns {
    /// Virtual time about to run over.
    pub(super) fn late() -> Self {
        Self { now: REBASE - 1 }
    }
}
