//! Time-outs that cost a request next to nothing.
//!
//! A tokio timer is registered and taken out again for every wait (107 ns, by the docs of pingora-timeout). Here a
//! connection or a workspace owns its [`Alarm`]s for its whole life, and to arm one is to write a number. One task of
//! the worker looks at all of them when the earliest is due; with time-outs of seconds it sleeps for seconds.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::runtime::clock;

/// Time ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

/// Alarm that limits one wait at a time.
pub struct Alarm {
    slot: Rc<Slot>,
    list: Rc<AlarmList>,
}

struct Slot {
    /// `None`: not armed.
    deadline: Cell<Option<Instant>>,
    waker: RefCell<Option<Waker>>,
    /// Begin of the wait.
    since: Cell<Instant>,
    /// Group whose waits may be ended early: see [`Alarms::end_longest`].
    group: Cell<usize>,
    /// Position in the list.
    position: Cell<usize>,
}

/// All alarms of a worker.
struct AlarmList {
    slots: RefCell<Vec<Rc<Slot>>>,
    /// When the watch looks next; `None` while it sleeps without an end.
    next_look: Cell<Option<Instant>>,
    /// An alarm was armed for earlier than `next_look`.
    earlier: Notify,
    /// The watch looks at most this often, so a time-out comes up to this late.
    grain: Duration,
}

/// Resolution of a request's alarms, of which there are no more than requests under way.
pub const FINE: Duration = Duration::from_millis(10);

/// Resolution of the alarms of idle connections. There may be very many, and each look passes over all of them.
pub const COARSE: Duration = Duration::from_millis(100);

/// Group of alarms whose waits are not ended early.
pub const NO_GROUP: usize = 0;

/// The alarms of one worker. Clones share them.
#[derive(Clone)]
pub struct Alarms(Rc<AlarmList>);

impl Alarms {
    /// `grain`: so late a time-out may come.
    pub fn new(grain: Duration) -> Self {
        Self(Rc::new(AlarmList {
            slots: RefCell::default(),
            next_look: Cell::new(None),
            earlier: Notify::new(),
            grain,
        }))
    }

    pub fn alarm(&self) -> Alarm {
        let mut slots = self.0.slots.borrow_mut();
        let slot = Rc::new(Slot {
            deadline: Cell::new(None),
            waker: RefCell::new(None),
            since: Cell::new(Instant::now()),
            group: Cell::new(NO_GROUP),
            position: Cell::new(slots.len()),
        });
        slots.push(Rc::clone(&slot));
        Alarm {
            slot,
            list: Rc::clone(&self.0),
        }
    }

    /// Wakes all whose wait is limited by one of these; their time goes on.
    pub fn wake_all(&self) {
        for slot in &*self.0.slots.borrow() {
            if slot.deadline.get().is_some() {
                slot.wake();
            }
        }
    }

    /// Ends the longest waits of a group, at most so many, as if their time were over. Returns how many there were.
    pub fn end_longest(&self, group: usize, most: usize) -> usize {
        let slots = self.0.slots.borrow();
        let waits = |slot: &&Rc<Slot>| slot.group.get() == group && slot.deadline.get().is_some();
        let mut waiting: Vec<&Rc<Slot>> = slots.iter().filter(waits).collect();
        if waiting.len() > most {
            waiting.select_nth_unstable_by_key(most, |slot| slot.since.get());
            waiting.truncate(most);
        }
        let now = Instant::now();
        for slot in &waiting {
            slot.deadline.set(Some(now));
            slot.wake();
        }
        waiting.len()
    }

    /// Rings the alarms that are due, for ever. Run by one task of the worker.
    pub async fn watch(self) {
        let list = self.0;
        loop {
            let earlier = list.earlier.notified();
            match list.wake_due(Instant::now()) {
                Some(next) => {
                    let next = next.max(Instant::now() + list.grain);
                    list.next_look.set(Some(next));
                    tokio::select! {
                        () = tokio::time::sleep_until(next.into()) => {}
                        () = earlier => tokio::time::sleep(list.grain).await,
                    }
                }
                None => {
                    list.next_look.set(None);
                    earlier.await;
                }
            }
        }
    }
}

