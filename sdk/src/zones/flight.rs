//! Flights: one request fetches the value of a key, the others wait for it.

use std::time::Duration;

use castling_abi::{FLIGHT_FETCH, FLIGHT_TIMED_OUT, FLIGHT_VALUE};

use super::Kv;
use crate::buffer::status;
use crate::error::{self, Result};
use crate::wait::milliseconds;
use crate::{clock, host};

/// Answer of [`Kv::single_flight`].
#[derive(Debug)]
pub enum Flight<'a> {
    /// The key's value, which was there or which another request has fetched meanwhile.
    Value(Vec<u8>),
    /// There is none, and this request is the one that fetches it: the others wait for it.
    Fetch(FlightGuard<'a>),
    /// Another request fetches it still.
    TimedOut,
}

/// The request's turn to fetch the value of a key. It is the request's and not this value's: it ends by [`Self::put`], by
/// [`Self::give_up`] or [`Kv::end_flight`], when the plugin traps, and with the request, however that ends. Dropping this ends nothing,
/// so a hook may begin to fetch what a later one puts there.
#[derive(Debug)]
pub struct FlightGuard<'a> {
    kv: &'a Kv,
    key: Box<[u8]>,
}

impl Kv {
    /// The key's value; where it has none, one request of the whole gateway gets to fetch it while the others wait, at most so
    /// long (60 s). They have the value as soon as it is there; where whoever fetches it gives up, fails, loses its client or its worker, one
    /// of them is next, and the others go on waiting.
    ///
    /// ```
    /// use castling_sdk::prelude::*;
    /// use castling_sdk::testing::Exchange;
    /// use castling_sdk::zones::{Flight, Kv};
    ///
    /// /// Asks for a page once, however many want it.
    /// struct Pages { pages: Kv }
    ///
    /// #[plugin]
    /// impl Pages {
    ///     fn configure(_: std::collections::BTreeMap<String, String>) -> Self {
    ///         Self { pages: zones::kv("pages") }
    ///     }
    ///
    ///     fn content(&self, request: &mut Request) -> Result<Verdict> {
    ///         let path = request.path();
    ///         let page = match self.pages.single_flight(&*path, Duration::from_secs(5))? {
    ///             Flight::Value(page) => page,
    ///             Flight::TimedOut => return Ok(Response::status(503).into()),
    ///             Flight::Fetch(flight) => {
    ///                 let page = http::send("app", http::Request::get(&*path))?.body().to_vec();
    ///                 flight.put(&page, Some(Duration::from_secs(60)))?;
    ///                 page
    ///             }
    ///         };
    ///         Ok(Response::status(200).body(page).into())
    ///     }
    /// }
    ///
    /// let plugin = Pages { pages: zones::kv("pages") };
    /// let mut first = Exchange::get("/a").call("app", |_| Response::status(200).body("fetched"));
    /// assert_eq!(plugin.content(first.request())?, Response::status(200).body("fetched").into());
    /// let mut second = Exchange::get("/a");
    /// assert_eq!(plugin.content(second.request())?, Response::status(200).body("fetched").into());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// A request that fetches the value and asks again goes on fetching it. The wait suspends the hook, in which it is as
    /// [`delay`](crate::delay); it takes an instance of the plugin, so `limits.instances` bounds how many of its requests wait in a
    /// worker. Flights count as permits do (`limits.permits`).
    ///
    /// Who waits wakes by the end of the flight alone: a value that others put there is seen then, too.
    pub fn single_flight(&self, key: impl AsRef<[u8]>, wait: Duration) -> Result<Flight<'_>> {
        let key = key.as_ref();
        let end = clock::monotonic().saturating_add(wait);
        loop {
            let left = end.saturating_sub(clock::monotonic());
            match host::kv_flight(self.name(), key, milliseconds(left)) {
                FLIGHT_VALUE => {
                    // A value may have expired again in between.
                    if let Some(value) = self.get(key)? {
                        return Ok(Flight::Value(value));
                    }
                }
                FLIGHT_FETCH => {
                    return Ok(Flight::Fetch(FlightGuard {
                        kv: self,
                        key: key.into(),
                    }));
                }
                FLIGHT_TIMED_OUT => return Ok(Flight::TimedOut),
                refused => {
                    let call = format_args!("zone \"{}\": single_flight", self.zone);
                    let expected = "keys of 1 to 510 bytes and a wait of at most 60 s";
                    return Err(error::bad_argument(call, status(refused), expected));
                }
            }
        }
    }

    /// Ends the flight of this key that the request has, which another hook may have begun; false: the plugin has none.
    pub fn end_flight(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        match host::kv_flight_end(self.name(), key.as_ref()) {
            was_there @ 0.. => Ok(was_there != 0),
            refused => Err(error::bad_argument(
                format_args!("zone \"{}\": end_flight", self.zone),
                status(refused),
                "keys of 1 to 510 bytes",
            )),
        }
    }
}

