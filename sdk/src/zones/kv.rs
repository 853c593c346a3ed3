//! Keys and values.

use std::time::Duration;

use castling_abi::kv::{MAX_LIST_KEYS, Records, records};
use castling_abi::{Grant, KvExpected};

use crate::buffer::{Buffer, status};
use crate::error::{self, Error, Result};
use crate::host;

/// The kv zone of this name. Whether it is there and granted is found out when it is used, or asked by
/// [`Kv::must_be_granted`].
///
/// Keys and values that all workers share, in the order of the keys' bytes, each with a time to live if one wants: sessions,
/// fetched documents, locks. A zone is made in the config (`[zones.sessions] kind = "kv"`, `size = "32MiB"`) and granted
/// to the plugin (`grants = { zones = ["sessions"] }`).
///
/// ```
/// use castling_sdk::prelude::*;
/// use castling_sdk::testing::Exchange;
/// use castling_sdk::zones::Kv;
///
/// struct Sessions { sessions: Kv }
///
/// #[plugin]
/// impl Sessions {
///     fn configure(_: std::collections::BTreeMap<String, String>) -> Self {
///         Self { sessions: zones::kv("sessions") }
///     }
///
///     fn access(&self, request: &mut Request) -> Result<Verdict> {
///         let Some(token) = request.header("x-session") else {
///             return Ok(Response::status(401).into());
///         };
///         Ok(match self.sessions.get(&token)? {
///             Some(user) => {
///                 request.set_var("user", user);
///                 Verdict::Continue
///             }
///             None => Response::status(401).into(),
///         })
///     }
/// }
///
/// let sessions = zones::kv("sessions");
/// sessions.put("t0ken", "ada", Some(Duration::from_secs(3600)))?;
/// let plugin = Sessions { sessions };
/// let mut exchange = Exchange::get("/").header("x-session", "t0ken");
/// assert_eq!(plugin.access(exchange.request())?, Verdict::Continue);
/// assert_eq!(exchange.request().var("user").unwrap(), "ada");
///
/// castling_sdk::testing::advance_clock(Duration::from_secs(3600));
/// assert_eq!(plugin.access(exchange.request())?, Response::status(401).into());
/// # Ok::<(), Error>(())
/// ```
pub fn kv(name: impl Into<String>) -> Kv {
    Kv { zone: name.into() }
}

/// A zone of keys and values: [`kv()`].
///
/// **Limits**: a key has 1 to 510 bytes; a value at most 1/16 of the zone's size and never more than 1 MiB
/// ([`Error::is_limit`]); all entries together take about 7/8 of the zone's size, beyond which what is new or larger is
/// refused ([`Error::is_full`]) once nothing expired is left to make room. Every call fails when the zone is not granted
/// to the plugin, and when it is a counter zone.
///
/// **Times to live** are in whole milliseconds, rounded up, at least 1 ms; `None` is for ever.
/// What has expired is gone at once.
///
/// **What it outlives**: each call is done wholly or not at all, also when its worker is killed in the middle of it.
/// Entries outlive instances, workers and reloads that leave the zone's name, kind and size as they are, not the
/// gateway's end.
///
/// **What it costs**: no call suspends the hook. A read waits for nobody; a change waits for the changes of other workers
/// before it, microseconds each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kv {
    zone: String,
}

/// Condition of a change: what must be there.
type Expected<'a> = (KvExpected, &'a [u8]);

const ANYTHING: Expected<'static> = (KvExpected::Any, &[]);
const NOTHING: Expected<'static> = (KvExpected::Absent, &[]);

impl Kv {
    /// Fails when the config has no such kv zone or does not grant it to the plugin: for `configure`, as
    /// [`Counter::must_be_granted`](super::Counter::must_be_granted).
    pub fn must_be_granted(&self) -> Result<()> {
        error::must_be_granted(Grant::KvZone, &self.zone)
    }

