//! Numbers of things that there may be at once.

use std::cell::Cell;
use std::rc::Rc;

use crate::zone::SharedCount;

/// Things of one kind, of which there may be so many at once.
#[derive(Clone, Debug)]
pub struct Gate(Rc<Counted>);

#[derive(Debug)]
struct Counted {
    /// Those of this worker.
    now: Cell<u32>,
    most: u32,
    /// Those of all workers. `None`: this worker's alone are bounded.
    of_all: Option<SharedCount>,
}

/// Place among the things that a [`Gate`] counts, until it is dropped.
#[derive(Debug)]
pub struct Permit(Rc<Counted>);

/// Times that a place is claimed which another worker claims at the same moment.
const CLAIMS: u32 = 16;

impl Gate {
    /// Bounds what this worker has.
    pub fn new(most: u32) -> Self {
        Self::over(most, None)
    }

    /// Bounds what all workers have together.
    pub fn over(most: u32, of_all: Option<SharedCount>) -> Self {
        Self(Rc::new(Counted {
            now: Cell::new(0),
            most,
            of_all,
        }))
    }

    /// Counts one more; `None`: there are as many as there may be.
    pub fn enter(&self) -> Option<Permit> {
        let counted = &self.0;
        let has_room = counted.now.get() < counted.most;
        let is_in = has_room
            && match &counted.of_all {
                None => {
                    counted.add(1);
                    true
                }
                Some(of_all) => counted.claim(of_all),
            };
        is_in.then(|| Permit(Rc::clone(counted)))
    }
}

impl Counted {
    fn add(&self, change: i32) {
        let now = self.now.get().saturating_add_signed(change);
        self.now.set(now);
        if let Some(of_all) = &self.of_all {
            of_all.publish(now);
        }
    }

    /// Counts one more, if all workers then have no more than they may.
    ///
    /// Each worker counts its own before it looks at the others', so that two never take the last place together. Both may find
    /// it taken then, and look again.
    fn claim(&self, of_all: &SharedCount) -> bool {
        for _ in 0..CLAIMS {
            self.add(1);
            if of_all.sum() <= self.most {
                return true;
            }
            self.add(-1);
            if of_all.sum() >= self.most {
                return false;
            }
        }
        false
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::{Half, PeersZone};

    #[test]
    fn no_more_enter_than_may_and_who_leaves_makes_room() {
        let gate = Gate::new(2);
        let (first, second) = (gate.enter(), gate.enter());
        assert!(first.is_some() && second.is_some() && gate.enter().is_none());
        drop(first);
        let third = gate.enter();
        assert!(third.is_some() && gate.enter().is_none());
        assert!(Gate::new(0).enter().is_none());
    }

    #[test]
    fn what_all_have_is_bounded_together() {
        let zone = Rc::new(PeersZone::create().unwrap());
        zone.take_cells(1).unwrap();
        let gate = |row| {
            zone.take_row(row).unwrap();
            Gate::over(3, SharedCount::new(&zone, row, 0, Half::Upper))
        };
        let (here, there) = (gate(1), gate(2));
        let held = [here.enter(), there.enter(), there.enter()];
        assert!(held.iter().all(Option::is_some));
        assert!(here.enter().is_none() && there.enter().is_none());
        drop(held);
        let all = [(); 3].map(|()| here.enter());
        assert!(all.iter().all(Option::is_some), "no part is another's");
        assert!(there.enter().is_none());
        // The master clears what a worker had that has ended.
        zone.clear_row(1);
        assert!(there.enter().is_some());
    }
}
