//! State of peers that all workers share: what the words of a record mean, and what a worker's row counts.
//!
//! All of it lies in [`PeersZone`], outlives workers, reloads and upgrades, and is there for the master to show. What says
//! which peers may be chosen is cached by each worker: whoever changes it raises the upstream's epoch.

mod facts;

use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::Duration;

use crate::config::{self, CheckStart};
use crate::zone::{Half, Load, PeerRecord, PeersZone, Pinned, SharedCount, ZoneError};
pub use facts::{LastCheck, PeerFacts};

/// The memory as one process sees it.
#[derive(Clone)]
pub struct PeerStates {
    zone: Rc<PeersZone>,
    /// Row that the worker writes to. `None`: what it has under way is not seen by others.
    row: Option<u32>,
}

/// State of one peer, or of one upstream.
#[derive(Clone)]
pub struct PeerState {
    states: PeerStates,
    cell: u32,
    record: Option<Pinned<PeerRecord>>,
    /// This worker's word.
    word: Option<Pinned<AtomicU64>>,
}

/// Whether new requests may be sent to a peer, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    Available,
    /// The operator lets it finish what it has; requests that are bound to it may still come.
    Draining,
    /// The operator has taken it out.
    Down,
    /// Active checks have found it bad.
    Unhealthy,
    /// Active checks have not seen it yet, and it must be seen good before.
    Unchecked,
    /// Passed over because of its failures, until then.
    Ejected {
        until_ns: u64,
    },
}

/// Order of the operator for a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// As the checks say.
    #[default]
    Usual,
    Draining,
    Down,
    /// Available whatever the checks say.
    Up,
}

/// Result of active checks so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CheckState {
    /// Not checked yet.
    #[default]
    None = 0,
    Up = 1,
    Down = 2,
}

/// Weight that active checks of an upstream have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checks {
    /// There are none: what earlier ones have found counts no more.
    None,
    /// A peer may be chosen before it was checked.
    Optimistic,
    Mandatory,
}

impl Checks {
    pub fn of(config: &config::Upstream) -> Self {
        match config.check.as_ref().map(|check| check.start) {
            None => Self::None,
            Some(CheckStart::Optimistic) => Self::Optimistic,
            Some(CheckStart::Mandatory) => Self::Mandatory,
        }
    }
}

impl PeerStates {
    pub fn new(zone: Rc<PeersZone>, row: Option<u32>) -> Self {
        Self { zone, row }
    }

    /// States of some cells that no other process shares.
    pub fn private() -> Result<Self, ZoneError> {
        let zone = PeersZone::create()?;
        zone.take_cells(OWN_CELLS)?;
        zone.take_row(OWN_ROW)?;
        Ok(Self::new(Rc::new(zone), Some(OWN_ROW)))
    }

    /// Handle of a cell, which must have memory; else nothing of it is shared.
    pub fn of(&self, cell: u32) -> PeerState {
        PeerState {
            states: self.clone(),
            cell,
            record: self.zone.hold_record(cell),
            word: self.row.and_then(|row| self.zone.hold_word(row, cell)),
        }
    }
}

/// Cells where no other process shares them: for a thousand peers.
const OWN_CELLS: u32 = 1001;

/// Row of the only process that there is.
const OWN_ROW: u32 = 1;

impl PeerState {
    #[inline]
    fn record(&self) -> &PeerRecord {
        static NOBODY: PeerRecord = PeerRecord::new();
        self.record.as_deref().unwrap_or(&NOBODY)
    }

    /// State of another cell in the same memory.
    #[cfg(test)]
    pub fn neighbour(&self, cell: u32) -> Self {
        self.states.of(cell)
    }

    /// Number of the cell.
    pub fn cell(&self) -> u32 {
        self.cell
    }

    /// Adds what other workers have under way, by cell.
    pub fn add_active_of_others(&self, cells: &[u32], sums: &mut [u32]) {
        let PeerStates { zone, row } = &self.states;
        zone.add_active_of_others(*row, cells, sums);
    }

