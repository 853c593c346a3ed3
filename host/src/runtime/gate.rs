//! Numbers of things that there may be at once.

use std::cell::Cell;
use std::rc::Rc;

/// Things of one kind, of which there may be so many at once.
#[derive(Clone, Debug)]
pub struct Gate(Rc<Counted>);

#[derive(Debug)]
struct Counted {
    now: Cell<u32>,
    most: u32,
}

/// Place among the things that a [`Gate`] counts, until it is dropped.
#[derive(Debug)]
pub struct Permit(Rc<Counted>);

impl Gate {
    pub fn new(most: u32) -> Self {
        Self(Rc::new(Counted {
            now: Cell::new(0),
            most,
        }))
    }

    /// Counts one more; `None`: there are as many as there may be.
    pub fn enter(&self) -> Option<Permit> {
        let Counted { now, most } = &*self.0;
        let has_room = now.get() < *most;
        has_room.then(|| {
            now.set(now.get() + 1);
            Permit(Rc::clone(&self.0))
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.now.set(self.0.now.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
