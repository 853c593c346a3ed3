//! Rules of claims (RFC 7519 §4.1), and what claims tell upstreams.

use serde_json::Value;

use castling_sdk::prelude::*;

use crate::refusal::{Refusal, invalid};
use crate::token::Claims;

/// Rules that claims must keep.
pub(crate) struct Rules {
    /// Accepted issuers; any where it is empty.
    pub(crate) issuers: Vec<String>,
    /// Accepted audiences; any where it is empty.
    pub(crate) audiences: Vec<String>,
    /// Claims that must be there, and not null.
    pub(crate) required: Vec<String>,
    /// All of these.
    pub(crate) scopes: Vec<String>,
    /// How far the clocks of issuer and gateway may be apart.
    pub(crate) leeway: Duration,
}

impl Rules {
    /// Whether the token is for us, and now. `now` since 1970-01-01 UTC.
    pub(crate) fn check(&self, claims: &Claims, now: Duration) -> Result<(), Refusal> {
        // Null says nothing.
        let is_there = |name: &String| claims.get(name).is_some_and(|value| !value.is_null());
        if !self.required.iter().all(is_there) {
            return Err(invalid("the token lacks a required claim"));
        }
        let (now, leeway) = (now.as_secs_f64(), self.leeway.as_secs_f64());
        // On or after `exp` it is not accepted; before `nbf` neither.
        if time(claims, "exp")?.is_some_and(|exp| now >= exp + leeway) {
            return Err(invalid("the token has expired"));
        }
        for name in ["nbf", "iat"] {
            if time(claims, name)?.is_some_and(|begin| now < begin - leeway) {
                return Err(invalid("the token is not valid yet"));
            }
        }
        let is_one_of = |given: &Value, accepted: &[String]| {
            given
                .as_str()
                .is_some_and(|given| accepted.iter().any(|one| one == given))
        };
        if !self.issuers.is_empty() {
            let issuer = claims.get("iss");
            if !issuer.is_some_and(|issuer| is_one_of(issuer, &self.issuers)) {
                return Err(invalid("the token's issuer is not accepted"));
            }
        }
        if !self.audiences.is_empty() {
            // A token has one audience, or several.
            let accepted = match claims.get("aud") {
                Some(Value::Array(all)) => all.iter().any(|one| is_one_of(one, &self.audiences)),
                Some(one) => is_one_of(one, &self.audiences),
                None => false,
            };
            if !accepted {
                return Err(invalid("the token is for another audience"));
            }
        }
        Ok(())
    }

    /// Whether it allows what is asked for: `scope` (RFC 8693 §4.2: words), else `scp` (words or a list).
    pub(crate) fn check_scope(&self, claims: &Claims) -> Result<(), Refusal> {
        let given = claims.get("scope").or_else(|| claims.get("scp"));
        let has = |scope: &String| match given {
            Some(Value::String(words)) => words.split(' ').any(|word| word == scope),
            Some(Value::Array(all)) => all.iter().any(|one| one == scope.as_str()),
            _ => false,
        };
        match self.scopes.iter().all(has) {
            true => Ok(()),
            false => Err(Refusal::Scope),
        }
    }
}

/// A NumericDate: seconds since 1970-01-01 UTC, fractions allowed.
fn time(claims: &Claims, name: &str) -> Result<Option<f64>, Refusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(seconds) => Ok(Some(seconds)),
            None => Err(invalid("the token has a time that is none")),
        },
    }
}

/// A claim as text: by its name, or, where that begins with `/`, by a JSON pointer (RFC 6901) into it. A list is written with
/// commas, an object as JSON. `None` where it is not there, or null. A control character becomes a space, so that
/// it can stand in a header.
pub(crate) fn text(claims: &Claims, name: &str) -> Option<String> {
    let value = match name.strip_prefix('/') {
        None => claims.get(name)?,
        Some(pointer) => {
            let (first, rest) = pointer
                .split_once('/')
                .map_or((pointer, None), |(first, rest)| (first, Some(rest)));
            let value = claims.get(&first.replace("~1", "/").replace("~0", "~"))?;
            match rest {
                Some(rest) => value.pointer(&format!("/{rest}"))?,
                None => value,
            }
        }
    };
    let text = match value {
        Value::Null => return None,
        Value::Array(all) => all.iter().map(plain).collect::<Vec<_>>().join(","),
        one => plain(one),
    };
    Some(text.replace(|c: char| c.is_ascii_control(), " "))
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
