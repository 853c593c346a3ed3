//! The instance that judges an upstream's peers.

use std::borrow::BorrowMut;
use std::rc::Rc;

use castling_abi::{BALANCE_DECLINED, Hook};

use super::super::demand::NoSupplier;
use super::super::instance::Instance;
use super::super::lane::Soon;
use super::super::taken::{Judge, PinnedInstances, Taken};
use super::{HookError, Plugin};
use crate::exchange::Exchange;

/// What a plugin says of an upstream's peers.
pub type Judged<'a> = Soon<'a, Opinion>;

/// What the hook has returned: an `i32`, but as wide as what there is else, so that it goes from function to function in
/// registers.
pub type Opinion = Result<i64, Box<HookError>>;

impl Plugin {
    /// Runs `balance` or `peer_done` on the one instance that judges an upstream's peers, so that what it has learnt is
    /// in one place. It is beyond `limits.instances`: there is one for each upstream. A trap empties the slot; the next
    /// call fills it again.
    #[inline]
    pub fn judge<'a>(
        self: &'a Rc<Self>,
        mut judge: impl BorrowMut<Judge> + 'a,
        hook: Hook,
        exchange: &'a mut Box<Exchange>,
        args: (u32, u32, u32),
    ) -> Judged<'a> {
        match self.lane_when_quick() {
            Some(lane) if judge.borrow().is_usable() => {
                let judged = lane.begin(move || {
                    let judge = judge.borrow_mut();
                    let judged = self.judge_on_lane(judge, hook, exchange, args);
                    opinion(judged)
                });
                judged.into()
            }
            _ => Judged::Later(Box::pin(async move {
                let judge = judge.borrow_mut();
                let judged = self.judge_later(judge, hook, exchange, args).await;
                opinion(judged)
            })),
        }
    }

    /// Within a job on the lane.
    #[inline]
    fn judge_on_lane(
        &self,
        judge: &mut Judge,
        hook: Hook,
        exchange: &mut Box<Exchange>,
        args: (u32, u32, u32),
    ) -> Result<i32, HookError> {
        let Some(taken) = &mut judge.0 else {
            return Ok(BALANCE_DECLINED);
        };
        self.count_call();
        let result = taken.instance_mut().call_on_lane(hook, exchange, args);
        if result.is_err() && self.engine.lane.is_given_up() {
            // Nobody hears it.
            return Ok(BALANCE_DECLINED);
        }
        let result = self.ended(&mut taken.instance, hook, exchange, result);
        if taken.instance.is_none() {
            judge.0 = None;
        }
        result
    }

    async fn judge_later(
        self: &Rc<Self>,
        judge: &mut Judge,
        hook: Hook,
        exchange: &mut Box<Exchange>,
        args: (u32, u32, u32),
    ) -> Result<i32, HookError> {
        if !judge.is_usable() {
            self.appoint(judge, hook, exchange).await?;
        }
        let Some(taken) = &mut judge.0 else {
            return Ok(BALANCE_DECLINED);
        };
        let result = self
            .call_on(
                taken,
                hook,
                exchange,
                &mut PinnedInstances::default(),
                &mut NoSupplier,
                args,
            )
            .await;
        let kept = match &mut taken.instance {
            // State of this request is nothing for the next one.
            Some(instance) if self.manifest.state => {
                instance.reset_state(self.lane()).await.is_ok()
            }
            Some(_) => true,
            None => false,
        };
        if !kept {
            judge.0 = None;
        }
        result
    }

    /// Makes the instance that judges.
    async fn appoint(
        self: &Rc<Self>,
        judge: &mut Judge,
        hook: Hook,
        exchange: &Exchange,
    ) -> Result<(), HookError> {
        if judge.0.take().is_some() {
            self.quarantine.abandoned();
        }
        if !self.quarantine.admits(Some(exchange)) {
            return Err(HookError::Quarantined);
        }
        let made = Instance::new(&self.engine, &self.code, &self.blueprint).await;
        let instance = made.inspect_err(|e| self.count(hook, None, e))?;
        judge.0 = Some(Taken {
            instance: Some(instance),
            plugin: Rc::clone(self),
            counted: false,
        });
        Ok(())
    }
}

#[inline]
fn opinion(judged: Result<i32, HookError>) -> Opinion {
    judged.map(i64::from).map_err(Box::new)
}
