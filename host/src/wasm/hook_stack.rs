//! The one stack of a worker on which the hooks of plugins run that use no host call that waits.
//!
//! A call of wasmtime's on a fiber costs seven times one without, and a guest that computes must be able to leave the
//! thread to others: so the fiber is ours and is made once. wasmtime sees plain calls. To it, a guest that has left the
//! stack to let others run is in a host call that takes long, and what the others do meanwhile is nested in that call.
//! This is why there is but one hook stack: calls of wasmtime must end in the reverse order of their beginning, so while a
//! guest is paused on the hook stack, all others run on fibers of wasmtime's, which keep what they have begun apart.
#![allow(
    unsafe_code,
    reason = "what runs on the hook stack is taken from those who have begun it, and leaves what it returns with those who end it"
)]

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::ptr;
use std::rc::Rc;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use wasmtime::{Result, bail};

/// Stack of a worker for hooks; belongs to the thread that made it.
pub(super) struct HookStack {
    /// Suspended in its own loop, or in a job that has called [`suspend`].
    stack: ManuallyDrop<RefCell<Coroutine<Order, Report, ()>>>,
    shared: Rc<Shared>,
    /// A job has begun and not ended.
    is_busy: Cell<bool>,
    /// The job is given up: nobody waits for it any more.
    is_given_up: Cell<bool>,
    /// An `Option` of what the job returns, where it is to leave that: with those who let it run now, since those who have begun
    /// it may be gone.
    result_slot: Cell<*mut ()>,
}

/// State of a job up to now.
pub(super) enum Started<'a, T> {
    Ended(T),
    Suspended(Suspended<'a, T>),
}

/// A result that is nearly always ready: `Ready` avoids building a future.
pub enum MaybeFuture<'a, T> {
    Ready(T),
    /// A guest computes for long, and others run meanwhile; or it has to wait first.
    Pending(Pin<Box<dyn Future<Output = T> + 'a>>),
}

impl<T> MaybeFuture<'_, T> {
    pub async fn finish(self) -> T {
        match self {
            Self::Ready(value) => value,
            Self::Pending(value) => value.await,
        }
    }
}

impl<'a, T: 'a> From<Started<'a, T>> for MaybeFuture<'a, T> {
    #[inline]
    fn from(started: Started<'a, T>) -> Self {
        match started {
            Started::Ended(value) => Self::Ready(value),
            Started::Suspended(suspended) => Self::Pending(Box::pin(suspended.finish())),
        }
    }
}

/// A job that has left the hook stack. When this is dropped, [`suspend`] returns an error and the job is run to its end.
pub(super) struct Suspended<'a, T> {
    hook_stack: &'a HookStack,
    /// Future that the job waits for; `None`: it has gone on.
    wait: Option<Wait>,
    /// Borrows and result of the job.
    _job: PhantomData<(&'a mut (), T)>,
}

/// Future that a job waits for before it goes on.
pub(super) type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Values that go to the stack and come from it. Orders and reports are a byte: what is larger than a register would be written here
/// in parts and read there as a whole, which the processor waits for.
struct Shared {
    /// The stack's way back; valid for as long as the stack's loop runs, which [`HookStack::drop`] ends.
    yielder: Cell<*const Yielder<Order, Report>>,
    /// Job of [`Order::Run`]: the function, which takes the job out of what the pointer points to before it does anything else.
    job: Cell<Job>,
    /// Wait of [`Report::Suspended`].
    wait: Cell<Option<Wait>>,
    /// Panic of [`Report::Panicked`].
    panic: Cell<Option<Box<dyn Any + Send>>>,
}

type Job = (unsafe fn(*mut ()), *mut ());

#[derive(Clone, Copy)]
enum Order {
    /// Runs what is in [`Shared::job`].
    Run,
    GoOn,
    /// The job is to end: nobody waits for it any more.
    GiveUp,
    End,
}

#[derive(Clone, Copy)]
enum Report {
    Suspended,
    Ended,
    Panicked,
}

thread_local! {
    /// State of the hook stack that runs now, null outside of it.
    static RUNNING: Cell<*const Shared> = const { Cell::new(ptr::null()) };
}

/// Placeholder where there is no job.
fn nothing(_: *mut ()) {}

impl HookStack {
    /// Reserves the stack. Its pages are taken from the system as they are touched.
    pub(super) fn new(stack_bytes: usize) -> io::Result<Self> {
        let shared = Rc::new(Shared {
            yielder: Cell::new(ptr::null()),
            job: Cell::new((nothing, ptr::null_mut())),
            wait: Cell::default(),
            panic: Cell::default(),
        });
        let of_stack = Rc::clone(&shared);
        let mut stack = Coroutine::with_stack(
            DefaultStack::new(stack_bytes)?,
            move |yielder: &Yielder<Order, Report>, mut order| {
                of_stack.yielder.set(ptr::from_ref(yielder));
                loop {
                    let report = match order {
                        Order::Run => of_stack.run(),
                        Order::GoOn | Order::GiveUp => Report::Ended,
                        Order::End => return,
                    };
                    order = yielder.suspend(report);
                }
            },
        );
        // Into its loop, so that the way back is known.
        stack.resume(Order::GoOn);
        Ok(Self {
            stack: ManuallyDrop::new(RefCell::new(stack)),
            shared,
            is_busy: Cell::new(false),
            is_given_up: Cell::new(false),
            result_slot: Cell::new(ptr::null_mut()),
        })
    }

