//! The phases before a response: what each route runs, in one flat list made at load.

mod paths;
mod plan;
mod route;

use std::cell::Cell;

use castling_abi::Hook;

pub use plan::{MAX_COMPUTED, Plan, UpstreamIdx};
pub use route::Router;

use crate::error::Error;
use crate::exchange::{Answer, Exchange};
use crate::wasm::{HostIo, Next, PinnedInstances, Progress, Step};

/// What the phases have decided.
pub enum Verdict {
    Answer(Answer),
    Proxy(UpstreamIdx),
    /// The gateway's metrics are the answer.
    Metrics,
}

/// A request is routed at most this many times; a rewrite that asks again fails it (nginx: 10 internal redirects).
const MAX_ROUTINGS: u32 = 10;

/// How the phases of a request begin.
pub enum Start<'p> {
    /// No plugin is asked.
    Verdict(Verdict),
    /// These are.
    First(First<'p>),
}

/// The first steps of a request.
pub struct First<'p> {
    pub hook: Hook,
    pub steps: &'p [Step],
    /// There are no others.
    is_only: bool,
}

impl First<'_> {
    /// After [`Step::go`]: the phases are through, and [`run`] has nothing more to do.
    pub fn is_all(&self, progress: &Progress) -> bool {
        self.is_only && progress.is_through(self.steps)
    }
}

/// Finds the route of a request, and what runs first for it. `plan` becomes the plan of its route, as soon as it has one.
pub fn begin<'p>(
    router: &'p Router,
    plan: &Cell<&'p Plan>,
    exchange: &mut Exchange,
) -> Result<Start<'p>, Error> {
    exchange.computable.clone_from(&plan.get().computable);
    if !router.post_read.is_empty() {
        return Ok(Start::First(First {
            hook: Hook::PostRead,
            steps: &router.post_read,
            is_only: false,
        }));
    }
    let current = enter_route(router, plan, exchange)?;
    let mut phases = current.phases();
    match phases.next() {
        Some((hook, steps)) => Ok(Start::First(First {
            hook,
            steps,
            is_only: phases.next().is_none(),
        })),
        None => verdict(current).map(Start::Verdict),
    }
}

/// Runs a request through its phases, after [`begin`] and [`Step::go`] for the first of them.
pub async fn run<'p>(
    router: &'p Router,
    plan: &Cell<&'p Plan>,
    exchange: &mut Box<Exchange>,
    pinned: &mut PinnedInstances,
    io: &mut impl HostIo,
    first: Progress,
) -> Result<Verdict, Error> {
    let mut started = Some(first);
    let mut go_on = async |steps, hook, exchange: &mut Box<Exchange>| match started.take() {
        Some(progress) => Step::run_rest(steps, progress, hook, exchange, pinned, io).await,
        None => Step::run_all(steps, hook, exchange, pinned, io).await,
    };
    if !router.post_read.is_empty() {
        let (_, next) = go_on(&router.post_read, Hook::PostRead, exchange).await?;
        if let Next::Answer(answer) = next {
            return Ok(Verdict::Answer(answer));
        }
        enter_route(router, plan, exchange)?;
    }
    let mut routings = 1;
    let current = loop {
        let current = plan.get();
        if current.rewrite.is_empty() {
            break current;
        }
        match go_on(&current.rewrite, Hook::Rewrite, exchange).await?.1 {
            Next::Step | Next::Skipped => break current,
            Next::Answer(answer) => return Ok(Verdict::Answer(answer)),
            Next::Reroute => {}
        }
        if routings == MAX_ROUTINGS {
            return Err(Error::TooManyReroutes(routings));
        }
        routings += 1;
        enter_route(router, plan, exchange)?;
    };
    for (hook, steps) in current.phases() {
        if hook != Hook::Rewrite
            && let (_, Next::Answer(answer)) = go_on(steps, hook, exchange).await?
        {
            return Ok(Verdict::Answer(answer));
        }
    }
    verdict(current)
}

fn enter_route<'p>(
    router: &'p Router,
    plan: &Cell<&'p Plan>,
    exchange: &mut Exchange,
) -> Result<&'p Plan, Error> {
    let current = router.route(exchange)?;
    plan.set(current);
    match &current.route {
        Some(route) => exchange.route.set(route),
        None => exchange.route.unset(),
    }
    // What an earlier route has computed stays; its plugins' bits are another list's.
    exchange.computable.clone_from(&current.computable);
    exchange.computed = 0;
    Ok(current)
}

/// When all phases are through.
pub fn verdict(plan: &Plan) -> Result<Verdict, Error> {
    match plan.upstream {
        Some(upstream) => Ok(Verdict::Proxy(upstream)),
        None if plan.metrics => Ok(Verdict::Metrics),
        // Every `content` plugin has declined and there is nobody else to ask.
        None => Err(Error::NoRoute),
    }
}
