//! Keys that an identity provider publishes (RFC 7517 §5), fetched by a call out.
//!
//! All workers share what one of them has fetched, in a kv zone. There is a gate before the provider, in the same zone: after
//! a fetch, good, bad or given up, nobody fetches again until the cooldown has passed, whatever tokens clients send.

use castling_sdk::prelude::*;
use castling_sdk::units;
use castling_sdk::zones::Kv;
use data_encoding::BASE64URL_NOPAD;
use rsa::sha2::{Digest, Sha256};
use serde_json::Value;

use crate::key::{Algorithm, Key};
use crate::keys::{Keys, Signature};
use crate::token::Token;

/// Where keys are fetched and kept.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    upstream: String,
    /// Target that the provider is asked for: path, or path and query.
    path: String,
    /// The `Host` that it sees. Default: the upstream's own.
    #[serde(default)]
    host: Option<String>,
    /// The kv zone.
    zone: String,
    /// Older keys are fetched anew. Above zero. Default 10 min.
    #[serde(
        default = "ten_minutes",
        deserialize_with = "units::duration_above_zero"
    )]
    refresh: Duration,
    /// How much longer keys are used while no newer ones are to be had. Default 1 day.
    #[serde(default = "one_day", deserialize_with = "units::duration")]
    stale: Duration,
    /// Between two fetches, at least. Above zero. Default 30 s.
    #[serde(
        default = "thirty_seconds",
        deserialize_with = "units::duration_above_zero"
    )]
    cooldown: Duration,
    /// Longest wait for the answer. Above zero. Default 5 s.
    #[serde(
        default = "five_seconds",
        deserialize_with = "units::duration_above_zero"
    )]
    timeout: Duration,
}

impl Config {
    /// A digest of all that decides whose keys these are: what differs in any part has keys of its own, also where one
    /// provider has several tenants.
    fn source(&self) -> String {
        let mut digest = Sha256::new();
        for part in [Some(&self.upstream), Some(&self.path), self.host.as_ref()] {
            // Lengths keep the parts apart; and no host is not an empty one.
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            digest.update(length.to_le_bytes());
            digest.update(part.map_or("", String::as_str));
        }
        BASE64URL_NOPAD.encode(&digest.finalize())
    }
}

/// The published keys, as far as this instance knows them.
pub(crate) struct Jwks {
    config: Config,
    zone: Kv,
    /// Where the document is in the zone.
    document_key: String,
    /// Where the gate is in the zone.
    gate_key: String,
    document: Option<Document>,
    /// Counts the documents that this instance has had.
    version: u64,
}

struct Document {
    /// Since 1970-01-01 UTC, in whole milliseconds.
    fetched_at: Duration,
    keys: Keys,
    /// Whether the zone has had it.
    is_shared: bool,
}

/// Values of the gate.
const FETCHING: &[u8] = b"fetching";
const FETCHED: &[u8] = b"fetched";
const FAILED: &[u8] = b"failed: ";

/// Result of looking for newer keys.
enum Renewal {
    /// Newer keys are here.
    Newer,
    /// There are none, and the provider was asked lately: what the gate says of that.
    Asked(Vec<u8>),
    /// Another instance is asking the provider.
    Asking,
}

/// How long a request without any keys waits for those that another one is fetching.
const PATIENCE: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(20);

/// How far the wall clock may go back for keys to be of now all the same.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// More keys of a set are not read.
const KEYS_LIMIT: usize = 100;

impl Jwks {
    pub(crate) fn new(config: Config) -> Result<Self> {
        for (key, value) in [("upstream", &config.upstream), ("zone", &config.zone)] {
            if value.is_empty() {
                bail!("config.jwks.{key}: empty");
            }
        }
        http::must_be_granted(&config.upstream)
            .map_err(|error| error.context("config.jwks.upstream"))?;
        let zone = zones::kv(&config.zone);
        zone.must_be_granted()
            .map_err(|error| error.context("config.jwks.zone"))?;
        if !config.path.starts_with('/') || config.path.len() > 256 {
            bail!(
                "config.jwks.path: `{}`: expected `/...`, up to 256 bytes",
                config.path
            );
        }
        if config
            .host
            .as_deref()
            .is_some_and(|host| HeaderValue::new(host).is_err())
        {
            bail!("config.jwks.host: a control character is in it");
        }
        let source = config.source();
        let mut jwks = Self {
            zone,
            document_key: format!("jwks document {source}"),
            gate_key: format!("jwks gate {source}"),
            document: None,
            version: 0,
            config,
        };
        // The document may have been fetched before; and a zone that cannot be used is found out now.
        jwks.take_over()
            .map_err(|error| error.context("config.jwks.zone"))?;
        Ok(jwks)
    }