impl Slot {
    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl AlarmList {
    /// Wakes those whose time has come; returns when the next one is due.
    fn wake_due(&self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for slot in &*self.slots.borrow() {
            let Some(deadline) = slot.deadline.get() else {
                continue;
            };
            if deadline <= now {
                slot.wake();
            } else if next.is_none_or(|next| deadline < next) {
                next = Some(deadline);
            }
        }
        next
    }
}

impl Alarm {
    /// Runs `work` for `limit` at most, from when it has to wait first. Work that is ready at once never touches the
    /// clock.
    pub async fn limit<F: Future>(&self, limit: Duration, work: F) -> Result<F::Output, Elapsed> {
        let mut work = pin!(work);
        let _disarm = Disarm(&self.slot);
        let mut has_waited = false;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            match self.slot.deadline.get() {
                None => self.start(limit),
                Some(deadline) if has_waited && deadline <= clock::now() => {
                    return Poll::Ready(Err(Elapsed));
                }
                // Begun by `start`, in this turn: the clock would say nothing new, and it costs a look for each idle connection.
                Some(_) => {}
            }
            has_waited = true;
            self.wake_later(cx);
            Poll::Pending
        })
        .await
    }

    /// Lets [`Alarms::end_longest`] end its waits, or with [`NO_GROUP`] no more.
    pub fn join(&self, group: usize) {
        self.slot.group.set(group);
    }

    /// Ready when so much time has passed since the first call. What is returned by [`Self::disarmed`] must outlive the
    /// calls.
    pub fn poll_elapsed(&self, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        match self.slot.deadline.get() {
            None => self.start(limit),
            Some(deadline) if deadline <= clock::now() => return Poll::Ready(()),
            Some(_) => {}
        }
        self.wake_later(cx);
        Poll::Pending
    }

    /// Ends the wait: the next one begins anew.
    pub fn disarm(&self) {
        self.slot.deadline.set(None);
    }

    /// Disarms the alarm when it is dropped.
    pub fn disarmed(&self) -> Disarm<'_> {
        Disarm(&self.slot)
    }

    fn wake_later(&self, cx: &mut Context<'_>) {
        let mut waker = self.slot.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|known| known.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
    }

    /// The next wait that this alarm limits has begun already, with this limit. That wait is polled in the same turn, for the
    /// first time.
    pub fn start(&self, limit: Duration) {
        let now = clock::now();
        let deadline = now + limit;
        self.slot.since.set(now);
        self.slot.deadline.set(Some(deadline));
        if self.list.next_look.get().is_none_or(|next| deadline < next) {
            self.list.earlier.notify_one();
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let mut slots = self.list.slots.borrow_mut();
        let position = self.slot.position.get();
        slots.swap_remove(position);
        if let Some(moved) = slots.get(position) {
            moved.position.set(position);
        }
    }
}

/// Disarms the alarm when the wait ends, however it ends. The waker stays: the next wait is mostly the same task's.
pub struct Disarm<'a>(&'a Slot);

impl Drop for Disarm<'_> {
    fn drop(&mut self) {
        self.0.deadline.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }

    const SHORT: Duration = Duration::from_millis(30);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn work_that_takes_too_long_elapses() {
        run(async {
            let alarms = Alarms::new(FINE);
            tokio::task::spawn_local(alarms.clone().watch());
            let before = Instant::now();
            let result = alarms
                .alarm()
                .limit(SHORT, std::future::pending::<()>())
                .await;
            assert_eq!(result, Err(Elapsed));
            assert!(before.elapsed() >= SHORT);
        });
    }

    #[test]
    fn an_alarm_armed_later_for_earlier_rings_first() {
        run(async {
            let alarms = Alarms::new(FINE);
            tokio::task::spawn_local(alarms.clone().watch());
            let (slow, quick) = (alarms.alarm(), alarms.alarm());
            let long = tokio::task::spawn_local(async move {
                slow.limit(LONG, std::future::pending::<()>()).await
            });
            // The watch has planned its next look for the slow one by then.
            while alarms.0.next_look.get().is_none() {
                tokio::task::yield_now().await;
            }
            let before = Instant::now();
            assert_eq!(
                quick.limit(SHORT, std::future::pending::<()>()).await,
                Err(Elapsed)
            );
            assert!(before.elapsed() < LONG);
            assert!(!long.is_finished());
        });
    }

    #[test]
    fn work_that_is_done_in_time_disarms() {
        run(async {
            let alarms = Alarms::new(FINE);
            tokio::task::spawn_local(alarms.clone().watch());
            let alarm = alarms.alarm();
            assert_eq!(alarm.limit(LONG, tokio::task::yield_now()).await, Ok(()));
            assert_eq!(alarm.slot.deadline.get(), None);
        });
    }

    #[test]
    fn a_dropped_alarm_leaves_the_others_in_place() {
        run(async {
            let alarms = Alarms::new(FINE);
            tokio::task::spawn_local(alarms.clone().watch());
            let mut kept: Vec<Alarm> = (0..3).map(|_| alarms.alarm()).collect();
            drop(kept.remove(0));
            for alarm in kept {
                assert_eq!(
                    alarm.limit(SHORT, std::future::pending::<()>()).await,
                    Err(Elapsed)
                );
            }
            assert!(alarms.0.slots.borrow().is_empty());
        });
    }
}
