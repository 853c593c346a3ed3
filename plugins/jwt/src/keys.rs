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
    /// There is the very key that the token names, and the signature is not this key's.
    Bad,
    /// No key that is there has made it.
    Unknown,
}

impl Keys {
    /// Tries the keys that the token may mean: of its algorithm; and when it names a key, with that name or without one.
    pub(crate) fn verify(&self, token: &Token<'_>) -> Signature {
        let is_named = |key: &&Key| key.id.is_some() && key.id == token.key_id;
        let of_algorithm = || {
            self.0
                .iter()
                .filter(|key| key.algorithm() == token.algorithm)
        };
        let verifies = |key: &Key| key.verifies(token.signing_input, &token.signature);

        let mut named = of_algorithm().filter(is_named).peekable();
        if named.peek().is_some() {
            return match named.take(TRIES_LIMIT).any(verifies) {
                true => Signature::Good,
                false => Signature::Bad,
            };
        }
        let possible = |key: &&Key| key.id.is_none() || token.key_id.is_none();
        match of_algorithm()
            .filter(possible)
            .take(TRIES_LIMIT)
            .any(verifies)
        {
            true => Signature::Good,
            false => Signature::Unknown,
        }
    }
}

/// So many keys are tried for one token: a set without key ids must not multiply what a forged one costs.
const TRIES_LIMIT: usize = 4;
