//! Keys and values.

use std::fmt::Arguments;
use std::time::Duration;

use castling_abi::kv::{MAX_KEYS_AT_ONCE, MAX_LIST_KEYS, Records, key_head, records, values};
use castling_abi::{Grant, KvExpected, Status, header_list};

use crate::buffer::{Buffer, length, status};
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
/// refused ([`Error::is_full`]) once nothing expired is left to make room. In a zone with `when_full = "evict"` the entries
/// that would expire first make room, a few before it is full; those without a time to live never do, and what finds no room when
/// nothing else is left (or after 4096 entries) is refused there, too. Every call fails when the zone is not granted
/// to the plugin, and when it is a counter zone.
///
/// **Times to live** are in whole milliseconds, rounded up, at least 1 ms; `None` is for ever.
/// What has expired is gone at once.
///
/// **Several keys at once** ([`Kv::get_all`], [`Kv::put_all`], [`Kv::delete_all`]) are 100 at most ([`Error::is_limit`]).
///
/// **One fetches, the others wait**: [`Kv::single_flight`], the one call that suspends the hook.
///
/// **What it outlives**: each call is done wholly or not at all, also when its worker is killed in the middle of it.
/// Entries outlive instances, workers and reloads that leave the zone's name, kind and size as they are, not the
/// gateway's end.
///
/// **What it costs**: no other call suspends the hook. A read waits for nobody; a change waits for the changes of other workers
/// before it, microseconds each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kv {
    pub(super) zone: String,
}

/// Condition of a change: what must be there.
type Expected<'a> = (KvExpected, &'a [u8]);

const ANYTHING: Expected<'static> = (KvExpected::Any, &[]);
const NOTHING: Expected<'static> = (KvExpected::Absent, &[]);

