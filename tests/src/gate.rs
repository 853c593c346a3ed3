//! An origin that answers when the test says so.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::origin::Origin;
use crate::{raw_origin, until};

/// Origin that answers when the test says so.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<Asked>, Condvar)>);

#[derive(Default)]
struct Asked {
    count: usize,
    answered: BTreeSet<usize>,
    is_open: bool,
}

impl Gate {
    /// Origin that answers each request with these bytes, when it is let to.
    pub fn origin(&self, answer: &'static str) -> Origin {
        let gate = self.clone();
        raw_origin::scripted(move |connection, _| {
            loop {
                connection.read_head()?;
                gate.pass();
                connection.send(answer);
            }
        })
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.state().count
    }

    fn state(&self) -> MutexGuard<'_, Asked> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it may answer; the number of the request, from 0 on.
    pub fn pass(&self) -> usize {
        let mut asked = self.state();
        let number = asked.count;
        asked.count += 1;
        let waits = |asked: &mut Asked| !asked.is_open && !asked.answered.contains(&number);
        drop(self.0.1.wait_while(asked, waits));
        number
    }

    /// Lets it answer the request of this number, from 0 on.
    pub fn answer(&self, number: usize) {
        self.state().answered.insert(number);
        self.0.1.notify_all();
    }

    /// Lets it answer all.
    pub fn open(&self) {
        self.state().is_open = true;
        self.0.1.notify_all();
    }

    /// Waits until it was asked so often, and not more often.
    #[track_caller]
    pub fn until_asked(&self, count: usize) {
        until(&format!("the origin was asked {count} times"), || {
            self.asked() >= count
        });
        assert_eq!(self.asked(), count);
    }
}
