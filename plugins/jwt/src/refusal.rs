//! Why a request does not pass, as RFC 6750 §3 says it to clients.

use castling_sdk::prelude::*;

/// A request that does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no token.
    Missing,
    /// The token is not to be believed, for this reason.
    Invalid(&'static str),
    /// The token is to be believed, but does not allow this.
    Scope,
}

pub(crate) const fn invalid(reason: &'static str) -> Refusal {
    Refusal::Invalid(reason)
}

/// `WWW-Authenticate` up to what depends on the refusal.
pub(crate) struct Challenge {
    /// `Bearer realm="..."`, or `Bearer` alone.
    start: String,
    /// `scope="..."`; none where none is asked for.
    scope: Option<String>,
}

impl Challenge {
    pub(crate) fn new(realm: Option<&str>, scopes: &[String]) -> Result<Self> {
        let start = match realm {
            Some(realm) if HeaderValue::new(realm).is_err() => {
                bail!("config.realm: a control character is in it")
            }
            // RFC 9110 §5.6.4.
            Some(realm) => {
                let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
                format!("Bearer realm=\"{quoted}\"")
            }
            None => String::from("Bearer"),
        };
        for (i, scope) in scopes.iter().enumerate() {
            // RFC 6749 §3.3.
            let is_token = |byte| matches!(byte, b'!' | b'#'..=b'[' | b']'..=b'~');
            if scope.is_empty() || !scope.bytes().all(is_token) {
                bail!(
                    "config.scopes[{i}]: `{}` is not a scope",
                    scope.escape_debug()
                );
            }
        }
        Ok(Self {
            start,
            scope: (!scopes.is_empty()).then(|| format!("scope=\"{}\"", scopes.join(" "))),
        })
    }

    pub(crate) fn response(&self, refusal: Refusal) -> Response {
        let (status, error) = match refusal {
            // RFC 6750 §3.1: who has not tried is told no error.
            Refusal::Missing => (401, None),
            Refusal::Invalid(reason) => (401, Some(("invalid_token", reason))),
            Refusal::Scope => (
                403,
                Some((
                    "insufficient_scope",
                    "the token's scope does not allow this",
                )),
            ),
        };
        let mut parts = Vec::new();
        if let Some((code, description)) = error {
            parts.push(format!(
                "error=\"{code}\", error_description=\"{description}\""
            ));
        }
        if let Some(scope) = self.scope.as_ref().filter(|_| refusal == Refusal::Scope) {
            parts.push(scope.clone());
        }
        let separator = match (parts.is_empty(), self.start.contains(' ')) {
            (true, _) => "",
            (false, true) => ", ",
            (false, false) => " ",
        };
        let challenge = format!("{}{separator}{}", self.start, parts.join(", "));
        let text = error.map_or("token required", |(_, description)| description);
        Response::status(status)
            .header("content-type", "text/plain")
            .header("www-authenticate", challenge)
            .body(format!("{text}\n"))
    }
}
