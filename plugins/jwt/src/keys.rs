//! A set of keys, and the one that a token is signed with.

use crate::key::Key;
use crate::token::Token;

/// Keys from the config, or of a JWKS.
#[derive(Default)]
pub(crate) struct Keys(pub(crate) Vec<Key>);

/// How a token's signature stands to a set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signature {
    Good,
    /// There is the very key that the token names, and the signature is not this key's, or not of its algorithm.
    Bad,
    /// No key that is there has made it.
    Unknown,
}

impl Keys {
    /// Tries the keys that the token may mean: of its algorithm; and when it names keys, of whatever algorithm, one of these,
    /// else those without a name.
    pub(crate) fn verify(&self, token: &Token<'_>) -> Signature {
        let is_named = |key: &Key| key.id.is_some() && key.id == token.key_id;
        let names_one = self.0.iter().any(is_named);
        let is_possible = |key: &&Key| match names_one {
            true => is_named(key),
            false => key.id.is_none() || token.key_id.is_none(),
        };
        let is_signed = self
            .0
            .iter()
            .filter(|key| key.algorithm() == token.algorithm)
            .filter(is_possible)
            .take(TRIES_LIMIT)
            .any(|key| key.verifies(token.signing_input, &token.signature));
        match (is_signed, names_one) {
            (true, _) => Signature::Good,
            (false, true) => Signature::Bad,
            (false, false) => Signature::Unknown,
        }
    }
}

/// Keys that are tried for one token: a set without key ids must not multiply what a forged one costs.
const TRIES_LIMIT: usize = 4;