    /// The key's value, if it has one that has not expired.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        let (zone, key) = (self.zone.as_bytes(), key.as_ref());
        match Buffer::read(0, |out| host::kv_get(zone, key, out)) {
            Ok(value) => Ok(Some(value.to_vec())),
            Err(castling_abi::Status::NotFound) => Ok(None),
            Err(status) => Err(self.refusal(format_args!("get"), status)),
        }
    }

    /// Stores a value, whatever was there. It expires after `ttl` from now.
    pub fn put(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Option<Duration>,
    ) -> Result<()> {
        self.store(key.as_ref(), value.as_ref(), ttl, ANYTHING)?;
        Ok(())
    }

    /// Stores a value if the key has none, and says whether it did. Of any number of workers that try this at once, one
    /// is told `true`; so a thing is done once.
    ///
    /// ```
    /// # use castling_sdk::prelude::*;
    /// let seen = zones::kv("nonces");
    /// let ttl = Some(Duration::from_secs(300));
    /// assert!(seen.put_if_absent("n-1", "", ttl)?);
    /// assert!(!seen.put_if_absent("n-1", "", ttl)?, "a replay");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn put_if_absent(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Option<Duration>,
    ) -> Result<bool> {
        self.store(key.as_ref(), value.as_ref(), ttl, NOTHING)
    }

    /// Stores `new` if what is there is `expected` (`None`: nothing), and says whether it did.
    ///
    /// ```
    /// # use castling_sdk::prelude::*;
    /// fn increment(zone: &zones::Kv, key: &str) -> Result<u64> {
    ///     loop {
    ///         let old = zone.get(key)?;
    ///         let count = match &old {
    ///             Some(bytes) => u64::from_le_bytes(bytes.as_slice().try_into()?) + 1,
    ///             None => 1,
    ///         };
    ///         // False when another worker was quicker: look again.
    ///         if zone.compare_and_swap(key, old.as_deref(), count.to_le_bytes(), None)? {
    ///             return Ok(count);
    ///         }
    ///     }
    /// }
    ///
    /// let zone = zones::kv("tickets");
    /// assert_eq!(increment(&zone, "next")?, 1);
    /// assert_eq!(increment(&zone, "next")?, 2);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: impl AsRef<[u8]>,
        ttl: Option<Duration>,
    ) -> Result<bool> {
        let expected = expected.map_or(NOTHING, |value| (KvExpected::Value, value));
        self.store(key.as_ref(), new.as_ref(), ttl, expected)
    }

    /// Deletes a key, and says whether it was there. A full zone does not refuse this.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.remove(key.as_ref(), ANYTHING)
    }

    /// Deletes a key if its value is `expected`, and says whether it did: lets go of a lock only where one still has it.
    ///
    /// ```
    /// # use castling_sdk::prelude::*;
    /// let locks = zones::kv("locks");
    /// assert!(locks.put_if_absent("refresh", "me", Some(Duration::from_secs(10)))?);
    /// assert!(!locks.delete_if("refresh", "another")?);
    /// assert!(locks.delete_if("refresh", "me")?);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn delete_if(&self, key: impl AsRef<[u8]>, expected: impl AsRef<[u8]>) -> Result<bool> {
        self.remove(key.as_ref(), (KvExpected::Value, expected.as_ref()))
    }

    /// Keys that begin with `prefix` (all, when it is empty), in the order of their bytes, at most `limit`.
    ///
    /// ```
    /// # use castling_sdk::prelude::*;
    /// let sessions = zones::kv("sessions");
    /// for key in ["ada/2", "ada/1", "bob/1"] {
    ///     sessions.put(key, "", None)?;
    /// }
    /// assert_eq!(sessions.list("ada/", 10)?, [b"ada/1", b"ada/2"]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn list(&self, prefix: impl AsRef<[u8]>, limit: usize) -> Result<Vec<Vec<u8>>> {
        self.list_after(prefix, "", limit)
    }

    /// Lists the keys that come after `after` only, which need not be there: the next page, when it is the last
    /// key of the one before.
    pub fn list_after(
        &self,
        prefix: impl AsRef<[u8]>,
        after: impl AsRef<[u8]>,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>> {
        let (zone, prefix) = (self.zone.as_bytes(), prefix.as_ref());
        let mut after = after.as_ref().to_vec();
        let mut keys = Vec::new();
        while keys.len() < limit {
            let most = (limit - keys.len()).min(MAX_LIST_KEYS);
            let listing = Buffer::read(most * EXPECTED_KEY_BYTES, |out| {
                host::kv_list(zone, prefix, &after, most, out)
            });
            let listing = listing.map_err(|status| self.refusal(format_args!("list"), status))?;
            match self.page(records(&listing), &mut keys)? {
                Some(next) => after = next,
                None => break,
            }
        }
        Ok(keys)
    }

    /// Adds a page's keys. Where to go on; None: that was all.
    fn page(&self, mut records: Records<'_>, keys: &mut Vec<Vec<u8>>) -> Result<Option<Vec<u8>>> {
        let broken = |()| {
            Error::msg(format_args!(
                "zone \"{}\": list: the gateway's answer cannot be read",
                self.zone
            ))
        };
        let next = records.next().ok_or(()).flatten().map_err(broken)?;
        for key in records {
            keys.push(key.map_err(broken)?.to_vec());
        }
        Ok((!next.is_empty()).then(|| next.to_vec()))
    }

    fn store(
        &self,
        key: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
        expected: Expected<'_>,
    ) -> Result<bool> {
        let stored = host::kv_put(self.zone.as_bytes(), key, value, ttl_ms(ttl), expected);
        match u32::try_from(stored) {
            Ok(stored) => Ok(stored != 0),
            Err(_) => {
                let doing = format_args!("put of {} bytes", value.len());
                Err(self.refusal(doing, status(stored)))
            }
        }
    }

    fn remove(&self, key: &[u8], expected: Expected<'_>) -> Result<bool> {
        let deleted = host::kv_delete(self.zone.as_bytes(), key, expected);
        match u32::try_from(deleted) {
            Ok(deleted) => Ok(deleted != 0),
            Err(_) => Err(self.refusal(format_args!("delete"), status(deleted))),
        }
    }

    fn refusal(&self, doing: std::fmt::Arguments<'_>, status: castling_abi::Status) -> Error {
        error::bad_argument(
            format_args!("zone \"{}\": {doing}", self.zone),
            status,
            "keys of 1 to 510 bytes",
        )
    }
}

