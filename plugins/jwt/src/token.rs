//! Text of a token, before anyone believes it: JWS compact serialisation (RFC 7515 §3.1) of claims (RFC 7519).

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value};

use castling_sdk::prelude::*;

use crate::key::Algorithm;
use crate::refusal::{Refusal, invalid};

/// The claims of a token, by name.
pub(crate) type Claims = Map<String, Value>;

/// A token that is well formed. Nothing of it is proven.
pub(crate) struct Token<'a> {
    pub(crate) algorithm: Algorithm,
    /// Id of the key that it is said to be signed with.
    pub(crate) key_id: Option<String>,
    pub(crate) claims: Claims,
    pub(crate) signature: Vec<u8>,
    /// Bytes that are signed.
    pub(crate) signing_input: &'a [u8],
}

/// RFC 7515 §4. What says where a key is to be had (`jku`, `jwk`, `x5u`, `x5c`) is not read: a token does not choose who is
/// trusted.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Critical,
}

/// Whether a header names extensions that must be understood, in whatever way.
#[derive(Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Value")]
enum Critical {
    #[default]
    Absent,
    /// Null is not a list, but is not nothing either.
    There,
}

impl From<Value> for Critical {
    fn from(_: Value) -> Self {
        Self::There
    }
}

/// Longer ones are refused unread.
pub(crate) const TOKEN_LIMIT_BYTES: usize = 16 * 1024;

impl<'a> Token<'a> {
    pub(crate) fn read(text: &'a [u8]) -> Result<Self, Refusal> {
        if text.len() > TOKEN_LIMIT_BYTES {
            return Err(invalid("the token is too long"));
        }
        let dot = |text: &[u8]| text.iter().position(|&byte| byte == b'.');
        let first = dot(text).ok_or(MALFORMED)?;
        let second = first + 1 + dot(&text[first + 1..]).ok_or(MALFORMED)?;
        let (signing_input, signature) = (&text[..second], &text[second + 1..]);

        // RFC 7515 §2: without padding, line breaks or anything else. A further dot is none of the alphabet.
        let decode = |part: &[u8]| BASE64URL_NOPAD.decode(part).map_err(|_| MALFORMED);
        let header: Header =
            serde_json::from_slice(&decode(&text[..first])?).map_err(|_| MALFORMED)?;
        // RFC 7515 §4.1.11: an extension that is not understood must be, so it is refused. None is.
        if header.crit == Critical::There {
            return Err(invalid("the token has an extension that is not understood"));
        }
        Ok(Self {
            algorithm: Algorithm::from_name(&header.alg)
                .ok_or(invalid("the token's algorithm is not accepted"))?,
            key_id: header.kid,
            claims: serde_json::from_slice(&decode(&text[first + 1..second])?)
                .map_err(|_| MALFORMED)?,
            signature: decode(signature)?,
            signing_input,
        })
    }
}

const MALFORMED: Refusal = invalid("the token is malformed");
