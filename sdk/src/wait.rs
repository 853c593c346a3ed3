//! Host calls that suspend the plugin: bodies, delays. (Calls out are in `http`.)

use std::time::Duration;

use castling_abi::{ErrorKind, HeaderMap, Status};

use crate::buffer::{length, read_bytes, status};
use crate::error::{self, Error, Result};
use crate::host;

/// Waits; the gateway serves other requests meanwhile. When the client leaves, the hook ends here.
///
/// ```
/// use castling_sdk::prelude::*;
/// use castling_sdk::testing::Exchange;
///
/// /// Makes guessing slow.
/// #[derive(Default)]
/// struct Tarpit;
///
/// #[plugin]
/// impl Tarpit {
///     fn preaccess(&self, request: &mut Request) -> Result<Verdict> {
///         let tries = zones::counter("tries").add(request.client_address(), 1, Duration::from_secs(60))?;
///         if tries > 3 {
///             delay(Duration::from_secs(2))?;
///         }
///         Ok(Verdict::Continue)
///     }
/// }
///
/// let mut exchange = Exchange::get("/login");
/// let began = clock::monotonic();
/// for _ in 0..5 {
///     Tarpit.preaccess(exchange.request())?;
/// }
/// assert_eq!(clock::monotonic() - began, Duration::from_secs(4));
/// # Ok::<(), Error>(())
/// ```
///
/// In whole milliseconds, rounded up; at most 60 s, beyond that it fails. In `rewrite`, `preaccess`, `access`,
/// `content` and `response_headers`.
pub fn delay(duration: Duration) -> Result<()> {
    match host::delay(milliseconds(duration)) {
        0.. => Ok(()),
        refused => Err(error::bad_argument(
            format_args!("delay({duration:?})"),
            status(refused),
            "at most 60 s",
        )),
    }
}

pub(crate) fn read_body(map: HeaderMap, limit: usize) -> Result<Vec<u8>> {
    length(host::body_read(map, limit))
        .and_then(|len| read_bytes(len, |out| host::body_get(map, out)))
        .map_err(|status| unread(map, limit, status))
}

/// The first bytes of the request's body, and whether they are all.
pub(crate) fn peek_body(bytes: usize) -> Result<(Vec<u8>, bool)> {
    let refused = |status| {
        let reason = match status {
            Status::Limit => " (more than limits.body)",
            _ => "",
        };
        error::refusal(format_args!("peek_body({bytes}){reason}"), status)
    };
    let told = host::body_peek(bytes);
    let Ok(told) = usize::try_from(told) else {
        return Err(refused(status(i32::try_from(told).unwrap_or_default())));
    };
    let (len, is_whole) = (told / 2, told % 2 == 1);
    match len {
        0 => Ok((Vec::new(), is_whole)),
        len => read_bytes(len, |out| host::body_get(HeaderMap::Request, out))
            .map(|bytes| (bytes, is_whole))
            .map_err(refused),
    }
}

/// Rounded up, so that a wait is never shorter than was asked for and a time-out never none.
pub(crate) fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

fn unread(map: HeaderMap, limit: usize, status: Status) -> Error {
    if status != Status::Limit {
        return error::refusal(format_args!("read_body({limit})"), status);
    }
    let id = match map {
        HeaderMap::Request => ErrorKind::TooLarge,
        HeaderMap::Response | HeaderMap::Trailers => ErrorKind::Limit,
    };
    let reason = "(the body is longer, or longer than limits.body): limit reached";
    Error::of_kind(id, format_args!("read_body({limit}) {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Exchange;

    #[test]
    fn a_body_is_read_up_to_the_limit() {
        let mut exchange = Exchange::new("POST", "/").body("12345");
        assert_eq!(exchange.request().read_body(5).unwrap(), b"12345");
        let error = exchange.request().read_body(4).unwrap_err();
        assert!(error.is_limit());
        assert_eq!(error.client_status(), 413);
        assert!(
            error.to_string().starts_with("read_body(4) (the body is"),
            "{error}"
        );
        assert_eq!(Exchange::get("/").request().read_body(0).unwrap(), b"");
    }

    #[test]
    fn a_body_is_read_where_it_can_be() {
        let mut exchange = Exchange::new("POST", "/")
            .body("in")
            .response(200)
            .response_body("out");
        assert_eq!(exchange.reply().read_body(9).unwrap(), b"out");
        let error = exchange.request().read_body(9).unwrap_err();
        assert_eq!(error.to_string(), "read_body(9): not in this hook");
        assert!(Exchange::get("/").reply().read_body(9).is_err());
    }

    #[test]
    fn a_delay_takes_its_time() {
        let before = crate::clock::monotonic();
        delay(Duration::from_micros(1_500)).unwrap();
        assert_eq!(crate::clock::monotonic() - before, Duration::from_millis(2));
        let error = delay(Duration::from_secs(61)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "delay(61s): bad argument: expected at most 60 s"
        );
    }
}
