//! Does with a kv zone what the request's path says (`/VERB/KEY`), and answers what came of it. What the zone refuses is a 409
//! with the error.

use castling_sdk::prelude::*;
use castling_sdk::zones::Kv;

struct Keeper {
    zone: Kv,
}

#[derive(Deserialize)]
struct Config {
    zone: String,
}

#[plugin]
impl Keeper {
    fn configure(config: Config) -> Self {
        Self { zone: zones::kv(config.zone) }
    }

    fn content(&self, request: &mut Request) -> Result<Verdict> {
        let path = request.path();
        let (verb, key) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        let done = match verb {
            "get" => self.get(key),
            "put" => self.put(key, request),
            "add" => self.zone.put_if_absent(key, value(request), ttl(request)).map(told),
            "swap" => self.swap(key, request),
            "delete" => self.zone.delete(key).map(told),
            "delete_if" => self.zone.delete_if(key, value(request)).map(told),
            "list" => self.list(key, request),
            "count" => self.count(key),
            "ttl" => self.ttl(key),
            "increment" => self.increment(key, request),
            "get_all" => self.get_all(key),
            "put_all" => self.put_all(key, request),
            "delete_all" => {
                let deleted = self.zone.delete_all(key.split(','));
                deleted.map(|count| count.to_string().into_bytes())
            }
            "batch" => self.batch(key, request),
            "fill" => self.fill(key, request),
            "blob" => self.blob(key, request),
            "counter" => zones::counter("kept").get(key).map(|count| count.to_string().into_bytes()),
            _ => bail!("{verb} is nothing"),
        };
        Ok(match done {
            Ok(body) => Response::status(200).body(body).into(),
            Err(error) => Response::status(409).body(error.to_string()).into(),
        })
    }
}

impl Keeper {
    fn get(&self, key: &str) -> Result<Vec<u8>> {
        Ok(self.zone.get(key)?.unwrap_or_else(|| b"nothing".to_vec()))
    }

    fn put(&self, key: &str, request: &mut Request) -> Result<Vec<u8>> {
        let value = match number(request, "x-size") {
            Some(size) => vec![b'x'; size],
            None => value(request),
        };
        self.zone.put(key, value, ttl(request))?;
        Ok(b"stored".to_vec())
    }

    fn swap(&self, key: &str, request: &Request) -> Result<Vec<u8>> {
        let expected = request.header("x-expected");
        let expected = expected.as_ref().map(|value| value.as_bytes());
        self.zone.compare_and_swap(key, expected, value(request), ttl(request)).map(told)
    }

    fn list(&self, prefix: &str, request: &Request) -> Result<Vec<u8>> {
        let limit = number(request, "x-limit").unwrap_or(usize::MAX);
        let after = request.header("x-after");
        let after = after.as_ref().map_or(&[][..], |value| value.as_bytes());
        Ok(self.zone.list_after(prefix, after, limit)?.join(&b' '))
    }

    /// Tells the value and what time it has left.
    fn ttl(&self, key: &str) -> Result<Vec<u8>> {
        let Some((value, left)) = self.zone.get_with_ttl(key)? else {
            return Ok(b"nothing".to_vec());
        };
        let left = left.map_or_else(|| "for ever".to_owned(), |left| left.as_millis().to_string());
        Ok([&value, &b" "[..], left.as_bytes()].concat())
    }

    fn increment(&self, key: &str, request: &Request) -> Result<Vec<u8>> {
        let by = request.header("x-by");
        let by = by.as_ref().and_then(|by| by.as_str()).map_or(Ok(1), str::parse)?;
        let number = self.zone.increment(key, by, ttl(request))?;
        Ok(number.to_string().into_bytes())
    }

    /// Values of keys with a comma between two, and a comma between two of them.
    fn get_all(&self, keys: &str) -> Result<Vec<u8>> {
        let values = self.zone.get_all(keys.split(','))?.into_iter();
        let values: Vec<_> = values.map(|value| value.unwrap_or_else(|| b"nothing".to_vec())).collect();
        Ok(values.join(&b','))
    }

    /// Stores one value under each of the keys.
    fn put_all(&self, keys: &str, request: &Request) -> Result<Vec<u8>> {
        let value = match number(request, "x-size") {
            Some(size) => vec![b'x'; size],
            None => value(request),
        };
        self.zone.put_all(keys.split(',').map(|key| (key, &value)), ttl(request))?;
        Ok(b"stored".to_vec())
    }

    /// Looks whether `x-count` keys have one value, and stores another one under all of them: what others do meanwhile is
    /// seen whole or not at all.
    fn batch(&self, prefix: &str, request: &Request) -> Result<Vec<u8>> {
        let keys: Vec<String> = (0..number(request, "x-count").unwrap_or(1)).map(|nth| format!("{prefix}{nth}")).collect();
        let values = self.zone.get_all(&keys)?;
        if values.iter().any(|value| *value != values[0]) {
            bail!("values that do not belong together");
        }
        let value = value(request);
        self.zone.put_all(keys.iter().map(|key| (key, &value)), ttl(request))?;
        Ok(b"whole".to_vec())
    }

    /// Adds one to a number, however many others do the same.
    fn count(&self, key: &str) -> Result<Vec<u8>> {
        loop {
            let old = self.zone.get(key)?;
            let count: u64 = match &old {
                Some(digits) => std::str::from_utf8(digits)?.parse()?,
                None => 0,
            };
            let new = (count + 1).to_string();
            if self.zone.compare_and_swap(key, old.as_deref(), &new, None)? {
                return Ok(new.into_bytes());
            }
        }
    }

    /// Puts values of `x-size` bytes until that is refused, and says how many there are and why there are no more.
    fn fill(&self, prefix: &str, request: &Request) -> Result<Vec<u8>> {
        let value = vec![0; number(request, "x-size").unwrap_or(1)];
        let ttl = ttl(request);
        for stored in 0..100_000 {
            match self.zone.put(format!("{prefix}{stored:05}"), &value, ttl) {
                Ok(()) => {}
                Err(error) if error.is_full() => return Ok(format!("{stored} {error}").into_bytes()),
                Err(error) => return Err(error),
            }
        }
        bail!("it has no end")
    }

    /// Looks whether the value is whole, and replaces it by one of `x-size` bytes that all say its length.
    fn blob(&self, key: &str, request: &Request) -> Result<Vec<u8>> {
        if let Some(there) = self.zone.get(key)? {
            if there.iter().any(|byte| *byte != there.len() as u8) {
                bail!("{} bytes that do not belong together", there.len());
            }
        }
        let size = number(request, "x-size").unwrap_or(1);
        self.zone.put(key, vec![size as u8; size], ttl(request))?;
        Ok(b"whole".to_vec())
    }
}

fn value(request: &Request) -> Vec<u8> {
    request.header("x-value").map_or_else(Vec::new, |value| value.as_bytes().to_vec())
}

fn ttl(request: &Request) -> Option<Duration> {
    number(request, "x-ttl-ms").map(|milliseconds| Duration::from_millis(milliseconds as u64))
}

fn number(request: &Request, name: &str) -> Option<usize> {
    let value = request.header(name)?;
    value.as_str()?.parse().ok()
}

fn told(done: bool) -> Vec<u8> {
    done.to_string().into_bytes()
}
