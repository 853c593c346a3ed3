//! The error that a hook returns when it cannot do its work.

use std::cell::Cell;
use std::fmt;

use castling_abi::{ErrorKind as Id, Grant, Status};

use crate::buffer::status;
use crate::host;

mod kind;

pub use kind::ErrorKind;

/// Why a hook failed: a text for the gateway's log, and a [kind](Self::kind), which says what status the client gets. Whether the
/// request fails at all, the plugin's `on_error` says.
///
/// Any [`std::error::Error`] turns into one with `?`, causes included; [`Error::msg`] and [`bail!`](crate::bail) make
/// one of a text. (So it is no `std::error::Error` itself, as `anyhow`'s is not.)
pub struct Error {
    message: String,
    id: Id,
    /// Call with a bad argument, and what is right in its place.
    argument: Option<Box<(String, String)>>,
    is_unwanted: bool,
}

/// [`std::result::Result`] with [`Error`] unless said otherwise.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with this text.
    pub fn msg(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            id: Id::Own,
            argument: None,
            is_unwanted: false,
        }
    }

    /// An error of this kind with this text.
    #[cold]
    pub(crate) fn of_kind(id: Id, message: impl fmt::Display) -> Self {
        Self {
            id,
            ..Self::msg(message)
        }
    }

    /// The same error once more.
    pub(crate) fn again(&self) -> Self {
        Self {
            message: self.message.clone(),
            id: self.id,
            argument: self.argument.clone(),
            is_unwanted: self.is_unwanted,
        }
    }

    /// Kind of it, as the host knows it.
    pub(crate) const fn id(&self) -> Id {
        self.id
    }

    /// Puts before the error what was being done: `what: message`.
    #[must_use]
    pub fn context(self, what: impl fmt::Display) -> Self {
        Self {
            message: format!("{what}: {}", self.message),
            ..self
        }
    }

    /// Whether a limit was reached: a body is longer than `read_body` was to read, say. The way to tell what a client
    /// can bring about from what an operator has to see to.
    pub fn is_limit(&self) -> bool {
        matches!(self.id, Id::Limit | Id::TooLarge)
    }

    /// Whether nobody takes more of the body that a [`BodyWriter`](crate::BodyWriter) writes, or of the one that
    /// [`Chunk::emit`](crate::Chunk::emit) sends on. A hook that returns this error has not failed: the body ends.
    pub fn is_unwanted(&self) -> bool {
        self.is_unwanted
    }

    /// Error that [`Self::is_unwanted`].
    pub(crate) fn unwanted() -> Self {
        Self {
            is_unwanted: true,
            ..Self::msg("nobody takes more of this response's body")
        }
    }

    /// Error of a filter that [`Self::is_unwanted`].
    pub(crate) fn unwanted_body() -> Self {
        Self {
            is_unwanted: true,
            ..Self::msg("nobody takes more of this body")
        }
    }

    /// Whether a kv zone had no room for what was to be put into it, or a gauge zone for another key.
    pub fn is_full(&self) -> bool {
        self.id == Id::Full
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message.push_str(": ");
            message.push_str(&error.to_string());
            cause = error.source();
        }
        Self::msg(message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Returns early with an [`Error`] of the formatted text.
#[macro_export]
macro_rules! bail {
    ($($format:tt)+) => {
        return ::core::result::Result::Err(::core::convert::From::from($crate::Error::msg(
            ::core::format_args!($($format)+),
        )))
    };
}

thread_local! {
    static PENDING: Cell<Option<Error>> = const { Cell::new(None) };
    /// There is one, which is quicker to see than to take it.
    static IS_PENDING: Cell<bool> = const { Cell::new(false) };
}

/// Remembers that a change was refused. The calls that change an exchange return nothing, so that a plugin reads as
/// what it does; a change that did not happen must not pass unseen all the same, so the hook fails when it returns.
#[inline]
pub(crate) fn note_refusal(result: i32, error: impl FnOnce(Status) -> Error) {
    if result < 0 {
        note(error(status(result)));
    }
}

/// Remembers an error that the hook shall fail with; the first one counts.
#[cold]
#[inline(never)]
pub(crate) fn note(error: Error) {
    let first = PENDING.take().unwrap_or(error);
    PENDING.set(Some(first));
    IS_PENDING.set(true);
}

/// An error was remembered since the last [`take_noted`].
#[inline]
pub(crate) fn is_noted() -> bool {
    IS_PENDING.get()
}

/// The first error that was remembered since the last call.
pub(crate) fn take_noted() -> Option<Error> {
    IS_PENDING.set(false);
    PENDING.take()
}

/// Makes an error that says what is right in the place of a wrong argument.
#[cold]
pub(crate) fn bad_argument(call: fmt::Arguments<'_>, status: Status, expected: &str) -> Error {
    match status {
        Status::BadArgument => {
            let text = format_args!("{call}: {}: expected {expected}", status.name());
            Error {
                argument: Some(Box::new((call.to_string(), expected.to_owned()))),
                ..Error::of_kind(status.into(), text)
            }
        }
        Status::NotFound
        | Status::NotNow
        | Status::Limit
        | Status::NotGranted
        | Status::Full
        | Status::WrongKind
        | Status::HostFailed
        | Status::Uncomputed => refusal(call, status),
    }
}

#[cold]
pub(crate) fn refusal(call: fmt::Arguments<'_>, status: Status) -> Error {
    let argument = || Box::new((call.to_string(), String::new()));
    Error {
        argument: (status == Status::BadArgument).then(argument),
        ..Error::of_kind(status.into(), format_args!("{call}: {}", status.name()))
    }
}

/// Fails where the config does not grant the thing of this name, for `configure`. Without the name, which the config has at the
/// place that the error points to.
pub(crate) fn must_be_granted(grant: Grant, name: &str) -> Result<()> {
    match host::grant_check(grant, name.as_bytes()) {
        0 => Ok(()),
        refused => {
            let expected = match grant {
                Grant::Upstream => "an upstream",
                Grant::CounterZone => "a counter zone",
                Grant::KvZone => "a kv zone",
                Grant::Topic => "a topic",
                Grant::GaugeZone => "a gauge zone",
            };
            Err(Error::of_kind(
                status(refused).into(),
                format_args!(
                    "{}; expected {expected} of the config that `grants` names",
                    status(refused).name()
                ),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standard_error_keeps_its_causes() {
        #[derive(Debug)]
        struct Outer(std::num::ParseIntError);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bad port")
            }
        }
        impl std::error::Error for Outer {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        let error = Error::from(Outer("x".parse::<u16>().unwrap_err())).context("config");
        assert_eq!(
            error.to_string(),
            "config: bad port: invalid digit found in string"
        );
    }

    #[test]
    fn a_limit_is_told_from_others() {
        let limit = refusal(format_args!("read_body(5)"), Status::Limit).context("webhook");
        assert!(limit.is_limit());
        assert_eq!(limit.to_string(), "webhook: read_body(5): limit reached");
        assert!(!refusal(format_args!("x"), Status::NotNow).is_limit());
        assert!(!Error::msg("limit reached").is_limit());
    }

    #[test]
    fn a_kind_says_what_the_client_gets_and_stays_with_its_error() {
        let kinds = [
            (Status::Limit, ErrorKind::Limit, 503),
            (Status::Full, ErrorKind::Full, 503),
            (Status::NotGranted, ErrorKind::NotGranted, 500),
            (Status::NotNow, ErrorKind::NotNow, 500),
        ];
        for (status, kind, client_status) in kinds {
            let error = refusal(format_args!("x"), status).context("doing");
            assert_eq!((error.kind(), error.client_status()), (kind, client_status));
        }
        let bad = bad_argument(format_args!("f(1)"), Status::BadArgument, "2").context("doing");
        let (call, expected) = ("f(1)", "2");
        assert_eq!(bad.kind(), ErrorKind::BadArgument { call, expected });
        let own = Error::from("x".parse::<u16>().unwrap_err());
        assert_eq!((own.kind(), own.client_status()), (ErrorKind::Own, 500));
    }

    #[test]
    fn bail_returns() {
        fn odd(number: u32) -> Result<u32> {
            if number.is_multiple_of(2) {
                bail!("{number} is even");
            }
            Ok(number)
        }
        assert_eq!(odd(2).unwrap_err().to_string(), "2 is even");
        assert_eq!(odd(3).unwrap(), 3);
    }
}
