//! Places of host calls: hooks, and stages of an exchange.

use crate::Hook;

/// Stage of an exchange, which decides what a guest may change. Hooks run at one after the other, never back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// No request: the instance is being configured, or lent to nobody.
    Idle,
    /// The request's head may be read and changed.
    Request,
    /// A peer is being chosen or judged; nothing may be changed.
    Balance,
    /// The response's head may be changed too.
    Reply,
    /// Chunks of the response's body pass by.
    Body,
    /// All is over.
    Log,
}

impl Stage {
    /// Every stage, in the order of an exchange's life.
    pub const ALL: [Self; 6] = [
        Self::Idle,
        Self::Request,
        Self::Balance,
        Self::Reply,
        Self::Body,
        Self::Log,
    ];

    /// Stage at which a hook (`None`: `configure`) begins, of those that have one of their own. `variable` runs at the stage of whoever
    /// asks; `request_body` may run later, too, while the response is on its way.
    pub const fn of(hook: Option<Hook>) -> Self {
        match hook {
            None | Some(Hook::Timer | Hook::Message) => Self::Idle,
            Some(
                Hook::PostRead
                | Hook::Rewrite
                | Hook::Preaccess
                | Hook::Access
                | Hook::Content
                | Hook::Variable,
            ) => Self::Request,
            Some(Hook::Balance | Hook::PeerDone | Hook::RequestBody) => Self::Balance,
            Some(Hook::ResponseHeaders) => Self::Reply,
            Some(Hook::ResponseBody) => Self::Body,
            Some(Hook::Log | Hook::AfterResponse) => Self::Log,
        }
    }
}

/// A set of hooks, `configure` among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hooks(u32);

/// Bit of `configure`, beyond those of hooks.
const CONFIGURE_BIT: u32 = 31;

impl Hooks {
    /// `configure` alone.
    pub const CONFIGURE: Self = Self(1 << CONFIGURE_BIT);

    /// These hooks.
    pub const fn of(hooks: &[Hook]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < hooks.len() {
            bits |= 1 << hooks[at] as u32;
            at += 1;
        }
        Self(bits)
    }

    /// Every hook, and `configure`.
    pub const ALL: Self = Self::of(Hook::ALL).and(Self::CONFIGURE);

    /// These and those.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// These but for those.
    #[must_use]
    pub const fn but(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Whether the hook (`None`: `configure`) is one of them.
    #[inline]
    pub const fn has(self, hook: Option<Hook>) -> bool {
        let bit = match hook {
            Some(hook) => hook as u32,
            None => CONFIGURE_BIT,
        };
        self.0 >> bit & 1 == 1
    }
}

/// Hooks by the stage of the exchange at which they may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place([Hooks; Stage::ALL.len()]);

impl Place {
    const NOWHERE: Self = Self([Hooks(0); Stage::ALL.len()]);

    /// At these stages, in these hooks.
    pub(super) const fn at(stages: &[Stage], hooks: Hooks) -> Self {
        Self::NOWHERE.or(stages, hooks)
    }

    /// At these stages in these hooks, too.
    pub(super) const fn or(mut self, stages: &[Stage], hooks: Hooks) -> Self {
        let mut at = 0;
        while at < stages.len() {
            let stage = stages[at] as usize;
            self.0[stage] = self.0[stage].and(hooks);
            at += 1;
        }
        self
    }

    /// Whether a call may be made in this hook (`None`: in `configure`), at this stage.
    #[inline]
    pub const fn allows(self, hook: Option<Hook>, stage: Stage) -> bool {
        self.0[stage as usize].has(hook)
    }

    /// Whether a call may be made in this hook at any stage.
    pub fn is_of(self, hook: Option<Hook>) -> bool {
        self.0.iter().any(|hooks| hooks.has(hook))
    }
}
