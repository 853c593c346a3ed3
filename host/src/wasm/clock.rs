//! The clock that interrupts guests: a timer of the kernel's whose signal comes to the worker's own thread.
//!
//! A thread that ticks would have to be scheduled first, and where all cores compute it comes late (measured: one tick
//! in a thousand by 4 ms). The timer's interrupt is on time, and the worker needs no second thread.
#![allow(
    unsafe_code,
    reason = "timers that signal one thread, and a signal's handler"
)]

use std::io;
use std::mem;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering, compiler_fence};
use std::time::Duration;

use signal_hook_registry::SigId;

/// Advances the epoch of the worker's engine while guests run and for a short time after; stands still otherwise.
///
/// It belongs to the thread that made it. Guests run on no other.
pub(super) struct Clock {
    state: Arc<State>,
    handler: SigId,
}

/// Tells the clock when a guest runs. What does so at each call has one of its own, which is nearer than the clock.
#[derive(Clone)]
pub(super) struct ClockHandle(Arc<State>);

/// How long a guest runs before it meets the clock, at most.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// The tick while a guest computes for longer than that: what others wait for it at a time. A proxied request waits
/// two or three times, in all for no longer than it takes by itself. Half of it makes 4 % more overhead, see
/// docs/FAIRNESS.md.
pub(super) const SHORT_TICK: Duration = Duration::from_micros(70);

/// Ticks that are short after the last such guest, half a second: where one computes, the next is not far.
const SHORT_TICKS_AFTER: u32 = 7000;

/// Ticks without a guest after which the clock stands still.
const IDLE_TICKS: u32 = 50;

struct State {
    engine: wasmtime::Engine,
    timer: Timer,
    guests: AtomicU8,
    idle_ticks: AtomicU32,
    /// The timer is armed.
    ticks: AtomicBool,
    /// How many [`ShortTicks`] there are.
    short: AtomicU32,
    /// Short ticks that still come when there are none.
    short_after: AtomicU32,
}

// Values of `State::guests`: a guest is on the thread, was since the last tick, or neither.
const RUNNING: u8 = 2;
const RAN: u8 = 1;
const NONE: u8 = 0;

impl Clock {
    /// Makes the timer, which is armed by the first [`ClockHandle::guest_runs`]. Fails where the process may have no more
    /// timers (`RLIMIT_SIGPENDING`).
    pub(super) fn new(engine: wasmtime::Engine) -> io::Result<Self> {
        let state = Arc::new(State {
            engine,
            timer: Timer::of_this_thread()?,
            guests: AtomicU8::new(NONE),
            idle_ticks: AtomicU32::new(0),
            ticks: AtomicBool::new(false),
            short: AtomicU32::new(0),
            short_after: AtomicU32::new(0),
        });
        let on_signal = {
            let state = Arc::clone(&state);
            move |signal: &libc::siginfo_t| {
                if state.timer.has_sent(signal) {
                    state.tick();
                }
            }
        };
        // SAFETY: what runs in the handler touches atomics and calls `timer_settime`, which POSIX lists as safe there;
        // it takes no lock, allocates nothing and cannot panic.
        let handler = unsafe { signal_hook_registry::register_sigaction(signal(), on_signal) }?;
        Ok(Self { state, handler })
    }

    pub(super) fn handle(&self) -> ClockHandle {
        ClockHandle(Arc::clone(&self.state))
    }

    /// A guest has been at work for several ticks: they stay short for a while after it. Not for one that met a single
    /// tick, since many short calls do, and the ticks would never be long.
    pub(super) fn keep_ticks_short(&self) {
        self.state
            .short_after
            .store(SHORT_TICKS_AFTER, Ordering::Relaxed);
    }

    /// The tick is [`SHORT_TICK`] until what this returns is dropped.
    pub(super) fn shorten_ticks(&self) -> ShortTicks {
        let are_short = self.tick() == SHORT_TICK;
        self.state.short.fetch_add(1, Ordering::Relaxed);
        if !are_short {
            self.state.start();
        }
        ShortTicks(Arc::clone(&self.state))
    }

    /// The tick now.
    pub(super) fn tick(&self) -> Duration {
        self.state.period()
    }
}

impl ClockHandle {
    /// Before a guest runs, at its first step or a later one.
    #[inline]
    pub(super) fn guest_runs(&self) {
        self.0.guests.store(RUNNING, Ordering::Relaxed);
        // The handler interrupts this thread and no other: only the compiler could let it see the one without the other.
        compiler_fence(Ordering::SeqCst);
        if !self.0.ticks.load(Ordering::Relaxed) {
            self.0.start();
        }
    }

    /// After it: it has returned, trapped, or been suspended.
    #[inline]
    pub(super) fn guest_rests(&self) {
        self.0.guests.store(RAN, Ordering::Relaxed);
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.state.timer.set(Duration::ZERO);
        signal_hook_registry::unregister(self.handler);
    }
}

/// Held for a guest that computes.
pub(super) struct ShortTicks(Arc<State>);

impl Drop for ShortTicks {
    fn drop(&mut self) {
        self.0.short.fetch_sub(1, Ordering::Relaxed);
        if self.0.ticks.load(Ordering::Relaxed) && self.0.period() == TICK {
            self.0.start();
        }
    }
}

