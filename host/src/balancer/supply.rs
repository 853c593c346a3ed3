//! Whom there is to choose from, and what the log is told of it.

use std::time::Instant;

use tracing::{info, warn};

use crate::log::Changes;

/// Whom the policy has to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Supply {
    /// Peers that are available, as many as there have to be.
    Enough,
    /// All primaries, whatever their health: fewer are available than `panic_threshold` says.
    TooFew,
    /// Peers that are passed over for their failures, as no other is left.
    PassedOver,
    Nobody,
}

/// Log of it, in which an upstream whose peers flap has two lines in ten seconds.
pub(super) struct SupplyLog(Changes<Supply>);

impl Default for SupplyLog {
    fn default() -> Self {
        Self(Changes::new(Supply::Enough))
    }
}

impl SupplyLog {
    /// Notes whom there is to choose from now, and tells it where that is another than before. Returns when it is to be noted
    /// again, as too much was told to tell this.
    pub(super) fn note(&mut self, upstream: &str, supply: Supply, now_ns: u64) -> u64 {
        let now = Instant::now();
        let Some(untold) = self.0.note(supply, now) else {
            let after = self.0.due().map(|due| due.saturating_duration_since(now));
            let after_ns = after.and_then(|after| u64::try_from(after.as_nanos()).ok());
            return after_ns.map_or(u64::MAX, |after_ns| now_ns.saturating_add(after_ns));
        };
        let untold = (untold > 0).then_some(untold);
        match supply {
            Supply::Enough => info!(upstream, untold, "enough peers are available again"),
            Supply::TooFew => warn!(
                upstream,
                untold,
                "fewer peers are available than `panic_threshold` says: all are chosen from"
            ),
            Supply::PassedOver => warn!(
                upstream,
                untold,
                "no peer is available: those that are passed over for their failures are tried"
            ),
            Supply::Nobody => warn!(upstream, untold, "no peer is available"),
        }
        u64::MAX
    }
}
