//! How long a connection to a peer is used, and for how many requests.

use std::time::Instant;

/// Bounds of the use of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    /// Moment from which it takes no further request. `None`: none.
    pub expires: Option<Instant>,
    /// Requests that it still takes, the present one included. More than can ever be: any number.
    pub requests_left: u32,
}

impl Life {
    /// Any age, any number of requests.
    #[cfg(test)]
    pub const ENDLESS: Self = Self {
        expires: None,
        requests_left: u32::MAX,
    };

    /// Counts a request that has ended. Whether the connection takes another one, for all that is known here.
    #[inline]
    pub fn has_more(&mut self) -> bool {
        self.requests_left = self.requests_left.saturating_sub(1);
        self.requests_left > 0
    }

    pub fn is_over(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}
