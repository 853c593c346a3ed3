//! The phases before a response: what each route runs, in one flat list made at load.

mod path;
mod plan;
mod route;

use std::cell::Cell;

use castling_abi::Hook;

pub use plan::{MAX_COMPUTED, Plan, UpstreamIdx};
pub use route::Router;

use crate::error::Error;
use crate::exchange::{Answer, Exchange};
use crate::wasm::{Next, PinnedInstances, Step, Supplier};

/// What the phases have decided.
pub enum Verdict {
    Answer(Answer),
    Proxy(UpstreamIdx),
    /// The gateway's metrics are the answer.
    Metrics,
}

/// A request is routed at most this many times; a rewrite that asks again fails it (nginx: 10 internal redirects).
const MAX_ROUTINGS: u32 = 10;

/// Finds the route of a request, and the verdict where no plugin is asked for it. `None` leaves it to [`run`]. `plan`
/// becomes the plan of its route, as soon as it has one.
pub fn begin<'p>(
    router: &'p Router,
    plan: &Cell<&'p Plan>,
    exchange: &mut Exchange,
) -> Result<Option<Verdict>, Error> {
    exchange.computable.clone_from(&plan.get().computable);
    if !router.post_read.is_empty() {
        return Ok(None);
    }
    let current = enter_route(router, plan, exchange)?;
    match current.has_phases() {
        true => Ok(None),
        false => verdict(current).map(Some),
    }
}

/// Runs a request through its phases, after [`begin`].
pub async fn run<'p>(
    router: &'p Router,
    plan: &Cell<&'p Plan>,
    exchange: &mut Box<Exchange>,
    pinned: &mut PinnedInstances,
    supplier: &mut impl Supplier,
) -> Result<Verdict, Error> {
    if !router.post_read.is_empty() {
        if let Next::Answer(answer) = Step::run_all(
            &router.post_read,
            Hook::PostRead,
            exchange,
            pinned,
            supplier,
        )
        .await?
        {
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
        match Step::run_all(&current.rewrite, Hook::Rewrite, exchange, pinned, supplier).await? {
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
    for (hook, list) in [
        (Hook::Preaccess, &current.preaccess),
        (Hook::Access, &current.access),
        (Hook::Content, &current.content),
    ] {
        if !list.is_empty()
            && let Next::Answer(answer) =
                Step::run_all(list, hook, exchange, pinned, supplier).await?
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
    let current = router.route(&exchange.request)?;
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

fn verdict(plan: &Plan) -> Result<Verdict, Error> {
    match plan.upstream {
        Some(upstream) => Ok(Verdict::Proxy(upstream)),
        None if plan.metrics => Ok(Verdict::Metrics),
        // Every `content` plugin has declined and there is nobody else to ask.
        None => Err(Error::NoRoute),
    }
}