    /// Tells others what this worker has under way.
    #[inline]
    pub fn publish(&self, active: u32, connections: u32) {
        if let Some(word) = &self.word {
            word.store(u64::from(connections) << 32 | u64::from(active), Relaxed);
        }
    }

    /// A count of this worker's in half of its word, and of all workers'. `None`: the worker has no row.
    pub fn count(&self, half: Half) -> Option<SharedCount> {
        let PeerStates { zone, row } = &self.states;
        SharedCount::new(zone, (*row)?, self.cell, half)
    }

    /// Tells others how many connections this worker has open.
    pub fn publish_connections(&self, connections: u32) {
        if let Some(word) = &self.word {
            let active = word.load(Relaxed) & u64::from(u32::MAX);
            word.store(u64::from(connections) << 32 | active, Relaxed);
        }
    }

    /// Sum over all workers.
    pub fn sum(&self) -> Load {
        self.states.zone.sum(self.cell)
    }

    /// Moving average of the latency, as the policy has it.
    pub fn latency(&self) -> &AtomicU64 {
        &self.record().latency
    }

    /// Word of what an upstream's limiter has learnt. `None`: there is no memory to share.
    pub fn learnt(&self) -> Option<&AtomicU64> {
        self.record.as_deref().map(|record| &record.learnt)
    }

    /// Time at which the peer came up, or came back; 0: it was there from the beginning.
    pub fn came_up_ns(&self) -> u64 {
        let record = self.record();
        let ended = record.ejected_until_ns.load(Relaxed);
        record.up_since_ns.load(Relaxed).max(ended)
    }

    /// Notes that the peer has come to an upstream that serves, or is used again.
    pub fn comes_up(&self, now_ns: u64) {
        self.record().up_since_ns.store(now_ns, Relaxed);
    }

    /// Notes that a peer which had to pass a check first has passed it. One that was there from the beginning has not come up.
    pub fn is_seen_up(&self, now_ns: u64) {
        let since = &self.record().up_since_ns;
        if since.load(Relaxed) != 0 {
            since.store(now_ns, Relaxed);
        }
    }

