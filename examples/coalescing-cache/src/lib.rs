//! A cache for all workers. However many ask for a page that is not there, one of them fetches it and the others wait; where that
//! one fails, loses its client or is killed, another one takes its place.
//!
//! ```toml
//! [zones.pages]
//! kind = "kv"
//! size = "256MiB"
//! when_full = "evict"
//!
//! [plugins.cache]
//! wasm = "coalescing_cache.wasm"
//! limits = { instances = 1024 }   # so many may wait at once in a worker
//!
//! [plugins.cache.config]          # the gateway grants what it names
//! pages = "pages"
//! upstream = "app"                # the route's, too: what is not for the cache goes there
//! ttl = "10s"                     # of what the origin says nothing about
//! wait = "5s"
//! refresh = "1s"                  # a page that has less left is fetched by one request, while the others have the old one
//! ```
//!
//! `X-Cache` says `HIT`, `WAIT` or `MISS`, `$cache_age_us` how old the page was when it was found. Whoever sends a credential or
//! asks for a part passes, and so does what the origin lets no shared cache keep.

use castling_sdk::prelude::*;
use castling_sdk::units;
use castling_sdk::zones::{Flight, Kv};

/// The plugin, which is its config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cache {
    pages: Kv,
    upstream: http::Upstream,
    #[serde(deserialize_with = "units::duration_above_zero")]
    ttl: Duration,
    #[serde(deserialize_with = "units::duration_above_zero")]
    wait: Duration,
    #[serde(deserialize_with = "units::duration", default)]
    refresh: Duration,
}

/// Requests with one of these are the client's own.
const OWN: [&str; 3] = ["authorization", "cookie", "range"];

/// Request headers that an answer may depend on, if it does not say so.
const ASKED_WITH: [&str; 2] = ["accept", "accept-language"];

/// Key that is longer, less the prefix of refreshes: not cached.
const MOST_KEY_BYTES: usize = 500;

/// Time for which a page that may not be kept is known for that.
const PASS: Duration = Duration::from_secs(1);

#[plugin]
impl Cache {
    fn configure(config: Self) -> Self {
        config
    }

    fn content(&self, request: &mut Request) -> Result<Verdict> {
        let key = request.host() + &request.target();
        let is_own = OWN.iter().any(|name| request.header(name).is_some());
        if request.method() != "GET" || is_own || key.len() > MOST_KEY_BYTES {
            return Ok(Verdict::Continue);
        }
        if let Some((page, left)) = self.pages.get_with_ttl(&key)? {
            if !page.is_empty()
                && self.is_due(&key, left)?
                && let Ok((page, Some(ttl))) = self.fetch(request)
            {
                self.pages.put(&key, stamped(&page)?, Some(ttl))?;
            }
            return found("HIT", request, &page);
        }
        let flight = match self.pages.single_flight(&key, self.wait)? {
            Flight::Value(page) => return found("WAIT", request, &page),
            Flight::TimedOut => return Ok(Verdict::Continue),
            Flight::Fetch(flight) => flight,
        };
        // An error ends the flight with the request.
        let (page, ttl) = self.fetch(request)?;
        let kept = match ttl {
            Some(ttl) => flight.put(stamped(&page)?, Some(ttl)),
            None if page.status_code() >= 500 => flight.give_up(),
            // Those who wait need not fetch it one after the other.
            None => flight.put("", Some(PASS)),
        };
        if let Err(error) = kept {
            log::warn!("{key} is not kept: {error}");
        }
        Ok(page.header("x-cache", "MISS").into())
    }
}

impl Cache {
    /// Whether this request is the one that fetches the page anew before its end.
    fn is_due(&self, key: &str, left: Option<Duration>) -> Result<bool> {
        let is_late = left.is_some_and(|left| left < self.refresh);
        let refreshes = Some(self.refresh);
        Ok(is_late
            && self
                .pages
                .put_if_absent(format!("refresh {key}"), "", refreshes)?)
    }

    /// The page from the origin, and how long it may be kept.
    fn fetch(&self, request: &Request) -> Result<(Response, Option<Duration>)> {
        let call = http::Request::get(request.target()).header("host", request.host());
        let answer = self.upstream.send(call.forward(request, ASKED_WITH))?;
        let ttl = self.lifetime(&answer);
        Ok((answer.into(), ttl))
    }

    /// Time for which a shared cache may keep it (RFC 9111 §3, as far as this one goes); `None`: it may not.
    fn lifetime(&self, answer: &http::Response) -> Option<Duration> {
        let headers = answer.headers();
        let lists = |name| {
            headers
                .all(name)
                .map(|it| it.to_string_lossy().to_ascii_lowercase())
        };
        let list = |name| lists(name).collect::<Vec<_>>().join(",");
        let (vary, control) = (list("vary"), list("cache-control"));
        let mut varies = vary.split(',').map(str::trim).filter(|it| !it.is_empty());
        // It was asked for without codings.
        let is_one_for_all = varies.all(|name| name == "accept-encoding");
        let directives = control.split(',').map(str::trim);
        let is_barred = directives.clone().any(|it| {
            let name = it.split('=').next().unwrap_or_default();
            ["no-store", "no-cache", "private"].contains(&name)
        });
        if answer.status() != 200
            || answer.header("set-cookie").is_some()
            || !is_one_for_all
            || is_barred
        {
            return None;
        }
        // RFC 9111 §4.2.1: a shared cache's own comes first.
        let seconds = |name: &str| {
            let mut values = directives.clone().filter_map(|it| it.strip_prefix(name));
            values.find_map(|it| {
                let digits = it.strip_prefix('=')?.trim_matches('"');
                let is_number = !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit());
                // RFC 9111 §1.2.2: what is too large is as long as can be.
                is_number.then(|| digits.parse().unwrap_or(u32::MAX.into()))
            })
        };
        let said = seconds("s-maxage").or_else(|| seconds("max-age"));
        let age = list("age").parse().unwrap_or(0);
        let ttl = said.map_or(self.ttl, |seconds: u64| {
            Duration::from_secs(seconds.saturating_sub(age))
        });
        (!ttl.is_zero()).then_some(ttl)
    }
}

/// Page as the zone has it: the time in microseconds, and the response.
fn stamped(page: &Response) -> Result<Vec<u8>> {
    let now = clock::wall().as_micros() as u64;
    Ok([&now.to_le_bytes()[..], &page.to_bytes()?].concat())
}

/// Answers with a page of the zone, unless it says that it is not for the cache.
fn found(how: &str, request: &Request, page: &[u8]) -> Result<Verdict> {
    let Some((stamp, page)) = page.split_first_chunk() else {
        return Ok(Verdict::Continue);
    };
    let age = clock::wall().saturating_sub(Duration::from_micros(u64::from_le_bytes(*stamp)));
    request.set_var("cache_age_us", age.as_micros().to_string());
    let page = Response::from_bytes(page)?.header("age", age.as_secs().to_string());
    Ok(page.header("x-cache", how).into())
}

#[cfg(test)]
mod tests;