    /// Changes whenever the keys do.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Sees to it that there are keys, and none that are too old. Fails when there are none.
    pub(crate) fn refresh(&mut self) -> Result<()> {
        let document = self.document.as_ref();
        match document.and_then(|document| self.age(document.fetched_at)) {
            Some(age) if age < self.config.refresh => Ok(()),
            Some(age) => {
                // A single instance fetches; the others go on with what they have.
                if let Err(error) = self.renew(Duration::ZERO) {
                    log::warn!(
                        "{error}: going on with keys that are {} s old",
                        age.as_secs()
                    );
                }
                Ok(())
            }
            None => self.begin(),
        }
    }

    /// Compares with the keys that are here, and when none of them may be the one, with newer ones, if there are any.
    pub(crate) fn verify(&mut self, token: &Token<'_>) -> Signature {
        let verdict = self.try_keys(token);
        if verdict != Signature::Unknown {
            return verdict;
        }
        // Without waiting for others: a token like this costs its client nothing.
        match self.renew(Duration::ZERO) {
            Ok(Renewal::Newer) => self.try_keys(token),
            Ok(Renewal::Asked(_) | Renewal::Asking) => verdict,
            Err(error) => {
                log::warn!("{error}: a token's key stays unknown");
                verdict
            }
        }
    }

    fn try_keys(&self, token: &Token<'_>) -> Signature {
        let document = self.document.as_ref();
        document.map_or(Signature::Unknown, |document| document.keys.verify(token))
    }

    /// How old keys are that were fetched then. `None`: too old to be used, or of a time that is yet to come, since the
    /// clock was set back; nobody knows how old those are.
    fn age(&self, fetched_at: Duration) -> Option<Duration> {
        let now = clock::wall();
        let age = now.saturating_sub(fetched_at);
        let is_usable = fetched_at <= now.saturating_add(CLOCK_TOLERANCE)
            && age < self.config.refresh.saturating_add(self.config.stale);
        is_usable.then_some(age)
    }

    /// There are no keys: those of another instance, else the provider's.
    fn begin(&mut self) -> Result<()> {
        if self.document.take().is_some() {
            self.version += 1;
        }
        let renewal = self.renew(PATIENCE)?;
        let Config {
            upstream, cooldown, ..
        } = &self.config;
        let reason = match renewal {
            Renewal::Newer => return Ok(()),
            // Or its client has left, and the call with it.
            Renewal::Asking => bail!("upstream {upstream} is still being asked for its keys"),
            Renewal::Asked(gate) => match gate.strip_prefix(FAILED) {
                Some(reason) => String::from_utf8_lossy(reason).into_owned(),
                None => format!("the zone does not have the keys of upstream {upstream}"),
            },
        };
        bail!("{reason} (not asked again within {} s)", cooldown.as_secs())
    }

    /// Looks for keys that are newer than those that are here: another instance's, else the provider's, unless it was asked
    /// lately. Waits so long for another instance that is asking.
    fn renew(&mut self, patience: Duration) -> Result<Renewal> {
        let mut waited = Duration::ZERO;
        loop {
            // Looked at first: once it says that keys were fetched, they are in the zone.
            let gate = self.zone.get(&self.gate_key)?;
            if self.take_over()? {
                return Ok(Renewal::Newer);
            }
            let is_open = match gate {
                Some(gate) if gate != FETCHING => return Ok(Renewal::Asked(gate)),
                Some(_) => false,
                None => {
                    self.zone
                        .put_if_absent(&self.gate_key, FETCHING, Some(self.longest_fetch()))?
                }
            };
            if is_open {
                return self.fetch().map(|()| Renewal::Newer);
            }
            if waited >= patience {
                return Ok(Renewal::Asking);
            }
            delay(STEP)?;
            waited += STEP;
        }
    }

