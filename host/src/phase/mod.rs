//! The phases before a response: what each route runs, in one flat list made at load.

mod path;
mod plan;
mod route;

use std::cell::RefCell;
use std::rc::Rc;

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

/// Runs a request through its phases. `plan` becomes the plan of its route, as soon as it has one.
pub async fn run(
    router: &Router,
    plan: &RefCell<Rc<Plan>>,
    exchange: &mut Box<Exchange>,
    pinned: &mut PinnedInstances,
    supplier: &mut impl Supplier,
) -> Result<Verdict, Error> {
    exchange.computable.clone_from(&plan.borrow().computable);
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
    let current = loop {
        if routings == MAX_ROUTINGS {
            return Err(Error::TooManyReroutes(routings));
        }
        routings += 1;
        let current = router.route(&exchange.request)?;
        plan.replace(Rc::clone(&current));
        exchange.route.clone_from(&current.route);
        // What an earlier route has computed stays; its plugins' bits are another list's.
        exchange.computable.clone_from(&current.computable);
        exchange.computed = 0;
        match Step::run_all(&current.rewrite, Hook::Rewrite, exchange, pinned, supplier).await? {
            Next::Step | Next::Skipped => break current,
            Next::Answer(answer) => return Ok(Verdict::Answer(answer)),
            Next::Reroute => {}
        }
    };
    for (hook, list) in [
        (Hook::Preaccess, &current.preaccess),
        (Hook::Access, &current.access),
        (Hook::Content, &current.content),
    ] {
        if let Next::Answer(answer) = Step::run_all(list, hook, exchange, pinned, supplier).await? {
            return Ok(Verdict::Answer(answer));
        }
    }
    match current.upstream {
        Some(upstream) => Ok(Verdict::Proxy(upstream)),
        None if current.metrics => Ok(Verdict::Metrics),
        // Every `content` plugin has declined and there is nobody else to ask.
        None => Err(Error::NoRoute),
    }
}
