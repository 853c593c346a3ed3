//! Lets those pass who say a user's name and password in `Authorization: Basic` (RFC 7617); others get 401.
//!
//! README.md has the config.

mod users;

use castling_sdk::crypto::{self, Digest};
use castling_sdk::prelude::*;
use castling_sdk::units;
use castling_sdk::zones::{Counter, Kv};
use data_encoding::BASE64;

use users::Users;

/// The plugin's config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Hashes of passwords by name. Default none.
    #[serde(default)]
    users: std::collections::BTreeMap<String, String>,
    /// A granted file of lines `name:hash`, as `htpasswd -B` writes it. Default none.
    #[serde(default)]
    file: Option<String>,
    /// Default `restricted`.
    #[serde(default = "restricted")]
    realm: String,
    /// Where peers find the name; what a client sends there is removed. Default none.
    #[serde(default)]
    header: Option<HeaderName>,
    /// Whether peers do not get to see the credentials. Default true.
    #[serde(default = "yes")]
    remove: bool,
    /// A variable: whoever has it set by a plugin before this one passes without a password. Default none.
    #[serde(default)]
    unless: Option<String>,
    /// Default none: each request is verified, which takes tens of milliseconds of a core.
    #[serde(default)]
    cache: Option<Cache>,
    /// Default none.
    #[serde(default)]
    attempts: Option<Attempts>,
}

/// Where it is kept that a password was right.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cache {
    zone: Kv,
    /// Key of the hash under which it is kept: who has the zone and not this cannot try passwords on it. 16 bytes and more.
    secret: String,
    /// Default 5 minutes.
    #[serde(default = "minutes", deserialize_with = "units::duration_above_zero")]
    ttl: Duration,
}

/// Bound of wrong passwords.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attempts {
    zone: Counter,
    /// Number of a client's, and of those at a name. Default 10.
    #[serde(default = "ten")]
    a_minute: u64,
}

/// The plugin.
pub struct BasicAuth {
    config: Config,
    users: Users,
    challenge: String,
}

const MINUTE: Duration = Duration::from_secs(60);

#[plugin]
impl BasicAuth {
    fn configure(config: Config) -> Result<Self> {
        let users = Users::new(&config.users, config.file.as_deref())?;
        if config.realm.contains(['"', '\\']) || HeaderValue::new(&config.realm).is_err() {
            bail!(
                "config.realm: expected a text without quotes, backslashes and control characters"
            );
        }
        if config
            .cache
            .as_ref()
            .is_some_and(|cache| cache.secret.len() < 16)
        {
            bail!("config.cache.secret: expected 16 bytes or more");
        }
        let challenge = format!("Basic realm=\"{}\", charset=\"UTF-8\"", config.realm);
        Ok(Self {
            config,
            users,
            challenge,
        })
    }

    fn access(&self, request: &mut Request) -> Result<Verdict> {
        let config = &self.config;
        if let Some(header) = &config.header {
            request.remove_header(header);
        }
        if config
            .unless
            .as_ref()
            .is_some_and(|name| request.var(name).is_some())
        {
            return Ok(Verdict::Continue);
        }
        let Some((user, password)) = credentials(request) else {
            return Ok(self.refuse(401));
        };
        if !self.is_right(request, &user, &password)? {
            return Ok(match self.is_spent(request, &user)? {
                true => self.refuse(429),
                false => self.refuse(401),
            });
        }
        if config.remove {
            request.remove_header("authorization");
        }
        if let Some(header) = &config.header {
            request.set_header(header, &user);
        }
        request.set_var("user", &user);
        Ok(Verdict::Continue)
    }
}

impl BasicAuth {
    fn refuse(&self, status: u16) -> Verdict {
        let response = Response::status(status);
        match status {
            401 => response.header("www-authenticate", &self.challenge).into(),
            _ => response.header("retry-after", "60").into(),
        }
    }

    fn is_right(&self, request: &Request, user: &str, password: &str) -> Result<bool> {
        let hash = self.users.hash(user);
        let cache = self.config.cache.as_ref().zip(hash.as_ref());
        let cache = cache.map(|(cache, hash)| (cache, kept_as(cache, hash, password)));
        if let Some((cache, key)) = &cache
            && cache.zone.get(key)?.is_some()
        {
            return Ok(true);
        }
        // Verifying is what costs: whoever has tried too often is not.
        if self.is_barred(request, user)? {
            return Ok(false);
        }
        // A name that nobody has takes as long as one that somebody has.
        let verified = hash.clone().or_else(|| self.users.any());
        let Some(verified) = verified else {
            return Ok(false);
        };
        if !crypto::verify_password(&verified, password)? || hash.is_none() {
            return Ok(false);
        }
        if let Some((cache, key)) = cache
            && let Err(error) = cache.zone.put(key, "", Some(cache.ttl))
        {
            log::warn!("not kept: {error}");
        }
        Ok(true)
    }

    /// Counts a wrong password; true: there were too many.
    fn is_spent(&self, request: &Request, user: &str) -> Result<bool> {
        let Some(attempts) = &self.config.attempts else {
            return Ok(false);
        };
        let mut spent = false;
        for whose in whose(request, user) {
            spent |= attempts.zone.add(whose, 1, MINUTE)? > attempts.a_minute;
        }
        Ok(spent)
    }

    fn is_barred(&self, request: &Request, user: &str) -> Result<bool> {
        let Some(attempts) = &self.config.attempts else {
            return Ok(false);
        };
        for whose in whose(request, user) {
            if attempts.zone.get(whose)? >= attempts.a_minute {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Keys of wrong passwords: of the client's, and of the name's, which many clients may try.
fn whose(request: &Request, user: &str) -> [String; 2] {
    [request.client_address(), format!("user {user}")]
}

/// Key of a password that was right. Another hash of the user's is another key.
fn kept_as(cache: &Cache, hash: &str, password: &str) -> Vec<u8> {
    let text = format!("{}:{hash}:{password}", hash.len());
    crypto::hmac(Digest::Sha256, &cache.secret, text)
}

fn credentials(request: &Request) -> Option<(String, String)> {
    let header = request.only_header("authorization")?;
    let (scheme, encoded) = header.as_str()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64.decode(encoded.trim().as_bytes()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    let is_name =
        !user.is_empty() && user.len() <= LONGEST_NAME && !user.contains(char::is_control);
    is_name.then(|| (user.to_owned(), password.to_owned()))
}

/// Bytes of a user's name.
const LONGEST_NAME: usize = 256;

fn restricted() -> String {
    "restricted".to_owned()
}

fn minutes() -> Duration {
    Duration::from_secs(300)
}

fn ten() -> u64 {
    10
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests;
