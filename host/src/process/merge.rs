//! Reloads asked for while one runs.

/// Waiters of the running reload and of the next. A request that comes while a reload runs cannot be answered by it (it may
/// have read the config already), so it waits for the next; all that wait for the next share it.
#[derive(Debug)]
pub struct Merge<W> {
    state: State<W>,
}

#[derive(Debug)]
enum State<W> {
    Idle,
    Running {
        now: Vec<W>,
        next: Vec<W>,
        /// Reason why the running reload has not begun in earnest, in a line for a person.
        held_up_by: Option<String>,
    },
}

impl<W> State<W> {
    fn running(now: Vec<W>) -> Self {
        Self::Running {
            now,
            next: Vec::new(),
            held_up_by: None,
        }
    }
}

impl<W> Default for Merge<W> {
    fn default() -> Self {
        Self { state: State::Idle }
    }
}

impl<W> Merge<W> {
    /// Takes a request; true when the caller has to start a reload now.
    pub fn request(&mut self, waiter: W) -> bool {
        match &mut self.state {
            State::Idle => {
                self.state = State::running(vec![waiter]);
                true
            }
            State::Running { next, .. } => {
                next.push(waiter);
                false
            }
        }
    }

    /// Has the running reload answer also those who have come since: it has not begun in earnest.
    pub fn take_in(&mut self) {
        if let State::Running { now, next, .. } = &mut self.state {
            now.append(next);
        }
    }

    /// The reason why the running reload waits.
    pub fn held_up_by(&self) -> Option<&str> {
        match &self.state {
            State::Idle => None,
            State::Running { held_up_by, .. } => held_up_by.as_deref(),
        }
    }

    /// Notes why the running reload waits, for those who ask meanwhile.
    pub fn hold_up(&mut self, reason: String) {
        if let State::Running { held_up_by, .. } = &mut self.state {
            *held_up_by = Some(reason);
        }
    }

    /// Notes that the running reload waits no longer.
    pub fn go_on(&mut self) {
        if let State::Running { held_up_by, .. } = &mut self.state {
            *held_up_by = None;
        }
    }

    /// Waiters for the running reload and for the next one.
    pub fn waiters(&self) -> impl Iterator<Item = &W> {
        let (now, next) = match &self.state {
            State::Idle => (&[][..], &[][..]),
            State::Running { now, next, .. } => (&now[..], &next[..]),
        };
        now.iter().chain(next)
    }

    /// Ends the running reload: returns who is to be told, and whether the next has to start now.
    pub fn finished(&mut self) -> (Vec<W>, bool) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => (Vec::new(), false),
            State::Running { now, next, .. } if next.is_empty() => (now, false),
            State::Running { now, next, .. } => {
                self.state = State::running(next);
                (now, true)
            }
        }
    }

    /// Drops all waiters: no reload runs any more.
    pub fn clear(&mut self) {
        self.state = State::Idle;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_during_a_reload_share_the_next_one() {
        let mut merge = Merge::default();
        assert!(merge.request("first"));
        assert!(!merge.request("second"));
        assert!(!merge.request("third"));
        assert_eq!(merge.finished(), (vec!["first"], true));
        assert!(!merge.request("fourth"));
        assert_eq!(merge.finished(), (vec!["second", "third"], true));
        assert_eq!(merge.finished(), (vec!["fourth"], false));
        assert!(merge.request("fifth"));
    }

    #[test]
    fn a_reload_that_waits_answers_all_who_come_meanwhile() {
        let mut merge = Merge::default();
        assert!(merge.request("first"));
        assert!(!merge.request("second"));
        merge.take_in();
        assert_eq!(merge.waiters().collect::<Vec<_>>(), [&"first", &"second"]);
        assert!(!merge.request("third"));
        assert_eq!(merge.finished(), (vec!["first", "second"], true));
        assert_eq!(merge.finished(), (vec!["third"], false));
        merge.take_in();
        assert_eq!(merge.waiters().next(), None);
    }

    #[test]
    fn a_reason_to_wait_ends_with_its_reload() {
        let mut merge = Merge::default();
        merge.hold_up("nothing runs".to_owned());
        assert_eq!(merge.held_up_by(), None);
        merge.request("first");
        merge.request("second");
        merge.hold_up("no room".to_owned());
        assert_eq!(merge.held_up_by(), Some("no room"));
        assert_eq!(merge.finished(), (vec!["first"], true));
        assert_eq!(merge.held_up_by(), None);
        merge.hold_up("no room".to_owned());
        merge.go_on();
        assert_eq!(merge.held_up_by(), None);
        merge.clear();
        assert_eq!(merge.waiters().count(), 0);
        assert!(merge.request("third"));
    }

    #[test]
    fn the_end_of_nothing_starts_nothing() {
        assert_eq!(Merge::<()>::default().finished(), (vec![], false));
    }
}