/// Room for a listing, by key: more than most have.
const EXPECTED_KEY_BYTES: usize = 48;

/// Time to live as the ABI has it: 0 is for ever.
fn ttl_ms(ttl: Option<Duration>) -> i64 {
    let Some(ttl) = ttl else { return 0 };
    let whole = ttl.as_nanos().div_ceil(1_000_000).max(1);
    i64::try_from(whole).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ZoneFault, advance_clock, set_zone_fault};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_entry_is_there_until_it_expires() {
        let zone = kv("sessions");
        zone.put("a", "1", Some(SECOND)).unwrap();
        zone.put("b", "2", None).unwrap();
        advance_clock(SECOND - Duration::from_millis(1));
        assert_eq!(zone.get("a").unwrap().unwrap(), b"1");
        advance_clock(Duration::from_millis(1));
        assert_eq!(zone.get("a").unwrap(), None);
        assert!(!zone.delete("a").unwrap());
        assert!(zone.put_if_absent("a", "3", Some(Duration::ZERO)).unwrap());
        assert_eq!(zone.list("", 9).unwrap(), [b"a", b"b"]);
        advance_clock(Duration::from_millis(1));
        assert_eq!(zone.list("", 9).unwrap(), [b"b"]);
        assert!(zone.delete("b").unwrap());
        assert_eq!(kv("other").list("", 9).unwrap(), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_change_is_made_where_what_is_there_is_as_expected() {
        let zone = kv("sessions");
        assert!(!zone.compare_and_swap("k", Some(b"1"), "2", None).unwrap());
        assert!(zone.compare_and_swap("k", None, "1", None).unwrap());
        assert!(!zone.compare_and_swap("k", None, "2", None).unwrap());
        assert!(!zone.put_if_absent("k", "2", None).unwrap());
        assert!(zone.compare_and_swap("k", Some(b"1"), "2", None).unwrap());
        assert!(!zone.delete_if("k", "1").unwrap());
        assert!(zone.delete_if("k", "2").unwrap());
        assert!(!zone.delete_if("k", "2").unwrap());
    }

    #[test]
    fn a_listing_goes_on_where_it_ended() {
        let zone = kv("sessions");
        for number in 0..2_500 {
            zone.put(format!("p/{number:04}"), "", None).unwrap();
        }
        zone.put("q", "", None).unwrap();
        let keys = zone.list("p/", 2_400).unwrap();
        assert_eq!(keys.len(), 2_400);
        assert_eq!(keys.last().unwrap(), b"p/2399");
        let rest = zone.list_after("p/", "p/2399", usize::MAX).unwrap();
        assert_eq!(rest.len(), 100);
        assert_eq!(rest.last().unwrap(), b"p/2499");
        assert_eq!(zone.list("p/", 0).unwrap().len(), 0);
        assert_eq!(zone.list_after("p/", "z", 9).unwrap().len(), 0);
    }

    #[test]
    fn what_a_zone_refuses_is_an_error_that_names_it() {
        let zone = kv("sessions");
        let error = zone.get("").unwrap_err();
        assert_eq!(
            error.to_string(),
            "zone \"sessions\": get: bad argument: expected keys of 1 to 510 bytes"
        );
        assert!(zone.put(vec![b'k'; 511], "", None).is_err());
        let error = zone.put("k", vec![0; (1 << 20) + 1], None).unwrap_err();
        assert!(error.is_limit() && !error.is_full());
        assert_eq!(
            error.to_string(),
            "zone \"sessions\": put of 1048577 bytes: limit reached"
        );

        zone.put("k", "12", None).unwrap();
        set_zone_fault("sessions", Some(ZoneFault::Full));
        let error = zone.put("new", "1", None).unwrap_err();
        assert!(error.is_full() && !error.is_limit());
        assert_eq!(error.to_string(), "zone \"sessions\": put of 1 bytes: full");
        zone.put("k", "34", None).expect("as large as before");
        assert!(zone.put("k", "345", None).is_err());
        assert!(!zone.put_if_absent("k", "345", None).unwrap());
        assert!(zone.delete("k").unwrap());

        set_zone_fault("sessions", Some(ZoneFault::NotGranted));
        let error = zone.get("k").unwrap_err();
        assert_eq!(error.to_string(), "zone \"sessions\": get: not granted");
        set_zone_fault("sessions", None);
        assert_eq!(zone.get("k").unwrap(), None);
    }
}
