//! Calls that wait for an instance. Each route has a line of its own, and they take turns: a route whose calls wait by the hundred keeps
//! those of another waiting for one of its own.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::oneshot;

/// Calls of a share that wait for an instance.
#[derive(Default)]
pub(super) struct Queue {
    lines: RefCell<Lines>,
    /// Instances that were promised to calls which have not taken them yet.
    promised: Rc<Cell<usize>>,
}

/// Lines by route; the one in front has the next turn. None is empty, but for calls that have left.
#[derive(Default)]
struct Lines {
    lines: VecDeque<Line>,
    calls: usize,
}

struct Line {
    /// Name of the route; empty for calls of none.
    route: Arc<str>,
    calls: VecDeque<oneshot::Sender<Turn>>,
}

/// Promise of an instance, kept until the call has taken one or has left.
pub(super) struct Turn(Rc<Cell<usize>>);

impl Turn {
    fn of(promised: &Rc<Cell<usize>>) -> Self {
        promised.set(promised.get() + 1);
        Self(Rc::clone(promised))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Outcome of lining up.
pub(super) enum Entry {
    /// The call is told of its turn here. An error: it has lost its place to a call of a route that has fewer.
    Waits(oneshot::Receiver<Turn>),
    /// As many wait as may, and no route has more of them than this one.
    Full,
}

impl Queue {
    /// Instances that calls have been promised.
    #[inline]
    pub(super) fn promised(&self) -> usize {
        self.promised.get()
    }

    /// Lines up behind the calls of the same route. `most`: so many may wait; beyond it, the youngest call of the longest line goes
    /// where that is longer than this one's.
    pub(super) fn enter(&self, route: &str, most: usize) -> Entry {
        let lines = &mut *self.lines.borrow_mut();
        if lines.calls >= most {
            lines.forget_gone();
        }
        if lines.calls >= most && !lines.make_room(route) {
            return Entry::Full;
        }
        let (sender, turn) = oneshot::channel();
        lines.calls += 1;
        match lines.lines.iter_mut().find(|line| *line.route == *route) {
            Some(line) => line.calls.push_back(sender),
            None => lines.lines.push_back(Line {
                route: Arc::from(route),
                calls: VecDeque::from([sender]),
            }),
        }
        Entry::Waits(turn)
    }

    /// Tells the next call that an instance is there for it. False: nobody waits.
    pub(super) fn call_next(&self) -> bool {
        loop {
            let Some(call) = self.lines.borrow_mut().pop() else {
                return false;
            };
            // A call that has left gives its turn back, and the next has it.
            if call.send(Turn::of(&self.promised)).is_ok() {
                return true;
            }
        }
    }
}

impl Lines {
    /// The first call of the route whose turn it is; that comes last then.
    fn pop(&mut self) -> Option<oneshot::Sender<Turn>> {
        while let Some(mut line) = self.lines.pop_front() {
            while let Some(call) = line.calls.pop_front() {
                self.calls -= 1;
                // Calls that have left cost the others of their route no turn.
                if !call.is_closed() {
                    if !line.calls.is_empty() {
                        self.lines.push_back(line);
                    }
                    return Some(call);
                }
            }
        }
        None
    }

    fn forget_gone(&mut self) {
        for line in &mut self.lines {
            line.calls.retain(|call| !call.is_closed());
        }
        self.lines.retain(|line| !line.calls.is_empty());
        self.calls = self.lines.iter().map(|line| line.calls.len()).sum();
    }

    /// Sends the youngest call of the longest line away. False: that is no longer than the route's would become.
    fn make_room(&mut self, route: &str) -> bool {
        let own = self.lines.iter().find(|line| *line.route == *route);
        let own = own.map_or(0, |line| line.calls.len());
        let longest = self.lines.iter_mut().max_by_key(|line| line.calls.len());
        match longest {
            Some(line) if line.calls.len() > own + 1 => {
                line.calls.pop_back();
                self.calls -= 1;
                true
            }
            Some(_) | None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines up; `None`: the queue is full.
    fn enter(queue: &Queue, route: &str, most: usize) -> Option<oneshot::Receiver<Turn>> {
        match queue.enter(route, most) {
            Entry::Waits(turn) => Some(turn),
            Entry::Full => None,
        }
    }

    #[test]
    fn routes_take_turns() {
        let queue = Queue::default();
        let names = ["many", "many", "many", "few", "one", "few"];
        let mut calls: Vec<_> = names.iter().map(|it| enter(&queue, it, 10)).collect();
        let mut order = Vec::new();
        while queue.call_next() {
            let called = calls.iter_mut().position(|call| {
                let turn = call.as_mut().and_then(|call| call.try_recv().ok());
                turn.is_some()
            });
            order.push(names[called.expect("one was called")]);
        }
        assert_eq!(order, ["many", "few", "one", "many", "few", "many"]);
        assert_eq!(queue.promised(), 0);
    }

    #[test]
    fn a_promise_lasts_until_its_call_has_taken_it_or_has_left() {
        let queue = Queue::default();
        let mut first = enter(&queue, "a", 10).unwrap();
        let second = enter(&queue, "a", 10).unwrap();
        let third = enter(&queue, "a", 10);
        assert!(queue.call_next());
        let turn = first.try_recv().unwrap();
        assert_eq!(queue.promised(), 1);
        drop(turn);
        assert_eq!(queue.promised(), 0);
        // A call that has left is passed over.
        drop(third);
        assert!(queue.call_next());
        assert_eq!(queue.promised(), 1);
        drop(second);
        assert_eq!(queue.promised(), 0);
        assert!(!queue.call_next());
    }

    #[test]
    fn calls_that_have_left_cost_their_route_no_turn() {
        let queue = Queue::default();
        drop((0..3).map(|_| enter(&queue, "a", 10)).collect::<Vec<_>>());
        let mut first = enter(&queue, "a", 10).unwrap();
        let mut second = enter(&queue, "b", 10).unwrap();
        assert!(queue.call_next());
        assert!(first.try_recv().is_ok() && second.try_recv().is_err());
        assert!(queue.call_next());
        assert!(second.try_recv().is_ok());
        assert!(!queue.call_next());
    }

    #[test]
    fn a_route_that_has_few_gets_a_place_of_one_that_has_many() {
        let queue = Queue::default();
        let mut many: Vec<_> = (0..3).filter_map(|_| enter(&queue, "many", 3)).collect();
        assert_eq!(many.len(), 3);
        assert!(enter(&queue, "many", 3).is_none());
        let few = enter(&queue, "few", 3);
        assert!(few.is_some());
        assert!(
            many[2]
                .try_recv()
                .is_err_and(|error| error == oneshot::error::TryRecvError::Closed)
        );
        // Two and one: a second of the few would be no better.
        assert!(enter(&queue, "few", 3).is_none());
        // Places of those that have left are there again.
        drop(many);
        assert!(enter(&queue, "few", 3).is_some());
        assert!(enter(&queue, "few", 0).is_none());
    }
}
