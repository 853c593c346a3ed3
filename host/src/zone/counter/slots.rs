//! A set of slots: where the keys of one hash range have their numbers. Lock-free, and safe against a writer that dies.
//!
//! Each slot is two words. The **tag** says whose it is; the **state** holds value, expiry and a second part of the
//! key's hash (check) in 128 bits, which change together or not at all. A slot belongs to a key when tag and check are
//! the key's, so a slot between two owners belongs to nobody, and there is no moment at which anybody has to wait:
//!
//! 1. *claim*: the state of a slot (free, expired, or else the one that expires first) becomes *pending* for the new key;
//! 2. the tag becomes the new key's;
//! 3. *settle*: other pending or expired slots of the same key are freed; a live one wins, and the claim is given up;
//! 4. *publish*: the pending state becomes the live one, unless somebody freed it meanwhile (then all begins anew).
//!
//! Step 3 is why two processes that bring the same key at the same moment do not count in two slots: each frees the
//! other's claim before it publishes its own. A writer that dies after step 1 leaves a slot that counts as free, after
//! step 2 one that the next writer of the key takes over.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use portable_atomic::AtomicU128;

/// Slots in a set: tags in one cache line, states in two.
pub(super) const WAYS: usize = 8;

/// Zeroes are an empty set.
#[repr(C, align(64))]
pub(in crate::zone) struct Set {
    tags: [AtomicU64; WAYS],
    states: [AtomicU128; WAYS],
}

const _: () = assert!(size_of::<Set>() == 64 + 128, "no padding");

/// A key's hash, as it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hash {
    /// Tag of the key's hash; not 0.
    pub tag: u64,
    /// 24 bits, not 0.
    pub check: u32,
}

impl Hash {
    /// Makes it of two independent hash words; only the lower half of the second is used.
    pub(super) fn of(first: u64, second: u64) -> Self {
        let check = (second & CHECK_MASK) as u32;
        Self {
            tag: first.max(1),
            check: check.max(1),
        }
    }
}

/// Contents of a live slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Live {
    pub value: u64,
    /// Expiry in ticks; 40 bits, and later than now.
    pub expiry: u64,
}

/// How [`Set::change`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Stored {
        live: Live,
        /// Whether it took the place of another key's live number.
        evicted: bool,
    },
    /// The function wanted no change.
    Left(Option<Live>),
    /// Others changed the slot each time; nothing is stored. Holds what would have been.
    Contended(Live),
}

/// Expiries have this many bits.
pub(super) const EXPIRY_BITS: u32 = 40;

impl Set {
    /// The live number of a key.
    pub(super) fn find(&self, key: Hash, now: u64) -> Option<Live> {
        match self.look(key, now) {
            Found::Live(_, state) => Some(state.live()),
            Found::Dead(..) | Found::Nowhere => None,
        }
    }

    /// Replaces what the key has by what `f` makes of it. `f` is called anew each time when somebody else was quicker.
    ///
    /// `nonce` is different in each call by any process, as far as chance goes.
    pub(super) fn change(
        &self,
        key: Hash,
        now: u64,
        nonce: u64,
        mut f: impl FnMut(Option<Live>) -> Option<Live>,
    ) -> Change {
        let mut wanted = None;
        for attempt in 0..ATTEMPTS {
            let found = self.look(key, now);
            let current = match found {
                Found::Live(_, state) => Some(state.live()),
                Found::Dead(..) | Found::Nowhere => None,
            };
            let Some(live) = f(current) else {
                return Change::Left(current);
            };
            wanted = Some(live);
            let next = State::new(live, key.check);
            let stored = match found {
                // An expired slot is not searched for rivals: who claims another one for this key frees this one first.
                Found::Live(way, state) => self.swap(way, state, next).then_some(false),
                Found::Dead(way, state) if !state.is_pending() => {
                    self.swap(way, state, next).then_some(false)
                }
                Found::Dead(way, state) => self.publish(way, state, next, key, now, false),
                Found::Nowhere => {
                    let nonce = nonce.wrapping_add(attempt << 48);
                    self.claim(key, now, nonce, attempt)
                        .and_then(|(way, pending, evicted)| {
                            self.publish(way, pending, next, key, now, evicted)
                        })
                }
            };
            if let Some(evicted) = stored {
                return Change::Stored { live, evicted };
            }
            for _ in 0..attempt {
                spin_loop();
            }
        }
        match wanted {
            Some(live) => Change::Contended(live),
            None => Change::Left(None), // not reached: there is a first attempt
        }
    }

    /// Live numbers in this set, of any key.
    pub(super) fn live_count(&self, now: u64) -> usize {
        let states = self.states.iter().map(|state| State(state.load(SeqCst)));
        states.filter(|state| state.is_live(now)).count()
    }