    /// Whether nobody is on the stack: [`Self::start`] may be called.
    #[inline]
    pub(super) fn is_free(&self) -> bool {
        !self.is_busy.get()
    }

    /// Whether nobody waits any more for the job that asks: what it would still do is unwanted.
    #[inline]
    pub(super) fn is_given_up(&self) -> bool {
        self.is_given_up.get()
    }

    /// Runs the job on the hook stack until it ends or pauses. A panic of the job's goes on here.
    ///
    /// # Panics
    ///
    /// When the hook stack is taken.
    #[inline]
    pub(super) fn start<'a, T, F>(&'a self, job: F) -> Started<'a, T>
    where
        F: FnOnce() -> T + 'a,
    {
        assert!(!self.is_busy.replace(true), "the hook stack is free");
        // Taken by `run_job`, so not dropped here.
        let mut job = ManuallyDrop::new((job, &raw const self.result_slot));
        // Borrows of the job outlive `'a`, and so the `Suspended` that ends it. One that is forgotten instead leaves the hook stack
        // taken, and nobody resumes it.
        let job = (&raw mut job).cast();
        self.shared.job.set((run_job::<T, F>, job));
        self.resume_job(Order::Run)
    }

    /// Runs the job on the hook stack to its end, with all that it waits for in between.
    ///
    /// # Panics
    ///
    /// When the hook stack is taken.
    pub(super) async fn run<'a, T>(&'a self, job: impl FnOnce() -> T + 'a) -> T {
        match self.start(job) {
            Started::Ended(result) => result,
            Started::Suspended(suspended) => suspended.finish().await,
        }
    }

    #[inline]
    fn resume_job<T>(&self, order: Order) -> Started<'_, T> {
        let mut result: Option<T> = None;
        self.result_slot.set((&raw mut result).cast());
        match self.resume(order) {
            Report::Ended => {
                self.is_busy.set(false);
                Started::Ended(
                    result.expect("a job that has ended without a panic has left its result"),
                )
            }
            Report::Suspended => Started::Suspended(Suspended {
                hook_stack: self,
                wait: self.shared.wait.take(),
                _job: PhantomData,
            }),
            Report::Panicked => {
                self.is_busy.set(false);
                self.go_on_panicking()
            }
        }
    }

    #[cold]
    fn go_on_panicking(&self) -> ! {
        let panic = self.shared.panic.take();
        resume_unwind(panic.expect("what a job has panicked with is kept"))
    }

    #[inline]
    fn resume(&self, order: Order) -> Report {
        let outer = RUNNING.replace(Rc::as_ptr(&self.shared));
        let report = self.stack.borrow_mut().resume(order);
        RUNNING.set(outer);
        match report {
            CoroutineResult::Yield(report) => report,
            // Only after `Order::End`.
            CoroutineResult::Return(()) => Report::Ended,
        }
    }
}

impl Shared {
    /// Runs the job, on the stack.
    #[inline]
    fn run(&self) -> Report {
        let (run, job) = self.job.get();
        // SAFETY: `HookStack::start` has made the pointer for the function, and waits until this suspends.
        match catch_unwind(AssertUnwindSafe(|| unsafe { run(job) })) {
            Ok(()) => Report::Ended,
            Err(panic) => {
                self.panic.set(Some(panic));
                Report::Panicked
            }
        }
    }
}

impl Drop for HookStack {
    fn drop(&mut self) {
        if !self.is_free() {
            // A `Suspended` was forgotten. What its job borrows may be gone, so that it can neither go on nor be unwound: its
            // stack stays.
            return;
        }
        self.resume(Order::End);
        // SAFETY: dropped here only, and not used after.
        unsafe { ManuallyDrop::drop(&mut self.stack) };
    }
}

/// Takes the job out of `started`, which is gone when the job has paused, and runs it.
///
/// # Safety
///
/// `started` points to a job and the place of a hook stack, and the job is not used after. While this runs, the hook stack is where it was, and
/// its place is an `Option<T>` of those who have resumed it.
unsafe fn run_job<T, F: FnOnce() -> T>(started: *mut ()) {
    // SAFETY: as above.
    let (job, result_slot) = unsafe { ptr::read(started.cast::<(F, *const Cell<*mut ()>)>()) };
    let result = job();
    // SAFETY: as above.
    unsafe { *(*result_slot).get().cast::<Option<T>>() = Some(result) };
}

impl<T> Suspended<'_, T> {
    /// Waits for what the job waits for, and lets it go on to its end.
    pub(super) async fn finish(mut self) -> T {
        loop {
            if let Some(wait) = &mut self.wait {
                wait.await;
            }
            self.wait = None;
            match self.hook_stack.resume_job(Order::GoOn) {
                Started::Ended(result) => return result,
                Started::Suspended(suspended) => self = suspended,
            }
        }
    }
}