impl State {
    /// In the signal's handler.
    fn tick(&self) {
        self.engine.increment_epoch();
        let short_after = self.short_after.load(Ordering::Relaxed);
        if short_after != 0 && self.short.load(Ordering::Relaxed) == 0 {
            self.short_after.store(short_after - 1, Ordering::Relaxed);
            if short_after == 1 {
                self.timer.set(TICK);
            }
        }
        if self.guests.load(Ordering::Relaxed) != NONE {
            // A guest that runs is not to be forgotten, however long it does not meet the clock.
            let _ = self
                .guests
                .compare_exchange(RAN, NONE, Ordering::Relaxed, Ordering::Relaxed);
            self.idle_ticks.store(0, Ordering::Relaxed);
            return;
        }
        if self.idle_ticks.fetch_add(1, Ordering::Relaxed) + 1 >= IDLE_TICKS {
            self.ticks.store(false, Ordering::Relaxed);
            self.timer.set(Duration::ZERO);
        }
    }

    #[cold]
    fn start(&self) {
        self.idle_ticks.store(0, Ordering::Relaxed);
        self.ticks.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        self.timer.set(self.period());
    }

    fn period(&self) -> Duration {
        let short = self.short.load(Ordering::Relaxed) + self.short_after.load(Ordering::Relaxed);
        if short == 0 { TICK } else { SHORT_TICK }
    }
}

/// A timer of the kernel's that signals the thread that made it.
struct Timer {
    /// A `timer_t`, which is a number in a pointer's type.
    id: usize,
    /// Comes with its signals, so that those of another timer (in unit tests) or process are not taken for its own.
    mark: usize,
}

impl Timer {
    fn of_this_thread() -> io::Result<Self> {
        static MARK: AtomicUsize = AtomicUsize::new(1);
        let mark = MARK.fetch_add(1, Ordering::Relaxed);
        // SAFETY: a plain C struct, for which zeroes are valid.
        let mut event: libc::sigevent = unsafe { mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_notify_thread_id = rustix::thread::gettid().as_raw_nonzero().get();
        event.sigev_signo = signal();
        event.sigev_value.sival_ptr = ptr::without_provenance_mut(mark);
        let mut id: libc::timer_t = ptr::null_mut();
        // SAFETY: both pointers are to locals of the right types.
        if unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut id) } != 0 {
            return Err(io::Error::last_os_error());
        }
        unblock();
        Ok(Self {
            id: id.expose_provenance(),
            mark,
        })
    }

    /// Signals each `period` from now on; zero: no more.
    fn set(&self, period: Duration) {
        let period = libc::timespec {
            tv_sec: period.as_secs().cast_signed(),
            tv_nsec: period.subsec_nanos().into(),
        };
        let times = libc::itimerspec {
            it_interval: period,
            it_value: period,
        };
        let id: libc::timer_t = ptr::with_exposed_provenance_mut(self.id);
        // SAFETY: the timer lives as long as `self`; `times` is a local, and the old times are not asked for. It fails for
        // no valid period.
        unsafe { libc::timer_settime(id, 0, &raw const times, ptr::null_mut()) };
    }

    fn has_sent(&self, signal: &libc::siginfo_t) -> bool {
        // SAFETY: the code says that a timer has sent it, whose signals have a value. It is compared, never followed.
        signal.si_code == libc::SI_TIMER
            && unsafe { signal.si_value().sival_ptr }.addr() == self.mark
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: it was made by `of_this_thread` and is deleted here only.
        unsafe { libc::timer_delete(ptr::with_exposed_provenance_mut(self.id)) };
    }
}

/// A process inherits the signals that its parent has blocked.
fn unblock() {
    // SAFETY: `set` is a plain C struct, made empty before it is used; the old mask is not asked for. None of the three
    // fails for a valid signal.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal());
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
    }
}

/// A signal that neither the kernel nor libc has a use for.
fn signal() -> libc::c_int {
    libc::SIGRTMIN()
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::Instant;

    use super::*;

    #[test]
    fn it_ticks_under_a_guest_and_stands_still_without() {
        let clock = Clock::new(wasmtime::Engine::default()).unwrap();
        clock.handle().guest_runs();
        let busy_until = |is_so: &dyn Fn() -> bool| {
            let start = Instant::now();
            while !is_so() {
                assert!(start.elapsed() < Duration::from_secs(10));
                black_box(0);
            }
        };
        // A tick leaves a running guest as it is, however many come.
        busy_until(&|| clock.state.idle_ticks.load(Ordering::Relaxed) == 0);
        let short = clock.shorten_ticks();
        assert_eq!(clock.tick(), SHORT_TICK);
        drop(short);
        assert_eq!(clock.tick(), TICK);
        let short = clock.shorten_ticks();
        clock.keep_ticks_short();
        drop(short);
        assert_eq!(clock.tick(), SHORT_TICK);
        busy_until(&|| clock.tick() == TICK);
        assert!(clock.state.ticks.load(Ordering::Relaxed));
        clock.handle().guest_rests();
        busy_until(&|| !clock.state.ticks.load(Ordering::Relaxed));
        clock.handle().guest_runs();
        assert!(clock.state.ticks.load(Ordering::Relaxed));
    }
}
