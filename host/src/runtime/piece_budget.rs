//! Turns of those who have much to do at once.

/// Pieces of a body, or requests, that are worked on in a row without a wait: after [`PIECES`] of them others have
/// their turn. One read may bring many of them, a byte each.
#[derive(Default)]
pub struct PieceBudget(u32);

/// Pieces before others have their turn.
const PIECES: u32 = 64;

impl PieceBudget {
    /// No piece yet.
    pub const NONE: Self = Self(0);

    /// Counts one, before it is worked on.
    pub async fn next(&mut self) {
        if self.is_turn_over() {
            tokio::task::yield_now().await;
        }
    }

    /// Counts one, without a future. True: [`tokio::task::yield_now`] is to be waited for before it is worked on.
    #[inline]
    pub fn is_turn_over(&mut self) -> bool {
        self.0 += 1;
        let is_over = self.0 >= PIECES;
        if is_over {
            self.0 = 0;
        }
        is_over
    }
}
