//! Types that the functions of a plugin may return: for each kind of them a trait, and a function that takes any of its types.

#[cfg(not(target_arch = "wasm32"))]
use std::any::Any;

use crate::error::{Error, Result};
use crate::response::Verdict;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::hook::Running;

/// Result of a hook that decides.
#[diagnostic::on_unimplemented(
    message = "a hook that decides cannot return `{Self}`",
    label = "expected `Verdict`, or `()` for `Verdict::Continue`, or a `Result` of one of them"
)]
pub trait IntoVerdict {
    fn into_verdict(self) -> Result<Verdict>;
}

impl IntoVerdict for Verdict {
    fn into_verdict(self) -> Result<Verdict> {
        Ok(self)
    }
}

impl IntoVerdict for () {
    fn into_verdict(self) -> Result<Verdict> {
        Ok(Verdict::Continue)
    }
}

impl<T: IntoVerdict, E: Into<Error>> IntoVerdict for Result<T, E> {
    fn into_verdict(self) -> Result<Verdict> {
        self.map_err(Into::into)?.into_verdict()
    }
}

pub fn verdict<T: IntoVerdict>(returned: T) -> Result<Verdict> {
    returned.into_verdict()
}

/// Runs a hook that decides in a test, and looks at what it returns. Without a bound on that: what a hook may return is told where
/// it is exported, once.
#[cfg(not(target_arch = "wasm32"))]
pub fn decided<T: Any>(hook: &str, run: impl FnOnce() -> T) -> T {
    let running = Running::begin(hook);
    let returned = run();
    let any: &dyn Any = &returned;
    let of_result = || any.downcast_ref::<Result<Verdict>>()?.as_ref().ok();
    let verdict = any.downcast_ref::<Verdict>().or_else(of_result);
    if let (Some(running), Some(verdict)) = (&running, verdict) {
        running.returns(verdict);
    }
    returned
}

/// Runs any other hook in a test.
#[cfg(not(target_arch = "wasm32"))]
pub fn ran<T>(hook: &str, run: impl FnOnce() -> T) -> T {
    let _running = Running::begin(hook);
    run()
}

/// Result of a hook that only sees or changes.
#[diagnostic::on_unimplemented(
    message = "a hook that decides nothing cannot return `{Self}`",
    label = "expected nothing, or a `Result` of `()`"
)]
pub trait IntoUnit {
    fn into_unit(self) -> Result<()>;
}

impl IntoUnit for () {
    fn into_unit(self) -> Result<()> {
        Ok(())
    }
}

impl<E: Into<Error>> IntoUnit for Result<(), E> {
    fn into_unit(self) -> Result<()> {
        self.map_err(Into::into)
    }
}

pub fn unit<T: IntoUnit>(returned: T) -> Result<()> {
    returned.into_unit()
}

/// Result of `variable`.
#[diagnostic::on_unimplemented(
    message = "`variable` cannot return `{Self}`",
    label = "expected `Option<String>` or another optional text or bytes (`None`: it has no value), or a `Result` of it"
)]
pub trait IntoValue {
    fn into_value(self) -> Result<Option<Vec<u8>>>;
}

impl<T: Into<Vec<u8>>> IntoValue for Option<T> {
    fn into_value(self) -> Result<Option<Vec<u8>>> {
        Ok(self.map(Into::into))
    }
}

impl<T: Into<Vec<u8>>, E: Into<Error>> IntoValue for Result<Option<T>, E> {
    fn into_value(self) -> Result<Option<Vec<u8>>> {
        Ok(self.map_err(Into::into)?.map(Into::into))
    }
}

pub fn value<T: IntoValue>(returned: T) -> Result<Option<Vec<u8>>> {
    returned.into_value()
}

/// Result of `balance`.
#[diagnostic::on_unimplemented(
    message = "`balance` cannot return `{Self}`",
    label = "expected `Option<usize>` (the peer's index; `None` leaves the choice to the gateway), or a `Result` of it"
)]
pub trait IntoChoice {
    fn into_choice(self) -> Result<Option<usize>>;
}

impl IntoChoice for Option<usize> {
    fn into_choice(self) -> Result<Option<usize>> {
        Ok(self)
    }
}

impl<E: Into<Error>> IntoChoice for Result<Option<usize>, E> {
    fn into_choice(self) -> Result<Option<usize>> {
        self.map_err(Into::into)
    }
}

pub fn choice<T: IntoChoice>(returned: T) -> Result<Option<usize>> {
    returned.into_choice()
}

/// Result of `configure`.
#[diagnostic::on_unimplemented(
    message = "`configure` cannot return `{Self}`",
    label = "expected `Result<Self>` or `Self`"
)]
pub trait IntoPlugin<P> {
    fn into_plugin(self) -> Result<P>;
}

impl<P> IntoPlugin<P> for P {
    fn into_plugin(self) -> Result<P> {
        Ok(self)
    }
}

impl<P, E: Into<Error>> IntoPlugin<P> for Result<P, E> {
    fn into_plugin(self) -> Result<P> {
        self.map_err(Into::into)
    }
}

pub fn plugin<P, T: IntoPlugin<P>>(returned: T) -> Result<P> {
    returned.into_plugin()
}
