//! One plugin's turn in a phase or a filter: its hook is run and `on_error` applied.

use std::rc::Rc;

use castling_abi::{Action, Hook};
use tracing::error;

use super::demand::Supplier;
use super::plugin::{Called, HookError, Plugin};
use super::taken::PinnedInstances;
use crate::config::OnError;
use crate::error::{Error, PluginFault};
use crate::exchange::{Answer, Exchange};

#[derive(Clone)]
pub struct Step {
    pub plugin: Rc<Plugin>,
    /// The plugin's own, unless the route or listener says another.
    pub on_error: OnError,
}

/// What comes after a step.
pub enum Next {
    Step,
    /// The hook failed and the plugin's `on_error` is `skip`; what it did before that may stand.
    Skipped,
    Answer(Answer),
    /// From `rewrite` only.
    Reroute,
}

impl Step {
    pub fn new(plugin: &Rc<Plugin>, on_error: Option<OnError>) -> Self {
        Self {
            plugin: Rc::clone(plugin),
            on_error: on_error.unwrap_or(plugin.on_error),
        }
    }

    /// Those of the plugins that implement the hook, in their order.
    pub fn list(plugins: &[Self], hook: Hook) -> Box<[Self]> {
        let implementing = plugins.iter().filter(|step| step.plugin.implements(hook));
        implementing.cloned().collect()
    }

    /// `token-auth`, `hello (on_error skip)`.
    pub fn describe(&self) -> String {
        match self.on_error {
            OnError::Deny => self.plugin.name.to_string(),
            OnError::Skip => format!("{} (on_error skip)", self.plugin.name),
        }
    }

    pub async fn run(
        &self,
        hook: Hook,
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
        supplier: &mut impl Supplier,
        args: (u32, u32, u32),
    ) -> Result<Next, Error> {
        let plugin = &self.plugin;
        let called = match plugin.take_for_lane() {
            Some(taken) => match plugin.call_now(taken, hook, exchange, args) {
                Called::Now(called) => called,
                Called::Later(called) => called.await,
            },
            None => plugin.call(hook, exchange, pinned, supplier, args).await,
        };
        self.next(hook, exchange, called)
    }

    /// What comes after what the hook has returned.
    #[inline(never)]
    fn next(
        &self,
        hook: Hook,
        exchange: &mut Exchange,
        called: Result<Action, HookError>,
    ) -> Result<Next, Error> {
        let plugin = &self.plugin;
        let fault = match called {
            Ok(Action::Continue) => return Ok(Next::Step),
            Ok(Action::Reroute) if hook == Hook::Rewrite => return Ok(Next::Reroute),
            Ok(Action::Answer) => match exchange.answer.take() {
                Some(answer) => return Ok(Next::Answer(answer)),
                None => {
                    error!(plugin = %plugin.name, hook = hook.name(), "said it answers, without an answer");
                    PluginFault::Failed
                }
            },
            Ok(action @ (Action::Reroute | Action::Failed)) => {
                error!(plugin = %plugin.name, hook = hook.name(), "asked to {}, which this hook cannot", action.name());
                PluginFault::Failed
            }
            Err(HookError::Cancelled(error)) => return Err(*error),
            Err(HookError::Exhausted(_) | HookError::Quarantined) => PluginFault::Exhausted,
            Err(HookError::Failed(_) | HookError::Trapped(_)) => PluginFault::Failed,
        };
        exchange.answer = None;
        match self.on_error {
            OnError::Skip => Ok(Next::Skipped),
            OnError::Deny => Err(Error::Plugin {
                plugin: plugin.name.to_string(),
                what: fault,
            }),
        }
    }

    /// Runs the steps until one does not say to go on.
    pub async fn run_all(
        steps: impl IntoIterator<Item = &Self>,
        hook: Hook,
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
        supplier: &mut impl Supplier,
    ) -> Result<Next, Error> {
        let args = (0, 0, 0);
        for step in steps {
            let plugin = &step.plugin;
            // As in `run`: a future for each step takes a hundred instructions.
            let called = match plugin.take_for_lane() {
                Some(taken) => match plugin.call_now(taken, hook, exchange, args) {
                    Called::Now(Ok(Action::Continue)) => continue,
                    Called::Now(called) => called,
                    Called::Later(called) => called.await,
                },
                None => plugin.call(hook, exchange, pinned, supplier, args).await,
            };
            match step.next(hook, exchange, called)? {
                Next::Step | Next::Skipped => {}
                next @ (Next::Answer(_) | Next::Reroute) => return Ok(next),
            }
        }
        Ok(Next::Step)
    }
}
