//! Variables by which a peer is chosen, computed before one is.

use super::pipeline::Pipeline;
use super::variables::compute;
use crate::error::Error;
use crate::phase::UpstreamIdx;

impl Pipeline<'_> {
    /// Computes the variables by which a peer of this upstream is chosen. Boxed by its caller: few requests come here.
    #[cold]
    pub async fn compute_keys(&mut self, upstream: UpstreamIdx) -> Result<(), Error> {
        let worker = self.worker;
        for name in &worker.upstream(upstream).key_variables {
            let context = self.exchange.context();
            let Some(idx) = context.uncomputed(name.as_bytes()) else {
                continue;
            };
            if context.vars.get(name.as_bytes()).is_some() {
                continue;
            }
            let (plan, mut io, exchange, pinned) = self.for_plugins(None);
            compute(&plan.get().variables, idx, exchange, pinned, &mut io).await?;
        }
        Ok(())
    }
}
