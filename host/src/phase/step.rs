//! Steps of a phase or a filter: a plugin's hook with its `on_error`, or something that the gateway does itself.

use std::rc::Rc;

use castling_abi::{Action, Hook};
use tracing::error;

use super::Check;
use crate::config::{OnError, Redirect};
use crate::error::{Error, PluginFault};
use crate::exchange::{Answer, Exchange, PluginKey, Section, Stage};
use crate::wasm::{HookCall, HookError, HostIo, MaybeFuture, PinnedInstances, Plugin};

/// A step of a phase or a filter.
pub enum Step {
    Plugin(PluginStep),
    Check(Check),
    Native(Native),
}

/// A plugin's turn: its hook is run, and `on_error` applied.
#[derive(Clone)]
pub struct PluginStep {
    pub plugin: Rc<Plugin>,
    /// The plugin's own, unless the route or listener says another.
    pub on_error: OnError,
}

/// A step of the gateway's own, which the flow takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Native {
    /// Answers with the gateway's metrics. In `content`.
    Metrics,
    /// Sends the client to https. In `content`.
    Redirect(Redirect),
}

/// Continuation after a step.
pub enum Next {
    Step,
    /// The hook failed and the plugin's `on_error` is `skip`; what it did before that may stand.
    Skipped,
    Answer(Answer),
    /// From `rewrite` only.
    Reroute,
    /// From `content` only: the hook has written the whole response.
    Streamed,
    /// The flow is to do this.
    Native(Native),
}

/// How far steps have come that were run at once.
pub struct Progress {
    /// Steps that have said to go on.
    passed: usize,
    /// Result of the next one; `None`: it was not run, or there is none. In a box, so that it fits into registers.
    returned: Option<Box<Result<Action, HookError>>>,
}

impl Progress {
    /// All of these steps have said to go on.
    #[inline]
    pub fn is_through(&self, steps: &[Step]) -> bool {
        self.passed == steps.len()
    }
}

impl Step {
    /// Key of the plugin whose step it is.
    #[inline]
    pub fn key(&self) -> Option<PluginKey> {
        let step = self.plugin()?;
        Some(PluginKey::of(&step.plugin.name))
    }

    /// Whether its hook may send parts of a body on before it returns.
    #[inline]
    pub fn emits(&self) -> bool {
        self.plugin().is_some_and(|step| step.plugin.emits)
    }

    #[inline]
    pub fn plugin(&self) -> Option<&PluginStep> {
        match self {
            Self::Plugin(step) => Some(step),
            Self::Check(_) | Self::Native(_) => None,
        }
    }

    /// Runs the steps one after the other in one visit to the hook stack, as long as they say to go on and can be run there.
    /// The rest is for [`Self::run_rest`].
    #[inline]
    pub fn go<'a>(
        steps: &'a [Self],
        call: HookCall,
        exchange: &'a mut Box<Exchange>,
    ) -> MaybeFuture<'a, Progress> {
        let begun = steps.first().and_then(Self::plugin).and_then(|first| {
            let job = move || Self::run_on_stack(steps, call, exchange);
            first.plugin.run_on_stack(job)
        });
        begun.unwrap_or(MaybeFuture::Ready(Progress {
            passed: 0,
            returned: None,
        }))
    }

    fn run_on_stack(steps: &[Self], call: HookCall, exchange: &mut Box<Exchange>) -> Progress {
        let mut passed = 0;
        for step in steps {
            let Self::Plugin(step) = step else {
                break;
            };
            match step.plugin.call_on_stack(call, exchange) {
                Some(Ok(Action::Continue)) => passed += 1,
                returned => {
                    let returned = returned.map(Box::new);
                    return Progress { passed, returned };
                }
            }
        }
        Progress {
            passed,
            returned: None,
        }
    }

    /// Runs this step alone.
    pub async fn run(
        &self,
        call: HookCall,
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
        io: &mut dyn HostIo,
    ) -> Result<Next, Error> {
        match self {
            Self::Plugin(step) => step.run(call, exchange, pinned, io).await,
            Self::Check(check) => check.run(exchange).map(|()| Next::Step),
            Self::Native(native) => Ok(Next::Native(*native)),
        }
    }

    /// Runs the steps after [`Self::go`], until one does not say to go on. Returns how many were run, too.
    pub async fn run_rest(
        steps: &[Self],
        mut progress: Progress,
        call: HookCall,
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
        io: &mut dyn HostIo,
    ) -> Result<(usize, Next), Error> {
        let mut run = progress.passed;
        while let Some(step) = steps.get(run) {
            run += 1;
            let step = match step {
                Self::Plugin(step) => step,
                Self::Check(check) => {
                    check.run(exchange)?;
                    progress = Self::go(&steps[run..], call, exchange).finish().await;
                    run += progress.passed;
                    continue;
                }
                Self::Native(native) => return Ok((run, Next::Native(*native))),
            };
            let returned = match progress.returned.take() {
                Some(returned) => *returned,
                None => step.plugin.call(call, exchange, pinned, io).await,
            };
            match step.next(call.hook(), exchange, returned)? {
                Next::Step | Next::Skipped => {}
                next => return Ok((run, next)),
            }
            progress = Self::go(&steps[run..], call, exchange).finish().await;
            run += progress.passed;
        }
        Ok((run, Next::Step))
    }
}

