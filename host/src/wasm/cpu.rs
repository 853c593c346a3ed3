//! CPU time of guests in a worker, and whose turn it is among those that use much.
//!
//! A call that returns before it meets the clock costs nothing here. At its first tick it is charged one tick, the share
//! that falls to it by chance: so many short calls together are charged what they have used. From then on the worker
//! thread's CPU clock is read when the guest is interrupted and when it goes on, and the guest computes in turns: at each
//! turn of the event loop one guest gets one tick, after all that I/O has woken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Semaphore;
use wasmtime::{Result, UpdateDeadline, bail};

use super::clock::{Clock, ClockHandle, ShortTicks};
use super::guest::Guest;
use super::hook_stack;

/// Slices of a worker's CPU.
pub(super) struct CpuSlices {
    pub(super) clock: Clock,
    /// Has one permit, which those that compute get in the order in which they were interrupted.
    wait: Semaphore,
    /// The thread's CPU time, ns, when the guest that runs now began its slice. Not written for one that has met no tick.
    slice_began_ns: AtomicU64,
}

impl CpuSlices {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            wait: Semaphore::new(1),
            slice_began_ns: AtomicU64::new(0),
        }
    }

    /// Waits for the turn. It is over when `has_turn` is false again.
    async fn next(self: Arc<Self>, has_turn: Arc<AtomicBool>) {
        let wait = self.wait.acquire().await;
        // With the turn already taken, so that there is one guest for each look at I/O. tokio wakes those that yield so
        // after the look and behind all that it has woken; a plain wake-up would come straight back.
        tokio::task::yield_now().await;
        if let Ok(wait) = wait {
            wait.forget();
            has_turn.store(true, Ordering::Relaxed);
        }
        self.clock.handle().guest_runs();
        self.begin_slice();
    }

    fn begin_slice(&self) {
        self.slice_began_ns
            .store(thread_cpu_ns(), Ordering::Relaxed);
    }

    /// CPU time that the slice has taken up to now, where the next one begins.
    fn cut_slice(&self) -> Duration {
        let now_ns = thread_cpu_ns();
        let began_ns = self.slice_began_ns.swap(now_ns, Ordering::Relaxed);
        Duration::from_nanos(now_ns.saturating_sub(began_ns))
    }
}

/// CPU use of one instance: the call that runs, and its limits. What every call looks at comes first.
#[repr(C)]
pub(super) struct Cpu {
    clock: ClockHandle,
    /// The call runs on the worker's hook stack, not on a fiber.
    on_hook_stack: bool,
    /// The last call was measured: what is kept of it is to be forgotten. Few are.
    is_measured: bool,
    turns: Arc<CpuSlices>,
    /// The call has met a tick since it last began or went on: it is measured.
    computes: Option<ShortTicks>,
    /// When the slice began is known, because the call has waited before it.
    slice_is_known: bool,
    spent: Option<Spent>,
    /// By this call, as far as it is known.
    used: Duration,
    /// The call runs on a slice, and is to give it back.
    has_turn: Arc<AtomicBool>,
    /// Limit of one call; which one says `is_configured`.
    call_limit: Duration,
    /// `limits.cpu` holds, and not `limits.configure_cpu` any more.
    is_configured: bool,
    /// Limit of all calls of the plugin's hooks for one request; `None`: no limit.
    request_limit: Option<Duration>,
}

/// The limit that has ended a call.
#[derive(Clone, Copy)]
enum Spent {
    Call,
    Request,
}

impl Cpu {
    pub(super) fn new(
        turns: Arc<CpuSlices>,
        configure_limit: Duration,
        request_limit: Option<Duration>,
    ) -> Self {
        Self {
            clock: turns.clock.handle(),
            turns,
            call_limit: configure_limit,
            is_configured: false,
            request_limit,
            used: Duration::ZERO,
            is_measured: false,
            computes: None,
            slice_is_known: false,
            on_hook_stack: false,
            has_turn: Arc::default(),
            spent: None,
        }
    }

    /// The instance is configured: from now on this is the limit of each call.
    pub(super) fn limit_hooks(&mut self, limit: Duration) {
        self.call_limit = limit;
        self.is_configured = true;
    }

    /// A call begins. The last one may have been dropped in its middle.
    #[inline]
    pub(super) fn begin(&mut self, on_hook_stack: bool) {
        self.on_hook_stack = on_hook_stack;
        if self.is_measured {
            self.forget();
        }
        self.go_on();
    }

