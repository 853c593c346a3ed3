//! The phases before a response: what each route runs, in one flat list made at load.

mod path;
mod plan;
mod route;

use std::rc::Rc;

use castling_abi::Hook;

pub use plan::{Plan, UpstreamIdx};
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

/// Runs a request through its phases. `plan` becomes the plan of its route, as soon as it has one.
pub async fn run(
    router: &Router,
    plan: &mut Rc<Plan>,
    exchange: &mut Box<Exchange>,
    pinned: &mut PinnedInstances,
    supplier: &mut impl Supplier,
) -> Result<Verdict, Error> {
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
    let mut routings = 0;
    loop {
        if routings == MAX_ROUTINGS {
            return Err(Error::TooManyReroutes(routings));
        }
        routings += 1;
        *plan = router.route(&exchange.request)?;
        exchange.route.clone_from(&plan.route);
        match Step::run_all(&plan.rewrite, Hook::Rewrite, exchange, pinned, supplier).await? {
            Next::Step | Next::Skipped => break,
            Next::Answer(answer) => return Ok(Verdict::Answer(answer)),
            Next::Reroute => {}
        }
    }
    for (hook, list) in [
        (Hook::Preaccess, &plan.preaccess),
        (Hook::Access, &plan.access),
        (Hook::Content, &plan.content),
    ] {
        if let Next::Answer(answer) = Step::run_all(list, hook, exchange, pinned, supplier).await? {
            return Ok(Verdict::Answer(answer));
        }
    }
    match plan.upstream {
        Some(upstream) => Ok(Verdict::Proxy(upstream)),
        None if plan.metrics => Ok(Verdict::Metrics),
        // Every `content` plugin has declined and there is nobody else to ask.
        None => Err(Error::NoRoute),
    }
}
