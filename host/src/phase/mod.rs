//! The phases before a response: what each route runs, in one flat list made at load.

mod check;
mod condition;
mod expression;
mod host_routes;
mod order;
mod paths;
mod plan;
mod route;
mod split;
mod step;

use std::cell::Cell;

use castling_abi::Hook;

pub use check::Check;
pub use order::{Order, Outcome, Precedence, Turn, conditions};
pub use plan::{Computed, MAX_COMPUTED, Plan, RoutePlan, UpstreamIdx};
pub use route::Router;
pub use split::{Split, Upstreams};
pub use step::{Native, Next, PluginStep, Progress, Step};

use crate::error::Error;
use crate::exchange::{Answer, Exchange};
use crate::wasm::{HookCall, HostIo, MaybeFuture, PinnedInstances};

/// Decision of the phases.
pub enum Verdict {
    Answer(Answer),
    Proxy(UpstreamIdx),
    /// The request goes to the upstream that a plugin has chosen.
    ProxyToChosen,
    /// The gateway makes the answer itself.
    Native(Native),
    /// A `content` hook has written the whole response.
    Streamed,
}

/// A request is routed at most this many times; a rewrite that asks again fails it (nginx: 10 internal redirects).
const MAX_ROUTINGS: u32 = 10;

/// A request on its way through its phases: it owns the list of steps that is next, so that what was run and what is to be
/// run cannot be of two lists.
pub struct Phases<'p> {
    router: &'p Router,
    hook: Hook,
    /// Steps that are next. Empty: the request is through.
    steps: &'p [Step],
    /// Index of the list after these in [`Plan::phases`].
    next: usize,
    routings: u32,
}

impl<'p> Phases<'p> {
    /// Begins before routing. `plan` becomes the plan of the request's route, as soon as it has one.
    #[inline]
    pub fn begin(
        router: &'p Router,
        plan: &Cell<&'p Plan>,
        exchange: &mut Exchange,
    ) -> Result<Self, Error> {
        exchange
            .context_mut()
            .computable
            .clone_from(&plan.get().computable);
        let mut phases = Self {
            router,
            hook: Hook::PostRead,
            steps: &router.post_read,
            next: 0,
            routings: 0,
        };
        if phases.steps.is_empty() {
            phases.advance(plan, exchange)?;
        }
        Ok(phases)
    }

    /// Whether nothing is left to be run.
    #[inline]
    pub fn are_over(&self) -> bool {
        self.steps.is_empty()
    }

    /// Runs the steps that are next, as far as they can be run at once: mostly to their end, with no future.
    #[inline]
    pub fn start<'a>(&'a self, exchange: &'a mut Box<Exchange>) -> MaybeFuture<'a, Progress> {
        Step::go(self.steps, HookCall::plain(self.hook), exchange)
    }

    /// Whether all phases are through with this progress of [`Self::start`].
    #[inline]
    pub fn are_through(&self, progress: &Progress, plan: &Plan) -> bool {
        let is_last = self.hook != Hook::PostRead && plan.phases(self.next).is_none();
        progress.is_through(self.steps) && (self.steps.is_empty() || is_last)
    }

    /// Goes on after [`Self::start`] until all phases are through, or one has answered.
    pub async fn run(
        &mut self,
        progress: Progress,
        plan: &Cell<&'p Plan>,
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
        io: &mut dyn HostIo,
    ) -> Result<Verdict, Error> {
        let mut progress = Some(progress);
        while !self.are_over() {
            let progress = match progress.take() {
                Some(progress) => progress,
                None => self.start(exchange).finish().await,
            };
            let call = HookCall::plain(self.hook);
            let run = Step::run_rest(self.steps, progress, call, exchange, pinned, io);
            match run.await?.1 {
                Next::Step | Next::Skipped => self.advance(plan, exchange)?,
                Next::Answer(answer) => return Ok(Verdict::Answer(answer)),
                Next::Native(native) => return Ok(Verdict::Native(native)),
                Next::Streamed => return Ok(Verdict::Streamed),
                Next::Reroute if self.routings == MAX_ROUTINGS => {
                    return Err(Error::TooManyReroutes(self.routings));
                }
                Next::Reroute => self.route(plan, exchange)?,
            }
        }
        verdict(plan.get(), exchange)
    }

    /// Moves on to the next list that has steps, by way of a route after the first.
    fn advance(&mut self, plan: &Cell<&'p Plan>, exchange: &mut Exchange) -> Result<(), Error> {
        match self.hook {
            Hook::PostRead => self.route(plan, exchange),
            _ => {
                self.enter(plan.get());
                Ok(())
            }
        }
    }

    /// Routes the request, and begins with the phases of its route.
    fn route(&mut self, plan: &Cell<&'p Plan>, exchange: &mut Exchange) -> Result<(), Error> {
        self.routings += 1;
        self.next = 0;
        self.enter(enter_route(self.router, plan, exchange)?);
        Ok(())
    }

    #[inline]
    fn enter(&mut self, plan: &'p Plan) {
        match plan.phases(self.next) {
            Some((at, hook, steps)) => (self.next, self.hook, self.steps) = (at + 1, hook, steps),
            // Past `post_read`, which alone comes before a route.
            None => (self.hook, self.steps) = (Hook::Content, &[]),
        }
    }
}

fn enter_route<'p>(
    router: &'p Router,
    plan: &Cell<&'p Plan>,
    exchange: &mut Exchange,
) -> Result<&'p Plan, Error> {
    let current = router.route(exchange)?;
    plan.set(current);
    exchange.set_route(current.route.as_ref());
    // Values that an earlier route has computed stay; its plugins' bits are another list's.
    exchange
        .context_mut()
        .computable
        .clone_from(&current.computable);
    exchange.context_mut().computed = 0;
    Ok(current)
}

/// When all phases are through.
pub fn verdict(plan: &Plan, exchange: &Exchange) -> Result<Verdict, Error> {
    if exchange.context().chosen_upstream.is_some() {
        return Ok(Verdict::ProxyToChosen);
    }
    match plan.upstreams.choose(exchange) {
        Some(upstream) => Ok(Verdict::Proxy(upstream)),
        // Every step of `content` has declined and there is nobody else to ask.
        None => Err(Error::NoRoute),
    }
}