    fn look(&self, key: Hash, now: u64) -> Found {
        let mut found = Found::Nowhere;
        for way in 0..WAYS {
            if self.tags[way].load(SeqCst) != key.tag {
                continue;
            }
            let state = State(self.states[way].load(SeqCst));
            if state.check() != key.check {
                continue;
            }
            if state.is_live(now) {
                return Found::Live(way, state);
            }
            if matches!(found, Found::Nowhere) {
                found = Found::Dead(way, state);
            }
        }
        found
    }

    /// Steps 1 and 2. The flag says whether the slot was live.
    fn claim(&self, key: Hash, now: u64, nonce: u64, attempt: u64) -> Option<(usize, State, bool)> {
        let (way, tag, state) = self.victim(key, now, attempt);
        let pending = State::pending(nonce, key.check);
        if !self.swap(way, state, pending) {
            return None;
        }
        #[cfg(test)]
        tests::dawdle();
        // A plain store would not do: had somebody taken the slot since, it would become nobody's.
        self.tags[way]
            .compare_exchange(tag, key.tag, SeqCst, SeqCst)
            .is_ok()
            .then_some((way, pending, state.is_live(now)))
    }

    /// The slot that is missed least: a free one, else the one that has expired or will expire first. Claims of others,
    /// which may be dead, come before live ones.
    fn victim(&self, key: Hash, now: u64, attempt: u64) -> (usize, u64, State) {
        let rank = |state: State| match state {
            State::FREE => (0, 0),
            _ if state.is_pending() => (2, 0),
            _ if state.is_live(now) => (3, state.expiry()),
            _ => (1, state.expiry()),
        };
        // Different keys begin at different slots, so that they do not take each other's claims.
        let first = (key.tag.wrapping_add(attempt) % WAYS as u64) as usize;
        let mut best: Option<(usize, u64, State)> = None;
        for way in (first..WAYS).chain(0..first) {
            let tag = self.tags[way].load(SeqCst);
            let state = State(self.states[way].load(SeqCst));
            if best.is_none_or(|(_, _, other)| rank(state) < rank(other)) {
                best = Some((way, tag, state));
            }
            if state == State::FREE {
                break;
            }
        }
        best.unwrap_or((0, 0, State::FREE)) // there is always one: WAYS is not 0
    }

    /// Steps 3 and 4. The flag is handed through.
    fn publish(
        &self,
        own: usize,
        pending: State,
        next: State,
        key: Hash,
        now: u64,
        evicted: bool,
    ) -> Option<bool> {
        for way in (0..WAYS).filter(|way| *way != own) {
            if self.tags[way].load(SeqCst) != key.tag {
                continue;
            }
            let state = State(self.states[way].load(SeqCst));
            if state.check() != key.check {
                continue;
            }
            if state.is_live(now) || !self.swap(way, state, State::FREE) {
                self.swap(own, pending, State::FREE);
                return None;
            }
        }
        self.swap(own, pending, next).then_some(evicted)
    }

    fn swap(&self, way: usize, from: State, to: State) -> bool {
        #[cfg(test)]
        tests::dawdle();
        self.states[way]
            .compare_exchange(from.0, to.0, SeqCst, SeqCst)
            .is_ok()
    }
}

/// Tries of one change. Somebody else succeeds each time that one of them fails.
const ATTEMPTS: u64 = 256;

enum Found {
    Live(usize, State),
    /// The key's, but expired or pending.
    Dead(usize, State),
    Nowhere,
}

/// Value (64 bits), expiry (40), check (24). With an expiry of 0 it is pending and the value is its nonce.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State(u128);

impl State {
    /// Nobody's: no key has the check 0.
    const FREE: Self = Self(0);

    fn new(live: Live, check: u32) -> Self {
        let low = (live.expiry & EXPIRY_MASK) << CHECK_BITS | u64::from(check);
        Self(u128::from(live.value) << 64 | u128::from(low))
    }

    fn pending(nonce: u64, check: u32) -> Self {
        let expiry = 0;
        let value = nonce;
        Self::new(Live { value, expiry }, check)
    }

    fn live(self) -> Live {
        Live {
            value: (self.0 >> 64) as u64,
            expiry: self.expiry(),
        }
    }

    fn expiry(self) -> u64 {
        (self.0 as u64) >> CHECK_BITS
    }

    fn check(self) -> u32 {
        (self.0 as u64 & CHECK_MASK) as u32
    }

    fn is_live(self, now: u64) -> bool {
        self.expiry() > now
    }

    fn is_pending(self) -> bool {
        self.expiry() == 0 && self != Self::FREE
    }
}

