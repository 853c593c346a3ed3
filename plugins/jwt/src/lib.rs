//! Lets requests pass that carry a valid JSON Web Token (RFC 7519), signed with HS256, RS256 or ES256 (RFC 7515, RFC
//! 7518); keys from the config, or published by an identity provider (RFC 7517).
//!
//! README.md has the config.

mod claims;
mod jwks;
mod key;
mod keys;
mod refusal;
mod source;
mod token;
mod verified;

use std::collections::BTreeMap;

use castling_sdk::prelude::*;
use castling_sdk::units;
use serde_json::Value;

use claims::Rules;
use jwks::Jwks;
use key::{Algorithm, Key};
use keys::{Keys, Signature};
use refusal::{Challenge, Refusal, invalid};
use source::Source;
use token::{Claims, Token};
use verified::Verified;

/// The plugin's config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Keys that are known. Default none.
    #[serde(default)]
    keys: Vec<KeyConfig>,
    /// Keys that are published. Default none; keys of one kind there must be.
    #[serde(default)]
    jwks: Option<jwks::Config>,
    /// Where the token is. Default `authorization`.
    #[serde(default = "authorization")]
    header: HeaderName,
    /// Before the token in the header; `""`: nothing. Default `Bearer`.
    #[serde(default = "bearer")]
    scheme: String,
    /// The cookie that it may be in. Default none.
    #[serde(default)]
    cookie: Option<String>,
    /// The parameter of the query that it may be in. Default none.
    #[serde(default)]
    query: Option<String>,
    /// Whether a request without a token passes. Default false.
    #[serde(default)]
    optional: bool,
    /// `iss` must be one of these. Default: any.
    #[serde(default)]
    issuers: Vec<String>,
    /// `aud` must be, or have, one of these. Default: any.
    #[serde(default)]
    audiences: Vec<String>,
    /// Claims that must be there, and not null. Default `exp`.
    #[serde(default = "expiry")]
    required: Vec<String>,
    /// The token must allow all of these. Default none.
    #[serde(default)]
    scopes: Vec<String>,
    /// How far the issuer's clock may be from ours. Default 60 s.
    #[serde(default = "one_minute", deserialize_with = "units::duration")]
    leeway: Duration,
    /// Claim = variable. Default none.
    #[serde(default)]
    claims: BTreeMap<String, String>,
    /// Claim = header that upstreams see. What a client sends under these names is gone. Default none.
    #[serde(default)]
    headers: BTreeMap<String, HeaderName>,
    /// Whether upstreams do not get to see the token. Default false.
    #[serde(default)]
    remove: bool,
    /// For `WWW-Authenticate`. Default none.
    #[serde(default)]
    realm: Option<String>,
}

/// A key: one of `secret`, `pem` and `jwk`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyConfig {
    /// The key that a token's `kid` names. Default: any token may be signed with this one.
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    secret: Option<String>,
    #[serde(default)]
    pem: Option<String>,
    #[serde(default)]
    jwk: Option<Value>,
}

/// The plugin.
pub struct Jwt {
    keys: Keys,
    jwks: Option<Jwks>,
    verified: Verified,
    source: Source,
    rules: Rules,
    challenge: Challenge,
    claims: BTreeMap<String, String>,
    headers: BTreeMap<String, HeaderName>,
    optional: bool,
    remove: bool,
}

/// Why there is no answer to whether a request passes.
enum Failure {
    Refused(Refusal),
    Broken(Error),
}

#[plugin]
impl Jwt {
    fn configure(config: Config) -> Result<Self> {
        check(&config)?;
        let mut keys = Keys::default();
        for (i, key) in config.keys.into_iter().enumerate() {
            keys.0.push(
                read_key(key).map_err(|error| error.context(format_args!("config.keys[{i}]")))?,
            );
        }
        let challenge = Challenge::new(config.realm.as_deref(), &config.scopes)?;
        Ok(Self {
            keys,
            jwks: config.jwks.map(Jwks::new).transpose()?,
            verified: Verified::default(),
            source: Source {
                header: config.header,
                scheme: config.scheme,
                cookie: config.cookie,
                query: config.query,
            },
            rules: Rules {
                issuers: config.issuers,
                audiences: config.audiences,
                required: config.required,
                scopes: config.scopes,
                leeway: config.leeway,
            },
            challenge,
            claims: config.claims,
            headers: config.headers,
            optional: config.optional,
            remove: config.remove,
        })
    }