    /// Number of the changes of an upstream so far.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.record().epoch.load(Acquire)
    }

    /// Tells all workers that peers of this upstream have become available, or no longer are.
    pub fn raise_epoch(&self) {
        self.record().epoch.fetch_add(1, Release);
    }

    /// Whether new requests may be sent to the peer. `now_ns` is asked where it matters.
    pub fn availability(&self, checks: Checks, now_ns: impl FnOnce() -> u64) -> Availability {
        let record = self.record();
        match self.standing() {
            Standing::Up => return Availability::Available,
            Standing::Down => return Availability::Down,
            Standing::Draining => return Availability::Draining,
            Standing::Usual => {}
        }
        match (checks, self.check_state()) {
            (Checks::Optimistic | Checks::Mandatory, CheckState::Down) => {
                return Availability::Unhealthy;
            }
            (Checks::Mandatory, CheckState::None) => return Availability::Unchecked,
            (Checks::None, _) | (_, CheckState::Up) | (Checks::Optimistic, CheckState::None) => {}
        }
        match record.ejected_until_ns.load(Relaxed) {
            0 => Availability::Available,
            until_ns if until_ns <= now_ns() => Availability::Available,
            until_ns => Availability::Ejected { until_ns },
        }
    }

    pub fn standing(&self) -> Standing {
        match self.record().operator.load(Relaxed) & STANDING {
            DRAINING => Standing::Draining,
            DOWN => Standing::Down,
            UP => Standing::Up,
            _ => Standing::Usual,
        }
    }

    /// Weight by the operator's order, in the place of the config's.
    pub fn ordered_weight(&self) -> Option<u32> {
        let weight = (self.record().operator.load(Relaxed) >> 32) as u32;
        (weight > 0).then_some(weight)
    }

    /// Orders this; the caller raises the upstream's epoch. A peer that was down by order comes up.
    pub fn order(&self, standing: Standing, weight: Option<u32>) {
        if self.standing() == Standing::Down && standing != Standing::Down {
            let now_ns = crate::zone::now_ns();
            self.record().up_since_ns.store(now_ns, Relaxed);
        }
        let flags = match standing {
            Standing::Usual => 0,
            Standing::Draining => DRAINING,
            Standing::Down => DOWN,
            Standing::Up => UP,
        };
        let word = u64::from(weight.unwrap_or(0)) << 32 | flags;
        self.record().operator.store(word, Relaxed);
    }

    pub fn check_state(&self) -> CheckState {
        CheckState::of(self.record().check.load(Relaxed))
    }

    /// Notes that the peer has answered. True: it was passed over until now.
    #[inline]
    pub fn note_success(&self) -> bool {
        let record = self.record();
        match record.failures.load(Relaxed) as u32 {
            0 => false,
            _ => forget_failures(record),
        }
    }

    /// Counts a failure of the peer. Returns how many there were in a row.
    pub fn count_failure(&self) -> u32 {
        let failures = &self.record().failures;
        let in_a_row = failures.fetch_add(1, AcqRel) as u32;
        in_a_row.wrapping_add(1)
    }

    pub fn is_ejected(&self, now_ns: u64) -> bool {
        self.record().ejected_until_ns.load(Relaxed) > now_ns
    }

    /// Times that the peer was ejected lately: a calm of `each` makes up for one.
    pub fn ejections(&self, now_ns: u64, each: Duration) -> u32 {
        let record = self.record();
        let times = (record.failures.load(Relaxed) >> 32) as u32;
        let calm_ns = now_ns.saturating_sub(record.last_ejected_ns.load(Relaxed));
        let forgiven = calm_ns / nanos(each).max(1);
        times.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }

    /// Passes the peer over for this time, its `times`-th lately. True: it was not until now.
    pub fn eject(&self, now_ns: u64, time: Duration, times: u32) -> bool {
        let record = self.record();
        let until_ns = now_ns.saturating_add(nanos(time)).max(1);
        let before = record.ejected_until_ns.swap(until_ns, AcqRel);
        if before > now_ns {
            return false;
        }
        record.last_ejected_ns.store(until_ns, Relaxed);
        let times = |word: u64| Some(u64::from(times) << 32 | word & 0xffff_ffff);
        // The closure always has a word to store.
        let _ = record.failures.try_update(AcqRel, Relaxed, times);
        true
    }

    /// Ends an ejection before its time. True: there was one.
    pub fn end_ejection(&self) -> bool {
        end_ejection(self.record())
    }

    /// Counts an outcome for the success rate.
    pub fn count_outcome(&self, is_success: bool) {
        let one = if is_success { 1 } else { 1 << 32 };
        self.record().outcomes.fetch_add(one, Relaxed);
    }

    /// Takes the outcomes since the last time: successes and failures.
    pub fn take_outcomes(&self) -> (u64, u64) {
        let word = self.record().outcomes.swap(0, Relaxed);
        (word & 0xffff_ffff, word >> 32)
    }

    /// Claims the check that is due now: no other process makes it. The next one is due then; that of a peer which was never
    /// checked after `first`.
    pub fn claim_check(&self, now_ns: u64, first: Duration, next: Duration) -> Due {
        let word = &self.record().next_check_ns;
        let due_ns = word.load(Relaxed);
        let then_ns = match due_ns {
            0 => now_ns.saturating_add(nanos(first)).max(1),
            due_ns if due_ns > now_ns => return Due::Later(due_ns),
            _ => now_ns.saturating_add(nanos(next)),
        };
        let claimed = word
            .compare_exchange(due_ns, then_ns, AcqRel, Relaxed)
            .is_ok();
        match claimed && due_ns != 0 {
            true => Due::Now,
            false => Due::Later(then_ns),
        }
    }

    /// Has the next check made then, and not when it was to be made. One that has begun already is the next one, and stays so:
    /// otherwise each check that takes its whole interval would bring one more.
    pub fn check_at(&self, planned_ns: u64, at_ns: u64) {
        let word = &self.record().next_check_ns;
        // Err: it has begun.
        let _ = word.compare_exchange(planned_ns, at_ns, AcqRel, Relaxed);
    }

    /// Notes the result of a check. Only the process that has claimed it does. Returns the state before and the one now.
    pub fn note_check(
        &self,
        passed: bool,
        (rise, fall): (u32, u32),
        now_ns: u64,
        latency: Duration,
    ) -> Checked {
        let record = self.record();
        let word = record.check.load(Relaxed);
        let (before, streak) = (CheckState::of(word), (word >> 8) as u32);
        let streak = streak.saturating_add(1);
        let (now, streak) = match (before, passed) {
            // A peer that nothing is known of is what its first check says, if it passes.
            (CheckState::None, true) => (CheckState::Up, 0),
            (CheckState::Up, true) | (CheckState::Down, false) => (before, 0),
            (CheckState::None | CheckState::Up, false) if streak < fall => (before, streak),
            (CheckState::Down, true) if streak < rise => (before, streak),
            (CheckState::None | CheckState::Up, false) => (CheckState::Down, 0),
            (CheckState::Down, true) => (CheckState::Up, 0),
        };
        record
            .check
            .store(now as u64 | u64::from(streak) << 8, Relaxed);
        let latency_us = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        record
            .last_check
            .store(u64::from(latency_us) | u64::from(passed) << 32, Relaxed);
        record.last_check_ns.store(now_ns, Relaxed);
        if now != before {
            record.check_since_ns.store(now_ns, Relaxed);
            if before == CheckState::Down {
                record.up_since_ns.store(now_ns, Relaxed);
            }
        }
        Checked {
            before,
            now,
            is_unsure: streak > 0,
        }
    }
}