const CHECK_BITS: u32 = 64 - EXPIRY_BITS;
const CHECK_MASK: u64 = (1 << CHECK_BITS) - 1;
const EXPIRY_MASK: u64 = (1 << EXPIRY_BITS) - 1;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const KEY: Hash = Hash { tag: 7, check: 9 };
    const NOW: u64 = 100;

    fn set() -> Set {
        Set {
            tags: Default::default(),
            states: Default::default(),
        }
    }

    fn add_one(set: &Set, key: Hash, nonce: u64) -> Change {
        set.change(key, NOW, nonce, |live| {
            let value = live.map_or(0, |live| live.value) + 1;
            Some(Live { value, expiry: 200 })
        })
    }

    fn stored(value: u64, evicted: bool) -> Change {
        let live = Live { value, expiry: 200 };
        Change::Stored { live, evicted }
    }

    #[test]
    fn a_claim_of_a_dead_writer_is_taken_over_by_its_key() {
        let set = set();
        set.claim(KEY, NOW, 1, 0).expect("an empty set");
        assert_eq!(set.find(KEY, NOW), None);
        assert_eq!(add_one(&set, KEY, 2), stored(1, false));
        assert_eq!(add_one(&set, KEY, 3), stored(2, false));
        assert_eq!(set.live_count(NOW), 1);
    }

    #[test]
    fn a_slot_between_two_owners_belongs_to_nobody_and_is_used_again() {
        let set = set();
        for tag in 1..=8 {
            add_one(&set, Hash { tag, check: 1 }, tag);
        }
        // Died between steps 1 and 2: the state is the new key's, the tag still the old one's.
        let old = State(set.states[3].load(SeqCst));
        let torn = set.tags[3].load(SeqCst);
        assert!(set.swap(3, old, State::pending(1, KEY.check)));
        assert_eq!(
            set.find(
                Hash {
                    tag: torn,
                    check: 1
                },
                NOW
            ),
            None
        );
        assert_eq!(set.find(KEY, NOW), None);
        assert_eq!(
            add_one(&set, Hash { tag: 99, check: 5 }, 2),
            stored(1, false)
        );
        assert_eq!(set.live_count(NOW), 8);
    }

    #[test]
    fn a_full_set_gives_up_what_expires_first() {
        let set = set();
        for tag in 1..=8 {
            let live = Live {
                value: tag,
                expiry: 300 - tag,
            };
            set.change(Hash { tag, check: 1 }, NOW, tag, |_| Some(live));
        }
        assert_eq!(add_one(&set, KEY.with_tag(50), 0), stored(1, true));
        assert_eq!(set.find(Hash { tag: 8, check: 1 }, NOW), None);
        assert!((1..8).all(|tag| set.find(Hash { tag, check: 1 }, NOW).is_some()));
    }

    impl Hash {
        fn with_tag(self, tag: u64) -> Self {
            Self { tag, ..self }
        }
    }

    #[test]
    fn two_claims_for_one_key_become_one_slot() {
        let set = set();
        let (first, first_pending, _) = set.claim(KEY, NOW, 1, 0).expect("free");
        let (second, second_pending, _) = set.claim(KEY, NOW, 2, 1).expect("free");
        assert_ne!(first, second);
        let next = |value| State::new(Live { value, expiry: 200 }, KEY.check);
        assert_eq!(
            set.publish(second, second_pending, next(1), KEY, NOW, false),
            Some(false)
        );
        assert_eq!(
            set.publish(first, first_pending, next(5), KEY, NOW, false),
            None
        );
        assert_eq!(set.find(KEY, NOW).map(|live| live.value), Some(1));
        assert_eq!(set.live_count(NOW), 1);
    }

    thread_local! {
        /// State of a random number generator; 0: no delays in this thread.
        static DAWDLING: Cell<u64> = const { Cell::new(0) };
    }

    /// Pause between any two steps of a change: widens the gaps in which others may come.
    pub(super) fn dawdle() {
        let mut state = DAWDLING.get();
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        DAWDLING.set(state);
        for _ in 0..state % 300 {
            spin_loop();
        }
    }

    /// New keys again and again from two threads that meet before each and take
    /// their time over each step: no count may be lost.
    #[test]
    fn nothing_is_lost_when_two_bring_the_same_new_key() {
        const KEYS: u64 = 20_000;
        let sets: Vec<Set> = (0..KEYS).map(|_| set()).collect();
        let arrived = AtomicU64::new(0);
        let run = |thread: u64| {
            DAWDLING.set(thread + 1);
            for (met, set) in (1..).zip(&sets) {
                arrived.fetch_add(1, SeqCst);
                let mut spins = 0;
                while arrived.load(SeqCst) < 2 * met {
                    spins += 1;
                    if spins % 1000 == 0 {
                        std::thread::yield_now();
                    }
                }
                let nonce = met << 1 | thread;
                assert!(matches!(add_one(set, KEY, nonce), Change::Stored { .. }));
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| run(0));
            scope.spawn(|| run(1));
        });
        for set in &sets {
            assert_eq!(set.find(KEY, NOW).map(|live| live.value), Some(2));
            assert_eq!(set.live_count(NOW), 1);
        }
    }
}