    fn access(&mut self, request: &mut Request) -> Result<Verdict> {
        let found = self.source.find(request);
        // Before anything can fail: upstreams trust these.
        for header in self.headers.values() {
            request.remove_header(header);
        }
        match self.judge(found) {
            Ok(claims) => self.tell(request, &claims),
            Err(Failure::Refused(Refusal::Missing)) if self.optional => {}
            Err(Failure::Refused(refusal)) => return Ok(self.challenge.response(refusal).into()),
            Err(Failure::Broken(error)) => return Err(error),
        }
        if self.remove {
            self.source.remove(request);
        }
        Ok(Verdict::Continue)
    }
}

impl Jwt {
    /// The claims of a token that is valid here and now.
    fn judge(&mut self, found: Result<Option<Vec<u8>>, Refusal>) -> Result<Claims, Failure> {
        let text = found?.ok_or(Refusal::Missing)?;
        let token = Token::read(&text)?;
        // The cheap questions first.
        self.rules.check(&token.claims, clock::wall())?;
        match self.signature(&token, &text)? {
            Signature::Good => {}
            Signature::Bad => return Err(invalid("the token's signature is wrong").into()),
            Signature::Unknown => return Err(invalid("no key is known for the token").into()),
        }
        self.rules.check_scope(&token.claims)?;
        Ok(token.claims)
    }

    fn signature(&mut self, token: &Token<'_>, text: &[u8]) -> Result<Signature> {
        // Verifying is as quick as looking it up; and nobody publishes secrets.
        if token.algorithm == Algorithm::Hs256 {
            return Ok(self.keys.verify(token));
        }
        let refreshed = match &mut self.jwks {
            Some(jwks) => {
                let refreshed = jwks.refresh();
                self.verified.with_keys(jwks.version());
                refreshed
            }
            None => Ok(()),
        };
        let sum = Verified::sum(text);
        if self.verified.has(&sum) {
            return Ok(Signature::Good);
        }
        let mut signature = self.keys.verify(token);
        if let Some(jwks) = &mut self.jwks
            && signature == Signature::Unknown
        {
            refreshed?;
            signature = jwks.verify(token);
            self.verified.with_keys(jwks.version());
        }
        if signature == Signature::Good {
            self.verified.insert(sum);
        }
        Ok(signature)
    }

    fn tell(&self, request: &mut Request, claims: &Claims) {
        for (claim, variable) in &self.claims {
            if let Some(text) = claims::text(claims, claim) {
                request.set_var(variable, text);
            }
        }
        for (claim, header) in &self.headers {
            if let Some(text) = claims::text(claims, claim) {
                request.set_header(header, text);
            }
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

/// Checks what a type cannot.
fn check(config: &Config) -> Result<()> {
    if config.keys.is_empty() && config.jwks.is_none() {
        bail!("config: neither `keys` nor `jwks`; nothing could pass");
    }
    if !config.scheme.is_empty() && HeaderName::new(config.scheme.as_str()).is_err() {
        bail!("config.scheme: expected one word, such as \"Bearer\", or \"\"");
    }
    for (key, name) in [("cookie", &config.cookie), ("query", &config.query)] {
        if name
            .as_ref()
            .is_some_and(|name| HeaderName::new(name.as_str()).is_err())
        {
            bail!("config.{key}: expected a name of letters, digits, `-`, `_` and `.`");
        }
    }
    for (claim, variable) in &config.claims {
        let is_char = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        if !(1..=64).contains(&variable.len()) || !variable.bytes().all(is_char) {
            bail!("config.claims.{claim}: `{variable}`: expected a-z, 0-9 and _");
        }
    }
    for (claim, header) in &config.headers {
        if *header == config.header {
            bail!("config.headers.{claim}: `{header}` is where the token is");
        }
        if FRAMING.contains(&header.as_str()) {
            bail!("config.headers.{claim}: `{header}` is the gateway's own");
        }
    }
    Ok(())
}

fn read_key(config: KeyConfig) -> Result<Key> {
    let KeyConfig {
        id,
        secret,
        pem,
        jwk,
    } = config;
    match (secret, pem, jwk) {
        (Some(secret), None, None) => Key::from_secret(id, secret.as_bytes()),
        (None, Some(pem), None) => Key::from_pem(id, &pem),
        (None, None, Some(jwk)) => {
            let mut key = Key::from_jwk(&jwk)?;
            key.id = id.or(key.id);
            Ok(key)
        }
        _ => bail!("expected one of `secret`, `pem` and `jwk`"),
    }
}

/// Fields that frame a message or say where it goes (RFC 9110 §7.6.1, RFC 9112 §6).
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn authorization() -> HeaderName {
    HeaderName::new("authorization").expect("it is a header name")
}

fn bearer() -> String {
    String::from("Bearer")
}

fn expiry() -> Vec<String> {
    vec![String::from("exp")]
}

const fn one_minute() -> Duration {
    Duration::from_secs(60)
}

#[cfg(test)]
mod tests;
