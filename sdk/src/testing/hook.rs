//! Which hook runs: what a plugin may do depends on it.

use castling_abi::{Hook, Status};

use super::stream;
use super::world::with_world;
use crate::error;
use crate::response::Verdict;

/// A hook runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    hook: Hook,
    /// Hook that called this one.
    before: Option<Hook>,
}

impl Running {
    /// A hook of this name begins.
    pub(crate) fn begin(name: &str) -> Option<Self> {
        let hook = Hook::from_name(name)?;
        let before = with_world(|world| world.hook.replace(hook));
        Some(Self { hook, before })
    }

    /// The hook returns this; what it may not return makes it fail.
    pub(crate) fn returns(&self, verdict: &Verdict) {
        match verdict {
            Verdict::Continue if stream::is_begun() => {
                error::note(error::Error::msg(format_args!(
                    "{} declined, after it had begun a response",
                    self.hook.name()
                )));
            }
            Verdict::Continue => {}
            Verdict::Streamed(_) => {
                if let Some(left) = stream::finish() {
                    error::note(error::Error::msg(format_args!(
                        "the response ended {left} bytes before the length that it has told"
                    )));
                }
            }
            Verdict::Reroute if self.hook == Hook::Rewrite => {}
            Verdict::Reroute => error::note(error::Error::msg(format_args!(
                "{} asked to reroute, which this hook cannot",
                self.hook.name()
            ))),
            Verdict::Answer(_) if stream::is_begun() => error::note(error::refusal(
                format_args!("answer after the head of another response"),
                Status::NotNow,
            )),
            Verdict::Answer(response) => {
                if let Err(refused) = response.check() {
                    error::note(refused);
                }
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        with_world(|world| world.hook = self.before);
    }
}

/// The hook that runs.
pub(super) fn running() -> Option<Hook> {
    with_world(|world| world.hook)
}

/// A call that waits is refused in hooks that cannot.
pub(super) fn may_wait() -> bool {
    match running() {
        // A test that calls by itself is taken at its word.
        None => true,
        Some(
            Hook::Rewrite
            | Hook::Preaccess
            | Hook::Access
            | Hook::Content
            | Hook::ResponseHeaders
            | Hook::Variable
            | Hook::Timer
            | Hook::Message
            | Hook::AfterResponse,
        ) => true,
        Some(
            Hook::PostRead
            | Hook::Balance
            | Hook::PeerDone
            | Hook::ResponseBody
            | Hook::Log
            | Hook::RequestBody,
        ) => false,
    }
}

/// The request's head may be changed: nobody has been asked for a response yet.
pub(super) fn may_change_request() -> bool {
    match running() {
        None => true,
        Some(Hook::PostRead | Hook::Rewrite | Hook::Preaccess | Hook::Access | Hook::Content) => {
            true
        }
        Some(
            Hook::RequestBody
            | Hook::Balance
            | Hook::PeerDone
            | Hook::ResponseHeaders
            | Hook::ResponseBody
            | Hook::Log
            | Hook::Variable
            | Hook::Timer
            | Hook::Message
            | Hook::AfterResponse,
        ) => false,
    }
}

/// The response's head may be changed: it has not been sent.
pub(super) fn may_change_response() -> bool {
    matches!(running(), None | Some(Hook::ResponseHeaders))
}

/// Why the host would not send this as an answer; `None` when it would.
pub(crate) fn check_answer(status: u16, headers: &[u8], body: &[u8]) -> Option<Status> {
    let framing = castling_abi::header_list::records(headers)
        .map_while(Result::ok)
        .filter_map(|(name, _)| str::from_utf8(name).ok())
        .any(crate::header::is_of_framing);
    if !(200..600).contains(&status) || framing {
        Some(Status::BadArgument)
    } else if body.len() > with_world(|world| world.body_limit_bytes) {
        Some(Status::Limit)
    } else {
        None
    }
}
