//! Kinds of errors, for plugins that handle some of them themselves.

use super::Error;

/// Kind of an error: [`Error::kind`].
///
/// A hook that returns the error has its request fail, unless the plugin's `on_error` is `skip`. The status that the client
/// gets then stands here with each kind, and [`Error::client_status`] tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind<'a> {
    /// The plugin's own: [`Error::msg`], [`bail!`](crate::bail), and every other error that `?` takes. 500.
    Own,
    /// A call out had no response in time. 504.
    Timeout,
    /// No connection could be made: the peer cannot be reached, or TLS has failed. 502.
    Connect,
    /// The peer has refused the connection, or the request without working on it. 502.
    Refused,
    /// The connection brought no response, or not all of one. 502.
    Broken,
    /// No peer takes a call now: all are down, or have as much under way as they may. 503.
    Unavailable,
    /// A limit of the plugin or of the exchange was reached. 503.
    Limit,
    /// The client's body is longer than was to be read of it. 413.
    TooLarge,
    /// A zone has no room. 503.
    Full,
    /// The config's `grants` do not have it. 500.
    NotGranted,
    /// A name, value or number is not valid there. 500.
    BadArgument {
        /// Call that was refused, with its arguments: `set_path("no-slash")`.
        call: &'a str,
        /// Argument that would be right in the place of the wrong one: `a path that begins with /`. Empty where nobody says it.
        expected: &'a str,
    },
    /// Not in this hook: there is no response yet, or it is too late. 500.
    NotNow,
    /// There is no such thing. 500.
    NotFound,
    /// A zone of another kind. 500.
    WrongKind,
    /// The gateway could not do it; its log says why. 500.
    HostFailed,
}

impl ErrorKind<'_> {
    /// The kind in a word or two, fit for clients: `timeout`, `no connection`. The error's own text may have what is none of their
    /// business.
    pub const fn name(&self) -> &'static str {
        use castling_abi::ErrorKind as Id;
        let id = match self {
            Self::Own => Id::Own,
            Self::Timeout => Id::Timeout,
            Self::Connect => Id::Connect,
            Self::Refused => Id::Refused,
            Self::Broken => Id::Broken,
            Self::Unavailable => Id::Unavailable,
            Self::Limit => Id::Limit,
            Self::TooLarge => Id::TooLarge,
            Self::Full => Id::Full,
            Self::NotGranted => Id::NotGranted,
            Self::BadArgument { .. } => Id::BadArgument,
            Self::NotNow => Id::NotNow,
            Self::NotFound => Id::NotFound,
            Self::WrongKind => Id::WrongKind,
            Self::HostFailed => Id::HostFailed,
        };
        id.name()
    }
}

impl Error {
    /// Tells what kind of error it is. It stays with the error through `?` and [`Self::context`].
    ///
    /// ```
    /// use castling_sdk::prelude::*;
    /// use castling_sdk::testing::{Exchange, FailedCall};
    ///
    /// #[derive(Default)]
    /// struct Greylist;
    ///
    /// #[plugin]
    /// impl Greylist {
    ///     fn access(&self, request: &mut Request) -> Result<Verdict> {
    ///         match http::send("reputation", http::Request::get("/check")) {
    ///             Ok(answer) if answer.body() == b"bad" => Ok(Response::status(403).into()),
    ///             // Those who cannot be asked in time let everyone in; all else is the gateway's to answer.
    ///             Err(error) if error.kind() == ErrorKind::Timeout => Ok(Verdict::Continue),
    ///             answer => answer.map(|_| Verdict::Continue),
    ///         }
    ///     }
    /// }
    ///
    /// let slow = |kind| Exchange::get("/").failing_call_of("reputation", kind, "no response in 1s");
    /// assert_eq!(Greylist.access(slow(FailedCall::Timeout).request()).unwrap(), Verdict::Continue);
    /// let error = Greylist.access(slow(FailedCall::Refused).request()).unwrap_err();
    /// assert_eq!((error.kind().name(), error.client_status()), ("refused", 502));
    /// ```
    pub fn kind(&self) -> ErrorKind<'_> {
        use castling_abi::ErrorKind as Id;
        match self.id() {
            // Never told to a plugin: such a variable is computed then.
            Id::Own | Id::Uncomputed => ErrorKind::Own,
            Id::Timeout => ErrorKind::Timeout,
            Id::Connect => ErrorKind::Connect,
            Id::Refused => ErrorKind::Refused,
            Id::Broken => ErrorKind::Broken,
            Id::Unavailable => ErrorKind::Unavailable,
            Id::Limit => ErrorKind::Limit,
            Id::TooLarge => ErrorKind::TooLarge,
            Id::Full => ErrorKind::Full,
            Id::NotGranted => ErrorKind::NotGranted,
            Id::BadArgument => match &self.argument {
                Some(argument) => ErrorKind::BadArgument {
                    call: &argument.0,
                    expected: &argument.1,
                },
                None => ErrorKind::BadArgument {
                    call: "",
                    expected: "",
                },
            },
            Id::NotNow => ErrorKind::NotNow,
            Id::NotFound => ErrorKind::NotFound,
            Id::WrongKind => ErrorKind::WrongKind,
            Id::HostFailed => ErrorKind::HostFailed,
        }
    }

    /// Status that the client gets where a hook returns this error and the plugin's `on_error` is `deny`. A response that has
    /// begun is cut instead.
    pub const fn client_status(&self) -> u16 {
        self.id().client_status()
    }
}
