//! Random numbers from the system's secure source, fit for secrets.
//!
//! ```
//! use castling_sdk::prelude::*;
//! use castling_sdk::testing;
//!
//! /// One request in ten.
//! fn is_sampled() -> bool {
//!     random::below(10) == 0
//! }
//!
//! testing::script_random([20, 7]);
//! assert!(is_sampled());
//! assert!(!is_sampled());
//! ```

use crate::host;

/// Fills `bytes`.
pub fn bytes(bytes: &mut [u8]) {
    // The host gives no more in one call.
    const MOST_BYTES: usize = 256;
    for piece in bytes.chunks_mut(MOST_BYTES) {
        host::random_get(piece);
    }
}

/// Any number.
pub fn u64() -> u64 {
    let mut bytes = [0; 8];
    host::random_get(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// A number below `bound`; 0 when that is 0. Even up to one part in 2^64 / `bound`.
pub fn below(bound: usize) -> usize {
    let Ok(bound) = u64::try_from(bound) else {
        return 0;
    };
    let number = u64().checked_rem(bound).unwrap_or(0);
    usize::try_from(number).unwrap_or(0)
}