    /// How long the gate is shut by who does not come back from the provider: as long as by who does, or clients that leave
    /// early could have it asked more often.
    fn longest_fetch(&self) -> Duration {
        let Config {
            cooldown, timeout, ..
        } = self.config;
        cooldown.max(timeout.saturating_add(PATIENCE))
    }

    /// Takes the zone's keys where they are others than those that are here, and not too old.
    fn take_over(&mut self) -> Result<bool> {
        let Some(value) = self.zone.get(&self.document_key)? else {
            return Ok(false);
        };
        let Some((millis, json)) = value.split_first_chunk() else {
            return Ok(false);
        };
        let fetched_at = Duration::from_millis(u64::from_le_bytes(*millis));
        let is_newer = self.document.as_ref().is_none_or(|document| {
            match document.is_shared {
                // The keys have been replaced in the zone; after the clock was set back, by a smaller time.
                true => fetched_at != document.fetched_at,
                false => fetched_at > document.fetched_at,
            }
        });
        if !is_newer || self.age(fetched_at).is_none() {
            return Ok(false);
        }
        // A document that cannot be read is another release's, and as good as nothing.
        let Ok(keys) = read_set(json) else {
            return Ok(false);
        };
        self.adopt(Document {
            fetched_at,
            keys,
            is_shared: true,
        });
        Ok(true)
    }

    /// Asks the provider, and tells all workers.
    fn fetch(&mut self) -> Result<()> {
        let fetched = self.ask();
        let gate = match &fetched {
            Ok(_) => FETCHED.to_vec(),
            Err(error) => [FAILED, error.to_string().as_bytes()].concat(),
        };
        let result = fetched.map(|(json, keys)| {
            let millis = u64::try_from(clock::wall().as_millis()).unwrap_or(u64::MAX);
            let value = [&millis.to_le_bytes()[..], &json].concat();
            let ttl = self.config.refresh.saturating_add(self.config.stale);
            // Else this instance alone knows them.
            let is_shared = self.note(|jwks| jwks.zone.put(&jwks.document_key, value, Some(ttl)));
            self.adopt(Document {
                fetched_at: Duration::from_millis(millis),
                keys,
                is_shared,
            });
        });
        self.note(|jwks| {
            jwks.zone
                .put(&jwks.gate_key, gate, Some(jwks.config.cooldown))
        });
        result
    }

    /// Whether the zone has taken it.
    fn note(&self, put: impl FnOnce(&Self) -> Result<()>) -> bool {
        let result = put(self);
        if let Err(error) = &result {
            log::warn!("{error}: other instances have to fetch the keys, too, one in a cooldown");
        }
        result.is_ok()
    }

    fn ask(&self) -> Result<(Vec<u8>, Keys)> {
        let Config {
            upstream,
            path,
            host,
            timeout,
            ..
        } = &self.config;
        let mut request = http::Request::get(path)
            .header("accept", "application/json")
            .timeout(*timeout);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let answer = http::send(upstream, request)?;
        if answer.status() != 200 {
            bail!(
                "upstream {upstream} answered {} for its keys: expected 200",
                answer.status()
            );
        }
        let json = answer.into_body();
        let keys = read_set(&json)
            .map_err(|error| error.context(format_args!("keys of upstream {upstream}")))?;
        Ok((json, keys))
    }

    fn adopt(&mut self, document: Document) {
        self.document = Some(document);
        self.version += 1;
    }
}

/// RFC 7517 §5: keys that are not understood are passed over. So are secrets, which nobody publishes who means well.
fn read_set(json: &[u8]) -> Result<Keys> {
    let set: Value = serde_json::from_slice(json)?;
    let Some(keys) = set.get("keys").and_then(Value::as_array) else {
        bail!("they have no list `keys`");
    };
    let keys: Vec<Key> = keys
        .iter()
        .take(KEYS_LIMIT)
        .filter_map(|jwk| Key::from_jwk(jwk).ok())
        .filter(|key| key.algorithm() != Algorithm::Hs256)
        .collect();
    if keys.is_empty() {
        bail!("none of them is for RS256 or ES256");
    }
    Ok(Keys(keys))
}

const fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

const fn one_day() -> Duration {
    Duration::from_secs(24 * 60 * 60)
}

const fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

const fn five_seconds() -> Duration {
    Duration::from_secs(5)
}
