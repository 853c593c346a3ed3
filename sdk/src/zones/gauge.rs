//! Gauge zones: permits by key, of which so many are out at a time.

use castling_abi::{Grant, Status};

use crate::buffer::status;
use crate::error::{self, Error, Result};
use crate::host;

/// The gauge zone of this name. Whether it is there and granted is found out when it is used, or asked by
/// [`Gauge::must_be_granted`].
///
/// ```
/// use castling_sdk::prelude::*;
/// use castling_sdk::testing::Exchange;
/// use castling_sdk::zones::Gauge;
///
/// /// Lets each client have four requests under way, in all workers together.
/// struct Busy { clients: Gauge }
///
/// #[plugin]
/// impl Busy {
///     fn configure(_: std::collections::BTreeMap<String, String>) -> Self {
///         Self { clients: zones::gauge("busy") }
///     }
///
///     fn preaccess(&self, request: &mut Request) -> Result<Verdict> {
///         Ok(match self.clients.enter(request.client_address(), 4)? {
///             Some(_) => Verdict::Continue,
///             None => Response::status(429).into(),
///         })
///     }
/// }
///
/// let plugin = Busy { clients: zones::gauge("busy") };
/// let mut requests: Vec<_> = (0..4).map(|_| Exchange::get("/")).collect();
/// for exchange in &mut requests {
///     assert_eq!(plugin.preaccess(exchange.request())?, Verdict::Continue);
/// }
/// let mut fifth = Exchange::get("/");
/// assert_eq!(plugin.preaccess(fifth.request())?, Response::status(429).into());
/// requests.pop();
/// assert_eq!(plugin.preaccess(fifth.request())?, Verdict::Continue);
/// # Ok::<(), Error>(())
/// ```
pub fn gauge(name: impl Into<String>) -> Gauge {
    Gauge { zone: name.into() }
}

/// A zone of permits by key: [`gauge()`].
///
/// **A permit is the request's**, not the plugin's value: the host gives it back when the request has ended, however it does: its
/// response is out, the client is gone, a plugin has trapped, the worker was killed. Dropping a [`Permit`] does nothing, so
/// that it need not be kept from hook to hook; [`Permit::release`] and [`Gauge::leave`] give it back before that. A sub-request
/// is a request of its own.
///
/// **Limits**: a key has up to 4096 bytes; a plugin holds `limits.permits` for one request ([`Error::is_limit`]), one of each key;
/// the zone has room for so many keys that have permits out ([`Error::is_full`]), as its size says. Every call fails when the
/// zone is not granted to the plugin, and when it is of another kind.
///
/// **What it outlives**: permits of a generation that drains count for as long as its requests last. A size that a reload
/// changes makes another zone, beside the one of the requests under way.
///
/// **What it costs**: no call suspends the hook or waits for another worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gauge {
    zone: String,
}

/// A permit that the request holds now. Dropping it gives nothing back: the request holds it until its end.
#[derive(Debug)]
pub struct Permit<'a> {
    gauge: &'a Gauge,
    key: Box<[u8]>,
}

impl Gauge {
    /// Fails when the config has no such gauge zone or does not grant it to the plugin: for `configure`, as
    /// [`Counter::must_be_granted`](super::Counter::must_be_granted).
    pub fn must_be_granted(&self) -> Result<()> {
        error::must_be_granted(Grant::GaugeZone, &self.zone)
    }

    /// Takes one of the key's permits for the request, of which `max` may be held at a time; `None`: so many are. Fails where
    /// the plugin holds one of this key for the request already, where `max` is 0, and in a hook without a request.
    pub fn enter(&self, key: impl AsRef<[u8]>, max: u32) -> Result<Option<Permit<'_>>> {
        let key = key.as_ref();
        match host::gauge_enter(self.zone.as_bytes(), key, max) {
            0 => Ok(None),
            entered @ 1.. => {
                debug_assert_eq!(entered, 1, "the contract has nothing else");
                Ok(Some(Permit {
                    gauge: self,
                    key: key.into(),
                }))
            }
            refused => Err(self.refusal("enter", status(refused))),
        }
    }

    /// Gives back the key's permit that the request holds, which another hook may have taken; false: the plugin holds none.
    pub fn leave(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        match host::gauge_leave(self.zone.as_bytes(), key.as_ref()) {
            was_held @ 0.. => Ok(was_held != 0),
            refused => Err(self.refusal("leave", status(refused))),
        }
    }

    /// Permits of the key that are held now, by whichever request.
    pub fn count(&self, key: impl AsRef<[u8]>) -> Result<u64> {
        let count = host::gauge_count(self.zone.as_bytes(), key.as_ref());
        u64::try_from(count).map_err(|_| {
            let refused = status(i32::try_from(count).unwrap_or(i32::MIN));
            self.refusal("count", refused)
        })
    }

    fn refusal(&self, call: &str, status: Status) -> Error {
        error::bad_argument(
            format_args!("zone \"{}\": {call}", self.zone),
            status,
            "a key of up to 4096 bytes that the request holds no permit of, and at least 1 permit",
        )
    }
}

impl Permit<'_> {
    /// Gives it back before the request has ended.
    pub fn release(self) -> Result<()> {
        self.gauge.leave(self.key).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Exchange, ZoneFault, set_permit_limit, set_zone_fault};

    #[test]
    fn a_permit_is_held_until_its_request_has_ended_or_gives_it_back() {
        let busy = gauge("busy");
        let (mut one, mut two) = (Exchange::get("/"), Exchange::get("/"));
        one.request();
        drop(busy.enter("a", 1).unwrap().unwrap());
        two.request();
        assert!(busy.enter("a", 1).unwrap().is_none());
        assert!(busy.enter("b", 1).unwrap().is_some());
        assert!(!busy.leave("a").unwrap(), "it is the other request's");
        assert_eq!(busy.count("a").unwrap(), 1);
        drop(one);
        busy.enter("a", 1).unwrap().unwrap().release().unwrap();
        assert_eq!((busy.count("a").unwrap(), busy.count("b").unwrap()), (0, 1));
        assert!(busy.leave("b").unwrap());
        assert!(!busy.leave("b").unwrap());
    }

    #[test]
    fn what_a_gauge_refuses_is_an_error_that_names_it() {
        let busy = gauge("busy");
        let told = |key: &str, max| busy.enter(key, max).unwrap_err().to_string();
        assert_eq!(told("a", 1), "zone \"busy\": enter: not in this hook");
        let mut exchange = Exchange::get("/");
        exchange.request();
        let bad = "zone \"busy\": enter: bad argument: expected a key of up to 4096 bytes that the request holds no permit of, \
                   and at least 1 permit";
        assert_eq!(told("a", 0), bad);
        assert!(busy.enter("a", 2).unwrap().is_some());
        assert_eq!(told("a", 2), bad);
        assert_eq!(told(&"k".repeat(4097), 2), bad);
        set_permit_limit(1);
        assert!(busy.enter("b", 1).unwrap_err().is_limit());
        set_zone_fault("busy", Some(ZoneFault::Full));
        assert!(busy.leave("a").unwrap());
        assert!(busy.enter("b", 1).unwrap_err().is_full());
        set_zone_fault("busy", Some(ZoneFault::NotGranted));
        assert_eq!(told("a", 1), "zone \"busy\": enter: not granted");
        assert!(busy.must_be_granted().is_err());
    }
}
