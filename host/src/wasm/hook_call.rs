//! Calls of hooks: which one, and what the ABI passes it.

use castling_abi::{Hook, PeerOutcome};

/// A hook that is called, with its arguments. Three numbers, whatever they are: a call so fits into registers, and only the
/// constructors know which hook has which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookCall {
    hook: Hook,
    args: (u32, u32, u32),
}

impl HookCall {
    /// A hook without arguments: phases, `response_headers`, `log`, `after_response` and `timer`.
    #[inline]
    pub const fn plain(hook: Hook) -> Self {
        Self {
            hook,
            args: (0, 0, 0),
        }
    }

    /// A piece of a body for `request_body` or `response_body`: its length in bytes, and whether it is the last.
    #[inline]
    pub fn chunk(hook: Hook, bytes: usize, last: bool) -> Self {
        Self {
            hook,
            args: (saturated(bytes), u32::from(last), 0),
        }
    }

    /// `variable`: by its index among those of the plugin.
    #[inline]
    pub const fn variable(idx: u32) -> Self {
        Self {
            hook: Hook::Variable,
            args: (idx, 0, 0),
        }
    }

    /// `message`: the topic by its index among the zones that the plugin is granted, and the message's length in bytes.
    #[inline]
    pub fn message(topic_idx: u32, bytes: usize) -> Self {
        Self {
            hook: Hook::Message,
            args: (topic_idx, saturated(bytes), 0),
        }
    }

    /// `balance`: how many peers there are, and how many of them the request has tried.
    #[inline]
    pub fn balance(peers: usize, tried: usize) -> Self {
        Self {
            hook: Hook::Balance,
            args: (saturated(peers), saturated(tried), 0),
        }
    }

    /// `peer_done`: the peer by its index, how the try went, and the microseconds that it took.
    #[inline]
    pub fn peer_done(peer_idx: usize, outcome: PeerOutcome, micros: u128) -> Self {
        let micros = u32::try_from(micros).unwrap_or(u32::MAX);
        Self {
            hook: Hook::PeerDone,
            args: (saturated(peer_idx), outcome as u32, micros),
        }
    }

    /// A call with any arguments: of the rig, which tries what no flow would pass.
    pub const fn with(hook: Hook, args: (u32, u32, u32)) -> Self {
        Self { hook, args }
    }

    #[inline]
    pub const fn hook(self) -> Hook {
        self.hook
    }

    #[inline]
    pub(super) const fn args(self) -> (u32, u32, u32) {
        self.args
    }
}

fn saturated(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
