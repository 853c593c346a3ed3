//! Results of hooks, as the actions that the host is told.

use castling_abi::{Action, Hook};

use crate::error::{self, Error, Result};
use crate::host;
use crate::response::Verdict;

/// A change that the host refused is an error, even where the hook did not return one.
#[inline]
pub(super) fn settle<T>(result: Result<T>) -> Result<T> {
    match error::is_noted() {
        true => settle_noted(result),
        false => result,
    }
}

#[cold]
#[inline(never)]
fn settle_noted<T>(result: Result<T>) -> Result<T> {
    let noted = error::take_noted();
    match (result, noted) {
        (Ok(_), Some(refused)) => Err(refused),
        (result, _) => result,
    }
}

#[inline]
pub(super) fn act(hook: Hook, verdict: Result<Verdict>) -> i32 {
    match verdict {
        Ok(Verdict::Continue) if !error::is_noted() => Action::Continue as i32,
        verdict => act_otherwise(hook, verdict),
    }
}

#[inline(never)]
fn act_otherwise(hook: Hook, verdict: Result<Verdict>) -> i32 {
    let acted = settle(verdict).and_then(|verdict| match verdict {
        Verdict::Continue => Ok(Action::Continue),
        Verdict::Answer(response) => response.hand_over().map(|()| Action::Answer),
        // The host cuts it where bytes of a length are missing.
        Verdict::Streamed(_) => Ok(Action::Answer),
        Verdict::Reroute if hook == Hook::Rewrite => Ok(Action::Reroute),
        Verdict::Reroute => Err(Error::msg(format_args!(
            "{} returned Verdict::Reroute, which is for rewrite",
            hook.name()
        ))),
    });
    match acted {
        Ok(action) => action as i32,
        // A piece that nobody wants ends the response: it is whole for its client.
        Err(error) if error.is_unwanted() => match hook {
            Hook::Content => Action::Answer as i32,
            _ => Action::Continue as i32,
        },
        Err(error) => fail(&error, Action::Failed as i32),
    }
}

#[inline]
pub(super) fn done(result: Result<()>) -> i32 {
    match result {
        Ok(()) if !error::is_noted() => Action::Continue as i32,
        result => done_otherwise(result),
    }
}

#[cold]
#[inline(never)]
fn done_otherwise(result: Result<()>) -> i32 {
    match settle(result) {
        Ok(()) => Action::Continue as i32,
        Err(error) if error.is_unwanted() => Action::Continue as i32,
        Err(error) => fail(&error, Action::Failed as i32),
    }
}

#[cold]
#[inline(never)]
pub(super) fn fail(error: &Error, code: i32) -> i32 {
    host::fail_with(error.id(), error.to_string().as_bytes());
    code
}