impl PluginStep {
    pub fn new(plugin: &Rc<Plugin>, on_error: Option<OnError>) -> Self {
        Self {
            plugin: Rc::clone(plugin),
            on_error: on_error.unwrap_or(plugin.on_error),
        }
    }

    /// Lists the plugins that implement the hook, in their order.
    pub fn list(plugins: &[Self], hook: Hook) -> impl Iterator<Item = Self> {
        let implementing = plugins
            .iter()
            .filter(move |step| step.plugin.implements(hook));
        implementing.cloned()
    }

    /// `token-auth`, `hello (on_error skip)`.
    pub fn describe(&self) -> String {
        match self.on_error {
            OnError::Deny => self.plugin.name.to_string(),
            OnError::Skip => format!("{} (on_error skip)", self.plugin.name),
        }
    }

    /// Runs this step alone.
    pub async fn run(
        &self,
        call: HookCall,
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
        io: &mut dyn HostIo,
    ) -> Result<Next, Error> {
        let job = || self.plugin.call_on_stack(call, exchange);
        let returned = match self.plugin.run_on_stack(job) {
            Some(MaybeFuture::Ready(returned)) => returned,
            Some(MaybeFuture::Pending(returned)) => returned.await,
            None => None,
        };
        let returned = match returned {
            Some(returned) => returned,
            None => self.plugin.call(call, exchange, pinned, io).await,
        };
        self.next(call.hook(), exchange, returned)
    }

    /// Decides what comes after what the hook has returned.
    #[inline(never)]
    fn next(
        &self,
        hook: Hook,
        exchange: &mut Exchange,
        called: Result<Action, HookError>,
    ) -> Result<Next, Error> {
        let plugin = &self.plugin;
        let has_begun = hook == Hook::Content && exchange.stage() == Stage::Body;
        let fault = match called {
            Ok(Action::Continue) if has_begun => {
                error!(plugin = %plugin.name, hook = hook.name(), "declined, after it had begun a response");
                PluginFault::Failed
            }
            Ok(Action::Continue) => return Ok(Next::Step),
            Ok(Action::Reroute) if hook == Hook::Rewrite => return Ok(Next::Reroute),
            // An answer that a filter has left behind must not follow the response that is out.
            Ok(Action::Answer) if has_begun => {
                exchange.take_answer();
                return Ok(Next::Streamed);
            }
            Ok(Action::Answer) => match exchange.take_answer() {
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
            Err(error) => error.into_fault().map_err(|error| *error)?,
        };
        exchange.take_answer();
        let key = PluginKey::of(&plugin.name);
        let is_of_response = matches!(hook, Hook::ResponseHeaders | Hook::ResponseBody);
        match self.on_error {
            // The head may say something of the body that is not so: that a coding is none any more, say.
            OnError::Skip
                if is_of_response
                    && exchange
                        .context()
                        .usage
                        .has_changed(key, Section::ReplyHead) =>
            {
                Err(Error::Plugin {
                    plugin: plugin.name.to_string(),
                    what: PluginFault::HalfDone,
                })
            }
            // Another response cannot follow the head that is out.
            OnError::Skip if !has_begun => Ok(Next::Skipped),
            OnError::Skip | OnError::Deny => Err(Error::Plugin {
                plugin: plugin.name.to_string(),
                what: fault,
            }),
        }
    }
}