impl<T> Drop for Suspended<'_, T> {
    fn drop(&mut self) {
        if self.wait.is_none() {
            return;
        }
        let mut unwanted: Option<T> = None;
        self.hook_stack.result_slot.set((&raw mut unwanted).cast());
        self.hook_stack.is_given_up.set(true);
        while let Report::Suspended = self.hook_stack.resume(Order::GiveUp) {
            self.hook_stack.shared.wait.take();
        }
        // A panic is heard by nobody, either.
        self.hook_stack.shared.panic.take();
        self.hook_stack.is_given_up.set(false);
        self.hook_stack.is_busy.set(false);
    }
}

/// Leaves the thread to others until `wait` is ready. For what runs on a hook stack of this thread. Fails when nobody waits for
/// the job any more: it must end.
pub(super) fn suspend(wait: Wait) -> Result<()> {
    // SAFETY: while it is not null, this runs on the hook stack's stack, and the hook stack is where it was.
    let Some(shared) = (unsafe { RUNNING.get().as_ref() }) else {
        bail!("a guest that is not on the hook stack cannot leave it")
    };
    shared.wait.set(Some(wait));
    // SAFETY: as above; the yielder lives in the loop of that stack.
    let yielder = unsafe { &*shared.yielder.get() };
    match yielder.suspend(Report::Suspended) {
        Order::GoOn => Ok(()),
        Order::Run | Order::GiveUp | Order::End => bail!("nobody waits for the hook any more"),
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::mem;
    use std::pin::pin;
    use std::task::Poll;

    use futures_util::poll;
    use tokio::task::yield_now;

    use super::*;

    const STACK_BYTES: usize = 64 << 10;

    #[tokio::test]
    async fn a_job_borrows_and_returns_and_may_leave_the_lane() {
        let hook_stack = HookStack::new(STACK_BYTES).unwrap();
        let mut pauses = 0;
        let job = || {
            for _ in 0..3 {
                suspend(Box::pin(yield_now())).unwrap();
                pauses += 1;
            }
            "done"
        };
        assert_eq!(hook_stack.run(job).await, "done");
        assert_eq!(pauses, 3);
        assert_eq!(hook_stack.run(|| 1).await, 1);
    }

    #[tokio::test]
    async fn a_job_that_nobody_waits_for_any_more_comes_to_its_end() {
        let hook_stack = HookStack::new(STACK_BYTES).unwrap();
        let mut said = Vec::new();
        let job = || {
            assert!(!hook_stack.is_given_up());
            said.push(suspend(Box::pin(yield_now())));
            assert!(hook_stack.is_given_up());
            // Not even one that goes on all the same keeps the hook stack.
            said.push(suspend(Box::pin(yield_now())));
        };
        {
            let mut run = pin!(hook_stack.run(job));
            assert!(poll!(run.as_mut()).is_pending());
            assert!(!hook_stack.is_free());
        }
        assert!(hook_stack.is_free());
        assert!(!hook_stack.is_given_up());
        assert!(matches!(said[..], [Err(_), Err(_)]));
        assert_eq!(hook_stack.run(|| 1).await, 1);
    }

    #[tokio::test]
    async fn what_a_job_took_and_returns_is_dropped_once() {
        let hook_stack = HookStack::new(STACK_BYTES).unwrap();
        let value = Rc::new(());
        for waits in [false, true] {
            let given = Rc::clone(&value);
            let started = hook_stack.start(move || {
                let _ = suspend(Box::pin(yield_now()));
                given
            });
            let Started::Suspended(suspended) = started else {
                panic!("it pauses")
            };
            assert_eq!(Rc::strong_count(&value), 2);
            match waits {
                true => drop(suspended.finish().await),
                false => drop(suspended),
            }
            assert_eq!(Rc::strong_count(&value), 1);
            assert!(hook_stack.is_free());
        }
    }

    #[tokio::test]
    async fn a_panic_goes_on_where_the_job_was_begun() {
        let hook_stack = HookStack::new(STACK_BYTES).unwrap();
        let mut run = pin!(hook_stack.run(|| {
            suspend(Box::pin(yield_now())).unwrap();
            std::panic::panic_any(7);
        }));
        let panic = poll_fn(
            |cx| match catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(cx))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(())) => unreachable!("the job has panicked"),
                Err(panic) => Poll::Ready(panic),
            },
        );
        assert_eq!(panic.await.downcast_ref(), Some(&7));
        assert_eq!(hook_stack.run(|| 1).await, 1);
    }

    #[test]
    fn a_future_that_is_forgotten_leaves_the_lane_taken() {
        let hook_stack = HookStack::new(STACK_BYTES).unwrap();
        let mut run = Box::pin(hook_stack.run(|| suspend(Box::pin(yield_now())).is_ok()));
        let polled = run
            .as_mut()
            .poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        assert!(polled.is_pending());
        mem::forget(run);
        assert!(!hook_stack.is_free());
    }

    #[test]
    fn outside_of_a_lane_there_is_nothing_to_leave() {
        assert!(suspend(Box::pin(async {})).is_err());
    }
}