impl Kv {
    pub(super) fn name(&self) -> &[u8] {
        self.zone.as_bytes()
    }

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
            Err(Status::NotFound) => Ok(None),
            Err(status) => Err(self.refusal(format_args!("get"), status)),
        }
    }

    /// The key's value, if it has one that has not expired, and the time that it has left, in whole milliseconds, rounded up.
    /// `None`: it never expires.
    ///
    /// ```
    /// # use castling_sdk::prelude::*;
    /// let sessions = zones::kv("sessions");
    /// sessions.put("t0ken", "ada", Some(Duration::from_secs(60)))?;
    /// castling_sdk::testing::advance_clock(Duration::from_secs(50));
    /// if let Some((user, Some(left))) = sessions.get_with_ttl("t0ken")? {
    ///     assert_eq!((&user[..], left), (&b"ada"[..], Duration::from_secs(10)));
    ///     if left < Duration::from_secs(30) {
    ///         sessions.put("t0ken", &user, Some(Duration::from_secs(60)))?;
    ///     }
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    pub fn get_with_ttl(
        &self,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<(Vec<u8>, Option<Duration>)>> {
        let (zone, key) = (self.zone.as_bytes(), key.as_ref());
        let mut left_ms = 0;
        let read = Buffer::read(0, |out| host::kv_get_with_ttl(zone, key, out, &mut left_ms));
        match (read, u64::try_from(left_ms)) {
            (Ok(value), left_ms) => {
                let left_ms = left_ms.ok().filter(|left_ms| *left_ms > 0);
                Ok(Some((value.to_vec(), left_ms.map(Duration::from_millis))))
            }
            (Err(Status::NotFound), _) => Ok(None),
            (Err(status), _) => Err(self.refusal(format_args!("get"), status)),
        }
    }

    /// Values of several keys as they are at one moment, in the order of the keys. Together they take at most 16 MiB
    /// ([`Error::is_limit`]).
    ///
    /// ```
    /// # use castling_sdk::prelude::*;
    /// let flags = zones::kv("flags");
    /// flags.put_all([("new-cart", "on"), ("dark", "off")], None)?;
    /// let [cart, beta] = flags.get_all(["new-cart", "beta"])?.try_into().unwrap();
    /// assert_eq!((cart, beta), (Some(b"on".to_vec()), None));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn get_all<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Vec<u8>>>> {
        let doing = format_args!("get_all");
        let (zone, keys) = (self.zone.as_bytes(), self.keys(doing, keys)?);
        let list = Buffer::read(0, |out| host::kv_get_all(zone, &keys, out));
        let list = list.map_err(|status| self.refusal(doing, status))?;
        let owned = |value: Option<&[u8]>| value.map(<[u8]>::to_vec);
        let values = values(&list).map(|value| value.map(owned));
        values
            .collect::<Result<_, ()>>()
            .map_err(|()| self.broken(doing))
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
    /// fn append(zone: &zones::Kv, key: &str, item: &str) -> Result<Vec<u8>> {
    ///     loop {
    ///         let old = zone.get(key)?;
    ///         let new = [old.as_deref().unwrap_or_default(), item.as_bytes(), b";"].concat();
    ///         // False when another worker was quicker: look again.
    ///         if zone.compare_and_swap(key, old.as_deref(), &new, None)? {
    ///             return Ok(new);
    ///         }
    ///     }
    /// }
    ///
    /// let zone = zones::kv("devices");
    /// assert_eq!(append(&zone, "ada", "phone")?, b"phone;");
    /// assert_eq!(append(&zone, "ada", "laptop")?, b"phone;laptop;");
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

    /// Adds to a number and returns the sum, whatever other workers add at the same time. The number is a value of 8 bytes, an
    /// `i64`, little-endian. A key that has none begins at 0 and expires after `ttl` from now; one that has keeps the time
    /// that it expires at.
    ///
    /// A value of another length is a bad argument, a sum beyond an `i64` a limit ([`Error::is_limit`]): both change nothing.
    ///
    /// ```
    /// # use castling_sdk::prelude::*;
    /// let tries = zones::kv("tries");
    /// let hour = Some(Duration::from_secs(3600));
    /// assert_eq!(tries.increment("ada", 1, hour)?, 1);
    /// assert_eq!(tries.increment("ada", 1, hour)?, 2);
    /// assert_eq!(tries.get("ada")?.unwrap(), 2_i64.to_le_bytes());
    /// castling_sdk::testing::advance_clock(Duration::from_secs(3600));
    /// assert_eq!(tries.increment("ada", 1, hour)?, 1, "an hour after the first");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn increment(&self, key: impl AsRef<[u8]>, by: i64, ttl: Option<Duration>) -> Result<i64> {
        let mut number = 0;
        let (zone, key) = (self.zone.as_bytes(), key.as_ref());
        match host::kv_increment(zone, key, by, ttl_ms(ttl), &mut number) {
            0 => Ok(number),
            refused => Err(error::bad_argument(
                format_args!("zone \"{}\": increment", self.zone),
                status(refused),
                "a key of 1 to 510 bytes, and a number of 8 bytes where it has a value",
            )),
        }
    }

    /// Stores several values, whatever was there, all of them or none. They expire after `ttl` from now. Of a key that is
    /// there twice, the last one counts. The values together may be as long as one ([`Error::is_limit`]), and need room
    /// beside what they replace ([`Error::is_full`]).
    ///
    /// ```
    /// # use castling_sdk::prelude::*;
    /// let sessions = zones::kv("sessions");
    /// let ttl = Some(Duration::from_secs(600));
    /// sessions.put_all([("t0ken/user", "ada"), ("t0ken/roles", "admin")], ttl)?;
    /// assert_eq!(sessions.delete_all(["t0ken/user", "t0ken/roles", "t0ken/seen"])?, 2);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn put_all<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        entries: impl IntoIterator<Item = (K, V)>,
        ttl: Option<Duration>,
    ) -> Result<()> {
        let doing = format_args!("put_all");
        let mut list = Vec::new();
        for (key, value) in entries.into_iter().take(MAX_KEYS_AT_ONCE + 1) {
            let (key, value) = (key.as_ref(), value.as_ref());
            let head = header_list::record_head(key, value);
            list.extend_from_slice(&head.ok_or_else(|| self.refusal(doing, Status::BadArgument))?);
            list.extend_from_slice(key);
            list.extend_from_slice(value);
        }
        match host::kv_put_all(self.zone.as_bytes(), &list, ttl_ms(ttl)) {
            0 => Ok(()),
            refused => Err(self.refusal(doing, status(refused))),
        }
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

    /// Deletes several keys, and says how many were there. A full zone does not refuse this: where it has no room to do it
    /// all at one moment, the keys go one after the other.
    pub fn delete_all<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<usize> {
        let doing = format_args!("delete_all");
        let keys = self.keys(doing, keys)?;
        let deleted = host::kv_delete_all(self.zone.as_bytes(), &keys);
        length(deleted).map_err(|status| self.refusal(doing, status))
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
        let broken = |()| self.broken(format_args!("list"));
        let next = records.next().ok_or(()).flatten().map_err(broken)?;
        for key in records {
            keys.push(key.map_err(broken)?.to_vec());
        }
        Ok((!next.is_empty()).then(|| next.to_vec()))
    }

    /// Keys as the ABI has them. No more than it takes to be refused.
    fn keys<K: AsRef<[u8]>>(
        &self,
        doing: Arguments<'_>,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<u8>> {
        let mut list = Vec::new();
        for key in keys.into_iter().take(MAX_KEYS_AT_ONCE + 1) {
            let key = key.as_ref();
            let head = key_head(key).ok_or_else(|| self.refusal(doing, Status::BadArgument))?;
            list.extend_from_slice(&head);
            list.extend_from_slice(key);
        }
        Ok(list)
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

    fn broken(&self, doing: Arguments<'_>) -> Error {
        let zone = &self.zone;
        Error::msg(format_args!(
            "zone \"{zone}\": {doing}: the gateway's answer cannot be read"
        ))
    }

    fn refusal(&self, doing: Arguments<'_>, status: Status) -> Error {
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
mod tests;