impl FlightGuard<'_> {
    /// Puts the value there, as [`Kv::put`] does, and ends the flight: those who wait have it. Where it cannot be put there, the flight
    /// ends all the same, and one of them is next.
    pub fn put(self, value: impl AsRef<[u8]>, ttl: Option<Duration>) -> Result<()> {
        let put = self.kv.put(&self.key, value, ttl);
        self.kv.end_flight(&self.key)?;
        put
    }

    /// Ends the flight without a value: one of those who wait is next.
    pub fn give_up(self) -> Result<()> {
        self.kv.end_flight(&self.key).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Exchange, ZoneFault, set_zone_fault};
    use crate::zones::kv;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_request_fetches_and_the_others_wait_until_it_has_ended() {
        let pages = kv("pages");
        let (mut one, mut two) = (Exchange::get("/"), Exchange::get("/"));
        one.request();
        let flight = pages.single_flight("a", SECOND).unwrap();
        assert!(matches!(flight, Flight::Fetch(_)));
        assert!(matches!(
            pages.single_flight("a", SECOND).unwrap(),
            Flight::Fetch(_)
        ));
        two.request();
        let began = clock::monotonic();
        assert!(matches!(
            pages.single_flight("a", SECOND).unwrap(),
            Flight::TimedOut
        ));
        assert_eq!(clock::monotonic() - began, SECOND);
        assert!(!pages.end_flight("a").unwrap(), "it is the other request's");
        drop(one);
        let Flight::Fetch(guard) = pages.single_flight("a", SECOND).unwrap() else {
            panic!("nobody fetches it");
        };
        guard.put("page", None).unwrap();
        let found = pages.single_flight("a", SECOND).unwrap();
        assert!(matches!(found, Flight::Value(page) if page == b"page"));
    }

    #[test]
    fn a_flight_ends_also_where_its_value_has_no_room() {
        let pages = kv("pages");
        let mut exchange = Exchange::get("/");
        exchange.request();
        let Flight::Fetch(guard) = pages.single_flight("a", SECOND).unwrap() else {
            panic!("nobody fetches it");
        };
        set_zone_fault("pages", Some(ZoneFault::Full));
        assert!(guard.put("page", None).unwrap_err().is_full());
        assert!(!pages.end_flight("a").unwrap());
    }

    #[test]
    fn what_is_refused_is_an_error_that_names_the_zone() {
        let pages = kv("pages");
        let told = |key: &str, wait| pages.single_flight(key, wait).unwrap_err().to_string();
        assert_eq!(
            told("a", SECOND),
            "zone \"pages\": single_flight: not in this hook"
        );
        let mut exchange = Exchange::get("/");
        exchange.request();
        let bad = "zone \"pages\": single_flight: bad argument: expected keys of 1 to 510 bytes and a wait of at most 60 s";
        assert_eq!(told("", SECOND), bad);
        assert_eq!(told("a", 61 * SECOND), bad);
        set_zone_fault("pages", Some(ZoneFault::NotGranted));
        assert_eq!(
            told("a", SECOND),
            "zone \"pages\": single_flight: not granted"
        );
    }
}
