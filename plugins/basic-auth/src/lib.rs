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
    /// A variable: whoever has it set to `1` by a plugin before this one passes without a password. Default none.
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
        if config.attempts.is_some() && config.cache.is_none() {
            bail!(
                "config.attempts: expected `cache` beside it, without which each request is an attempt"
            );
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
        let credentials = credentials(request);
        if config.remove {
            request.remove_header("authorization");
        }
        if let Some(name) = &config.unless
            && request.var(name).is_some_and(|value| value == "1")
        {
            return Ok(Verdict::Continue);
        }
        let Some((user, password)) = credentials else {
            return Ok(self.refuse(401));
        };
        match self.check(request, &user, &password)? {
            Answer::Right => {}
            Answer::Wrong => return Ok(self.refuse(401)),
            Answer::TooMany => return Ok(self.refuse(429)),
        }
        if let Some(header) = &config.header {
            request.set_header(header, &user);
        }
        request.set_var("user", &user);
        Ok(Verdict::Continue)
    }
}

/// What is thought of a password.
enum Answer {
    Right,
    Wrong,
    TooMany,
}

impl BasicAuth {
    fn refuse(&self, status: u16) -> Verdict {
        let response = Response::status(status);
        match status {
            401 => response.header("www-authenticate", &self.challenge).into(),
            _ => response.header("retry-after", "60").into(),
        }
    }

    fn check(&self, request: &Request, user: &str, password: &str) -> Result<Answer> {
        let client = request.client_address();
        // Before a look at what is kept, which would tell a right guess from a wrong one at no cost.
        if self.is_barred(&client)? {
            return Ok(Answer::TooMany);
        }
        let hash = self.users.hash(user);
        let cache = self.config.cache.as_ref().zip(hash.as_ref());
        let cache = cache.map(|(cache, hash)| (cache, kept_as(cache, hash, password)));
        if let Some((cache, key)) = &cache
            && cache.zone.get(key)?.is_some()
        {
            return Ok(Answer::Right);
        }
        if !self.may_try(&client, user)? {
            return Ok(Answer::TooMany);
        }
        if password.len() > LONGEST_PASSWORD {
            return Ok(Answer::Wrong);
        }
        // A name that nobody has takes as long as one that somebody has.
        let Some(verified) = hash.clone().or_else(|| self.users.any()) else {
            return Ok(Answer::Wrong);
        };
        if !crypto::verify_password(&verified, password)? || hash.is_none() {
            return Ok(Answer::Wrong);
        }
        if let Some((cache, key)) = cache
            && let Err(error) = cache.zone.put(key, "", Some(cache.ttl))
        {
            log::warn!("not kept: {error}");
        }
        Ok(Answer::Right)
    }

    fn is_barred(&self, client: &str) -> Result<bool> {
        match &self.config.attempts {
            Some(attempts) => Ok(attempts.zone.get(client)? > attempts.a_minute),
            None => Ok(false),
        }
    }

    /// Counts a password that is not known to be right, before it is verified, since many are verified at a time. Whoever has tried too
    /// often adds nothing, so that made-up names do not push others out of the zone.
    fn may_try(&self, client: &str, user: &str) -> Result<bool> {
        let Some(attempts) = &self.config.attempts else {
            return Ok(true);
        };
        let name = format!("user {user}");
        Ok(attempts.zone.add(client, 1, MINUTE)? <= attempts.a_minute
            && attempts.zone.get(&name)? < attempts.a_minute
            && attempts.zone.add(&name, 1, MINUTE)? <= attempts.a_minute)
    }
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

/// Bytes of a password, which no hash is made of more.
const LONGEST_PASSWORD: usize = 1024;

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
