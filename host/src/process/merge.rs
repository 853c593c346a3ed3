//! Reloads asked for while one runs.

/// Who waits for which reload. A request that comes while a reload runs cannot be answered by it (it may have read the
/// config already), so it waits for the next; all that wait for the next share it.
#[derive(Debug)]
pub struct Merge<W> {
    state: State<W>,
}

#[derive(Debug)]
enum State<W> {
    Idle,
    Running { now: Vec<W>, next: Vec<W> },
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
                self.state = State::Running {
                    now: vec![waiter],
                    next: Vec::new(),
                };
                true
            }
            State::Running { next, .. } => {
                next.push(waiter);
                false
            }
        }
    }

    /// The running reload has not begun in earnest: it answers also those who have come since.
    pub fn take_in(&mut self) {
        if let State::Running { now, next } = &mut self.state {
            now.append(next);
        }
    }

    /// Waiters for the running reload and for the next one.
    pub fn waiters(&self) -> impl Iterator<Item = &W> {
        let (now, next) = match &self.state {
            State::Idle => (&[][..], &[][..]),
            State::Running { now, next } => (&now[..], &next[..]),
        };
        now.iter().chain(next)
    }

    /// The running reload has ended: who is to be told, and whether the next has to start now.
    pub fn finished(&mut self) -> (Vec<W>, bool) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => (Vec::new(), false),
            State::Running { now, next } if next.is_empty() => (now, false),
            State::Running { now, next } => {
                self.state = State::Running {
                    now: next,
                    next: Vec::new(),
                };
                (now, true)
            }
        }
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
    fn the_end_of_nothing_starts_nothing() {
        assert_eq!(Merge::<()>::default().finished(), (vec![], false));
    }
}
