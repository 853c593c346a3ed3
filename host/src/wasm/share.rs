//! Shares of a plugin's instances, by what a call is for.

use castling_abi::Hook;

use crate::config::{PluginLimits, RESERVES};
use crate::exchange::Exchange;

/// Part of a plugin's instances that a call may use. A call that waits keeps its instance, and mostly waits for what comes later
/// in its own or another request's life: so each share has `limits.instance_reserve` instances more than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// Hooks up to the response's head.
    Request,
    /// Hooks of a sub-request, which a hook of its parent waits for with an instance of its own; and variables, which a
    /// hook asks for.
    Nested,
    /// Hooks on the response.
    Response,
    Log,
}

// What the config reckons with.
const _: () = assert!(Share::ALL.len() == 1 + RESERVES);

impl Share {
    pub(super) const ALL: [Self; 4] = [Self::Request, Self::Nested, Self::Response, Self::Log];

    pub(super) fn of(hook: Hook, exchange: &Exchange) -> Self {
        match hook {
            Hook::PostRead
            | Hook::Rewrite
            | Hook::Preaccess
            | Hook::Access
            | Hook::Content
            | Hook::RequestBody
            | Hook::Balance
            | Hook::PeerDone
            | Hook::Timer
            | Hook::Message
            | Hook::AfterResponse => match exchange.context().depth {
                0 => Self::Request,
                _ => Self::Nested,
            },
            Hook::Variable => Self::Nested,
            Hook::ResponseHeaders | Hook::ResponseBody => Self::Response,
            Hook::Log => Self::Log,
        }
    }

    pub(super) fn instances(self, limits: &PluginLimits) -> usize {
        limits.instances + limits.instance_reserve * self as usize
    }

    /// The limits that calls of this share have reached.
    pub(super) fn reached(self, limits: &PluginLimits) -> String {
        let PluginLimits {
            instances,
            instance_reserve: reserve,
            ..
        } = limits;
        match self {
            Self::Request => format!("limits.instances of {instances} reached"),
            Self::Nested | Self::Response | Self::Log => format!(
                "limits.instances of {instances} and limits.instance_reserve of {reserve} reached"
            ),
        }
    }
}
