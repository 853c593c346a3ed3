//! Calls out that a request has made, against `limits.calls`.

use std::cell::Cell;

/// Counts so many more. False: they would be more than the limit.
pub(super) fn count_more(made: &Cell<usize>, more: usize, limit: usize) -> bool {
    let all = made.get() + more;
    if all > limit {
        return false;
    }
    made.set(all);
    true
}