    #[cold]
    fn forget(&mut self) {
        self.is_measured = false;
        self.computes = None;
        self.slice_is_known = false;
        self.used = Duration::ZERO;
        self.spent = None;
    }

    /// The guest runs, from its beginning or from what it has waited for.
    #[inline]
    pub(super) fn go_on(&self) {
        self.clock.guest_runs();
    }

    /// The guest runs again after what it has waited for. Read here, where a wait has cost more: what wakes a call up often
    /// comes with a tick, so that the share of a tick would not fall to it by chance.
    pub(super) fn go_on_after_wait(&mut self) {
        self.go_on();
        self.is_measured = true;
        self.slice_is_known = true;
        self.turns.begin_slice();
    }

    /// The call's limit counts anew, since a piece of a body is sent. What the request has used stays.
    pub(super) fn begin_piece(&mut self) {
        self.used = Duration::ZERO;
    }

    /// Ends the slice of a call that nobody waits for any more, which does not go on.
    #[inline]
    pub(super) fn give_up(&mut self) {
        if self.is_measured {
            self.computes = None;
        }
    }

    /// The limit that has ended the call, for people.
    pub(super) fn reached(&self) -> Option<String> {
        let (key, limit) = match self.spent? {
            Spent::Call if self.is_configured => ("cpu", self.call_limit),
            Spent::Call => ("configure_cpu", self.call_limit),
            Spent::Request => ("request_cpu", self.request_limit?),
        };
        Some(format!(
            "limits.{key} of {} ms reached",
            limit.as_secs_f64() * 1e3
        ))
    }

    fn give_turn_back(&self) {
        if self.has_turn.swap(false, Ordering::Relaxed) {
            self.turns.wait.add_permits(1);
        }
    }
}

impl Drop for Cpu {
    /// A panic of the host's may have ended the call on its turn.
    fn drop(&mut self) {
        self.give_turn_back();
    }
}

/// The guest has met a tick.
pub(super) fn tick(guest: &mut Guest) -> Result<UpdateDeadline> {
    let measured = guest.cpu.computes.is_some();
    guest.cpu.is_measured = true;
    let used = if measured || guest.cpu.slice_is_known {
        guest.cpu.turns.cut_slice()
    } else {
        guest.cpu.turns.clock.tick()
    };
    let in_request = charge(guest, used);
    let cpu = &mut guest.cpu;
    cpu.give_turn_back();
    if cpu.used > cpu.call_limit {
        cpu.spent = Some(Spent::Call);
        bail!("limits.cpu reached");
    }
    if cpu.request_limit.is_some_and(|limit| in_request > limit) {
        cpu.spent = Some(Spent::Request);
        bail!("limits.request_cpu reached");
    }
    if !measured {
        // The call may be short, and have met the tick by chance.
        cpu.computes = Some(cpu.turns.clock.shorten_ticks());
        cpu.turns.begin_slice();
        return Ok(UpdateDeadline::Continue(1));
    }
    cpu.turns.clock.keep_ticks_short();
    cpu.clock.guest_rests();
    let wait = Box::pin(Arc::clone(&cpu.turns).next(Arc::clone(&cpu.has_turn)));
    if cpu.on_hook_stack {
        hook_stack::suspend(wait)?;
        return Ok(UpdateDeadline::Continue(1));
    }
    Ok(UpdateDeadline::YieldCustom(1, wait))
}

/// The guest has returned or trapped, or begins to wait.
#[inline]
pub(super) fn stop(guest: &mut Guest) {
    if guest.cpu.is_measured {
        stop_measured(guest);
    }
    guest.cpu.clock.guest_rests();
}

#[cold]
fn stop_measured(guest: &mut Guest) {
    let computed = guest.cpu.computes.take().is_some();
    let slice_is_known = std::mem::take(&mut guest.cpu.slice_is_known);
    if computed || slice_is_known {
        let used = guest.cpu.turns.cut_slice();
        charge(guest, used);
        guest.cpu.give_turn_back();
    }
}

/// Returns what the plugin has used for the request.
fn charge(guest: &mut Guest, used: Duration) -> Duration {
    guest.cpu.used += used;
    match guest.hook {
        Some(_) => guest.exchange.context_mut().cpu_time.add(guest.key, used),
        // The instance is configured or reset, for no request.
        None => Duration::ZERO,
    }
}

/// CPU time of the worker's one thread: what the machine's other processes take does not count.
fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}