/// Time of the next check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The check is this process's to make.
    Now,
    Later(u64),
}

/// Result of a check for a peer's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    pub before: CheckState,
    pub now: CheckState,
    /// Whether checks in a row speak against the state.
    pub is_unsure: bool,
}

impl CheckState {
    fn of(word: u64) -> Self {
        match word & CHECK {
            1 => Self::Up,
            2 => Self::Down,
            _ => Self::None,
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cold]
#[inline(never)]
fn forget_failures(record: &PeerRecord) -> bool {
    let in_a_row = |word: &AtomicU64| word.fetch_and(!0xffff_ffff, AcqRel);
    in_a_row(&record.failures);
    end_ejection(record)
}

/// True: there was one.
fn end_ejection(record: &PeerRecord) -> bool {
    let until_ns = record.ejected_until_ns.swap(0, AcqRel);
    if until_ns != 0 {
        let came_up_ns = until_ns.min(crate::zone::now_ns());
        record.up_since_ns.fetch_max(came_up_ns, Relaxed);
    }
    until_ns != 0
}

/// Flags of the operator's word.
const STANDING: u64 = 3;
const DRAINING: u64 = 1;
const DOWN: u64 = 2;
const UP: u64 = 3;

/// Part of the check's word that says the state.
const CHECK: u64 = 0xff;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::now_ns;

    fn other_worker(states: &PeerStates) -> PeerStates {
        states.zone.take_row(2).unwrap();
        PeerStates::new(Rc::clone(&states.zone), Some(2))
    }

    #[test]
    fn what_one_worker_notes_another_sees() {
        let here = PeerStates::private().unwrap();
        let there = other_worker(&here);
        let (peer, same) = (here.of(3), there.of(3));
        let second = Duration::from_secs(1);
        assert_eq!((peer.count_failure(), same.count_failure()), (1, 2));
        let now = now_ns();
        assert!(same.eject(now, second, 1) && !peer.eject(now, second, 1));
        let availability = |now_ns| peer.availability(Checks::None, || now_ns);
        let until_ns = now + 1_000_000_000;
        assert_eq!(availability(now), Availability::Ejected { until_ns });
        assert_eq!(availability(until_ns), Availability::Available);
        assert!(peer.note_success() && !peer.note_success());
        assert_eq!(
            same.availability(Checks::None, || now),
            Availability::Available
        );
        peer.publish(3, 1);
        same.publish(4, 0);
        assert_eq!((same.sum().active, same.sum().connections), (7, 1));
    }

    #[test]
    fn the_operators_word_is_above_the_checks() {
        let peer = PeerStates::private().unwrap().of(0);
        let now = now_ns();
        peer.eject(now, Duration::from_secs(60), 1);
        let availability = || peer.availability(Checks::None, || now);
        for (standing, expected) in [
            (Standing::Up, Availability::Available),
            (Standing::Down, Availability::Down),
            (Standing::Draining, Availability::Draining),
        ] {
            peer.order(standing, Some(7));
            assert_eq!(availability(), expected);
            assert_eq!(
                (peer.standing(), peer.ordered_weight()),
                (standing, Some(7))
            );
        }
        peer.order(Standing::Usual, None);
        assert!(matches!(availability(), Availability::Ejected { .. }));
        assert_eq!(peer.ordered_weight(), None);
    }

    #[test]
    fn a_peer_that_was_down_by_order_comes_up_and_one_that_was_drained_was_up() {
        let peer = PeerStates::private().unwrap().of(0);
        for standing in [Standing::Up, Standing::Draining, Standing::Usual] {
            peer.order(standing, None);
            assert_eq!(peer.came_up_ns(), 0);
        }
        peer.order(Standing::Down, None);
        assert_eq!(peer.came_up_ns(), 0);
        peer.order(Standing::Usual, None);
        assert_ne!(peer.came_up_ns(), 0);
    }

    #[test]
    fn checks_in_a_row_change_the_state() {
        let peer = PeerStates::private().unwrap().of(0);
        let note = |passed| {
            let checked = peer.note_check(passed, (2, 3), 9, Duration::from_millis(1));
            (checked.now, checked.is_unsure)
        };
        let availability = |checks| peer.availability(checks, || 9);
        assert_eq!(availability(Checks::Mandatory), Availability::Unchecked);
        assert_eq!(availability(Checks::Optimistic), Availability::Available);
        use CheckState::{Down, None, Up};
        assert_eq!([note(false), note(true)], [(None, true), (Up, false)]);
        let fails = [note(false), note(false), note(true), note(false)];
        assert_eq!(fails, [(Up, true), (Up, true), (Up, false), (Up, true)]);
        assert_eq!([note(false), note(false)], [(Up, true), (Down, false)]);
        assert_eq!(availability(Checks::Optimistic), Availability::Unhealthy);
        assert_eq!(availability(Checks::None), Availability::Available);
        assert_eq!([note(true), note(false)], [(Down, true), (Down, false)]);
        assert_eq!([note(true), note(true)], [(Down, true), (Up, false)]);
        assert_eq!(availability(Checks::Mandatory), Availability::Available);
    }

    #[test]
    fn a_check_is_one_processs_and_taking_over_makes_none_more() {
        let here = PeerStates::private().unwrap();
        let there = other_worker(&here);
        let (peer, same) = (here.of(3), there.of(3));
        let [first, next] = [5, 100].map(Duration::from_nanos);
        assert_eq!(peer.claim_check(1000, first, next), Due::Later(1005));
        assert_eq!(same.claim_check(1000, first, next), Due::Later(1005));
        assert_eq!(same.claim_check(1006, first, next), Due::Now);
        assert_eq!(peer.claim_check(1007, first, next), Due::Later(1106));
        peer.check_at(1106, 1050);
        assert_eq!(same.claim_check(1050, first, next), Due::Now);
        peer.check_at(1106, 1060);
        assert_eq!(same.claim_check(1060, first, next), Due::Later(1150));
    }

    #[test]
    fn a_cell_without_memory_is_a_peer_that_nothing_is_known_of() {
        let peer = PeerStates::private().unwrap().of(60_000);
        peer.publish(1, 1);
        assert_eq!(peer.sum(), Load::default());
    }
}
