//! The end of a request: variables of the log, `log` hooks, metrics, the line in the access log.

use castling_abi::Hook;

use super::after_response::Admitted;
use super::pipeline::Pipeline;
use super::variables::VariablesOnly;
use crate::exchange::Stage;
use crate::wasm::HookCall;

impl Pipeline<'_> {
    /// Whether plugins have something to do yet, now that the request is over.
    #[inline]
    pub fn has_last_hooks(&mut self) -> bool {
        self.exchange.stats_mut().body_bytes_received = self.body.received_bytes;
        self.exchange.enter(Stage::Log);
        self.plan.get().has_last_hooks || !self.pinned.is_empty()
    }

    /// Computes the variables that the access log shows, runs the `log` hooks, lets go of the instances that were kept for
    /// the request, logs it, and has its `after_response` hooks begin.
    pub async fn run_last_hooks(&mut self) {
        let plan = self.plan.get();
        let mut variables = VariablesOnly(&plan.variables);
        for (idx, variable) in plan.variables.iter().enumerate() {
            let exchange = &self.exchange;
            let names = exchange.context().computable.as_deref().unwrap_or_default();
            let is_there = names
                .get(idx)
                .is_some_and(|name| exchange.context().vars.get(name.as_bytes()).is_some());
            if variable.is_logged && !is_there && exchange.context().computed & (1 << idx) == 0 {
                // The client is not asked any more.
                let _ = variables
                    .compute(idx, self.exchange, &mut self.pinned)
                    .await;
            }
        }
        for step in &plan.log {
            // The exchange is over: a failure is in the log and changes nothing.
            let call = HookCall::plain(Hook::Log);
            let (exchange, pinned) = (&mut *self.exchange, &mut self.pinned);
            let _ = step.run(call, exchange, pinned, &mut variables).await;
        }
        let admitted = Admitted::new(&plan.after_response, &mut self.pinned);
        self.pinned.release().await;
        self.log();
        if let Some(admitted) = admitted {
            (*admitted).begin(self);
        }
    }

    /// Logs and counts the exchange.
    pub fn log(&self) {
        self.service.count(self.exchange, &self.plan.get().requests);
        self.worker.add_to_access_log(self.exchange);
    }
}
