//! The instance that balances an upstream.

use std::borrow::BorrowMut;
use std::rc::Rc;

use castling_abi::{BALANCE_DECLINED, Hook};

use super::super::hook_call::HookCall;
use super::super::hook_error::HookError;
use super::super::hook_stack::MaybeFuture;
use super::super::host_io::NoIo;
use super::super::instance::Instance;
use super::super::instance_guard::{InstanceGuard, PinnedInstances, PolicyInstance};
use super::Plugin;
use crate::exchange::Exchange;

/// Result of the hook: an `i32`, but as wide as what there is else, so that it goes from function to function in
/// registers.
pub type PolicyResult = Result<i64, Box<HookError>>;

impl Plugin {
    /// Runs `balance` or `peer_done` on the one instance that balances an upstream, so that what it has learnt is
    /// in one place. It is beyond `limits.instances`: there is one for each upstream. A trap empties the slot; the next
    /// call fills it again.
    #[inline]
    pub fn call_policy<'a>(
        self: &'a Rc<Self>,
        mut policy: impl BorrowMut<PolicyInstance> + 'a,
        call: HookCall,
        exchange: &'a mut Box<Exchange>,
    ) -> MaybeFuture<'a, PolicyResult> {
        match self.stack_when_quick() {
            Some(hook_stack) if policy.borrow().is_usable() => {
                let result = hook_stack.start(move || {
                    let policy = policy.borrow_mut();
                    let result = self.call_policy_on_stack(policy, call, exchange);
                    widened(result)
                });
                result.into()
            }
            _ => MaybeFuture::Pending(Box::pin(async move {
                let policy = policy.borrow_mut();
                let result = self.call_policy_later(policy, call, exchange).await;
                widened(result)
            })),
        }
    }

    /// Within a job on the hook stack.
    #[inline]
    fn call_policy_on_stack(
        &self,
        policy: &mut PolicyInstance,
        call: HookCall,
        exchange: &mut Box<Exchange>,
    ) -> Result<i32, HookError> {
        let Some(guard) = &mut policy.0 else {
            return Ok(BALANCE_DECLINED);
        };
        self.count_call();
        let result = guard.instance_mut().call_on_stack(call, exchange);
        if result.is_err() && self.engine.hook_stack.is_given_up() {
            // The result is heard by nobody.
            return Ok(BALANCE_DECLINED);
        }
        let result = self.ended(&mut guard.instance, call.hook(), exchange, result);
        if guard.instance.is_none() {
            policy.0 = None;
        }
        result
    }

    async fn call_policy_later(
        self: &Rc<Self>,
        policy: &mut PolicyInstance,
        call: HookCall,
        exchange: &mut Box<Exchange>,
    ) -> Result<i32, HookError> {
        if !policy.is_usable() {
            self.create(policy, call.hook(), exchange).await?;
        }
        let Some(guard) = &mut policy.0 else {
            return Ok(BALANCE_DECLINED);
        };
        let result = self
            .call_on(
                guard,
                call,
                exchange,
                &mut PinnedInstances::default(),
                &mut NoIo,
            )
            .await;
        let kept = match &mut guard.instance {
            // State of this request is nothing for the next one.
            Some(instance) if self.manifest.state => {
                instance.reset_state(self.hook_stack()).await.is_ok()
            }
            Some(_) => true,
            None => false,
        };
        if !kept {
            policy.0 = None;
        }
        result
    }

    /// Makes the instance that balances.
    async fn create(
        self: &Rc<Self>,
        policy: &mut PolicyInstance,
        hook: Hook,
        exchange: &Exchange,
    ) -> Result<(), HookError> {
        if policy.0.take().is_some() {
            self.quarantine.abandoned();
        }
        if !self.quarantine.admits(Some(exchange)) {
            return Err(HookError::Quarantined);
        }
        let made = Instance::new(&self.engine, &self.code, &self.template).await;
        let instance = made.inspect_err(|e| self.count(hook, None, e))?;
        policy.0 = Some(InstanceGuard {
            instance: Some(instance),
            plugin: Rc::clone(self),
            counted: false,
        });
        Ok(())
    }
}

#[inline]
fn widened(result: Result<i32, HookError>) -> PolicyResult {
    result.map(i64::from).map_err(Box::new)
}
