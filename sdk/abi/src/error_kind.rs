//! Kinds of errors, and the status that a client gets for each.

use super::Status;

ids! {
    /// Kind of the error that a hook fails with (`fail_with`), or of a call out that has no response (`call_error_kind`).
    ErrorKind: u32 {
        /// The plugin's own, of whatever reason.
        Own = 0, "of the plugin's own";
        /// No response, no connection or no end of a body in time.
        Timeout = 1, "timeout";
        /// No connection to a peer could be made: its host cannot be reached, or TLS has failed.
        Connect = 2, "no connection";
        /// A peer has refused the connection, or the request on it, without working on it.
        Refused = 3, "refused";
        /// A connection was there, and what came over it was no response, or not all of one.
        Broken = 4, "broken";
        /// No peer takes the request now: all are down, or have as much under way as they may.
        Unavailable = 5, "unavailable";
        /// A limit of the plugin or of the exchange was reached.
        Limit = 6, "limit reached";
        /// The client's body is longer than was to be read of it.
        TooLarge = 7, "body too large";
        /// The config's `grants` do not have it.
        NotGranted = 8, "not granted";
        /// A name, value or number is not valid there.
        BadArgument = 9, "bad argument";
        /// Not in this hook.
        NotNow = 10, "not in this hook";
        /// There is no such thing.
        NotFound = 11, "not found";
        /// A zone has no room for it.
        Full = 12, "full";
        /// The zone is of another kind.
        WrongKind = 13, "a zone of another kind";
        /// The host could not do it, through no fault of the guest.
        HostFailed = 14, "failed in the gateway";
        /// A variable has no value yet.
        Uncomputed = 15, "not computed yet";
    }
}

impl ErrorKind {
    /// Status that a client gets where a hook has failed so and the plugin's `on_error` is `deny`.
    ///
    /// What a peer is to blame for is what nginx says of its own upstreams: 504 for a time-out, 502 for a connection that is not
    /// made or breaks (Envoy: 504 and 503). What may pass by itself is 503, as nginx's `limit_req` says it, also where its zone is
    /// full, and both where an upstream's limit is reached. A body that is too long is 413, as nginx's `client_max_body_size` and
    /// Envoy's buffers say it. All else is the plugin's or its config's fault: 500.
    pub const fn client_status(self) -> u16 {
        match self {
            Self::Timeout => 504,
            Self::Connect | Self::Refused | Self::Broken => 502,
            Self::Unavailable | Self::Limit | Self::Full => 503,
            Self::TooLarge => 413,
            Self::Own
            | Self::NotGranted
            | Self::BadArgument
            | Self::NotNow
            | Self::NotFound
            | Self::WrongKind
            | Self::HostFailed
            | Self::Uncomputed => 500,
        }
    }
}

impl From<Status> for ErrorKind {
    fn from(status: Status) -> Self {
        match status {
            Status::NotFound => Self::NotFound,
            Status::BadArgument => Self::BadArgument,
            Status::NotNow => Self::NotNow,
            Status::Limit => Self::Limit,
            Status::NotGranted => Self::NotGranted,
            Status::Full => Self::Full,
            Status::WrongKind => Self::WrongKind,
            Status::HostFailed => Self::HostFailed,
            Status::Uncomputed => Self::Uncomputed,
        }
    }
}
