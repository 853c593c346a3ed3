//! Which hook runs: what a plugin may do depends on it.

use castling_abi::rules::usage::Size;
use castling_abi::rules::{Place, Rule, Stage, check};
use castling_abi::{Hook, Status, header_list};

use super::stream;
use super::world::{with_facts, with_world};
use crate::error;
use crate::response::Verdict;

/// A hook runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    hook: Hook,
    /// Hook that called this one, and who had asked for that.
    before: (Option<Hook>, Option<Hook>),
    /// Host calls that were left to it.
    host_calls_left: u32,
}

impl Running {
    /// A hook of this name begins.
    pub(crate) fn begin(name: &str) -> Option<Self> {
        Hook::from_name(name).map(Self::of)
    }

    /// This hook begins. A hook that a chain runs is begun by the chain, and then as its function.
    pub(super) fn of(hook: Hook) -> Self {
        with_world(|world| {
            let asker = match world.hook == Some(hook) {
                true => world.asker,
                false => std::mem::replace(&mut world.asker, world.hook),
            };
            let before = (world.hook.replace(hook), asker);
            let host_calls = world.limits.host_calls;
            Self {
                hook,
                before,
                host_calls_left: std::mem::replace(&mut world.host_calls_left, host_calls),
            }
        })
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
        with_world(|world| {
            (world.hook, world.asker) = self.before;
            world.host_calls_left = self.host_calls_left;
        });
        if self.before.0.is_none() {
            // Bodies and answers that a hook has read are its own.
            with_facts(|facts| facts.forget_results());
        }
    }
}

/// Whether the call may be made now.
pub(super) fn may(rule: &Rule) -> bool {
    is_at(rule.place)
}

/// Whether this is the place now: in the hook that runs, at the stage that the exchange is at.
pub(super) fn is_at(place: Place) -> bool {
    let (hook, asker) = with_world(|world| (world.hook, world.asker));
    let (has_response, has_begun) =
        with_facts(|facts| (facts.response.is_some(), facts.stream.is_some()));
    let stage = match hook {
        // A test that calls by itself is taken at its word, as far as there is a response or none.
        None => return is_place_of_tests(place, has_response),
        Some(Hook::Content) if has_begun => Stage::Body,
        // Who asks for a variable, if the test calls it from within another hook.
        Some(Hook::Variable) => match (asker, has_response) {
            (Some(asker), _) => Stage::of(Some(asker)),
            (None, true) => Stage::Reply,
            (None, false) => Stage::Request,
        },
        // A test may have said before what the response will be.
        Some(_) => Stage::of(hook),
    };
    place.allows(hook, stage)
}

fn is_place_of_tests(place: Place, has_response: bool) -> bool {
    let stages: &[Stage] = match has_response {
        true => &[
            Stage::Idle,
            Stage::Balance,
            Stage::Reply,
            Stage::Body,
            Stage::Log,
        ],
        false => &[Stage::Idle, Stage::Request, Stage::Balance],
    };
    let mut hooks = Hook::ALL.iter().copied().map(Some).chain([None]);
    hooks.any(|hook| stages.iter().any(|stage| place.allows(hook, *stage)))
}

/// Why the host would not send this as an answer; `None` when it would.
pub(crate) fn check_answer(status: u16, headers: &[u8], body: &[u8]) -> Option<Status> {
    if !check::is_final_status(status.into()) {
        return Some(Status::BadArgument);
    }
    if let Err(refused) = check_fields(headers) {
        return Some(refused);
    }
    let limit = with_world(|world| world.limits.body_bytes);
    (body.len() > limit).then_some(Status::Limit)
}

/// Why the host would not take these as the fields of a head that the plugin makes.
pub(super) fn check_fields(list: &[u8]) -> Result<(), Status> {
    let most = with_world(|world| world.limits.head);
    let mut made = Size::default();
    for record in header_list::records(list) {
        let (name, value) = record.map_err(|()| Status::BadArgument)?;
        made = [made, Size::of(name, value)].into_iter().sum();
        if !made.is_within(most) {
            return Err(Status::Limit);
        }
        if !check::may_set_field(name, value) {
            return Err(Status::BadArgument);
        }
    }
    Ok(())
}
