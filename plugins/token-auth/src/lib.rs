//! Lets requests pass that carry a known token in a header; others get 401.
//!
//! README.md has the config.

use std::fmt;

use castling_sdk::prelude::*;
use castling_sdk::serde::de::{self, Deserializer, MapAccess, Visitor};
use subtle::ConstantTimeEq;

/// The plugin's config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the token is.
    header: HeaderName,
    /// At least one.
    tokens: Vec<Token>,
    /// Before the token in the header, with a space between them: `Bearer`. Default none.
    #[serde(default)]
    scheme: Option<String>,
    /// For the `WWW-Authenticate` of a 401. Default none: no such header.
    #[serde(default)]
    realm: Option<String>,
    /// Whether upstreams do not get to see the header. Default false.
    #[serde(default)]
    remove: bool,
}

/// In the config: `"s3cret"` or `{ token = "s3cret", user = "alice" }`.
struct Token {
    token: String,
    user: Option<String>,
}

/// The plugin.
pub struct TokenAuth {
    header: HeaderName,
    tokens: Vec<Token>,
    /// In lower case.
    scheme: Option<String>,
    challenge: Option<String>,
    remove: bool,
}

#[plugin]
impl TokenAuth {
    fn configure(config: Config) -> Result<Self> {
        if config.tokens.is_empty() {
            bail!("config.tokens: none; nothing could pass");
        }
        let scheme = config.scheme.as_deref();
        if scheme.is_some_and(|scheme| HeaderName::new(scheme).is_err()) {
            bail!("config.scheme: expected one word, such as \"Bearer\"");
        }
        let challenge = match &config.realm {
            Some(realm) => Some(challenge(scheme.unwrap_or("Bearer"), realm)?),
            None => None,
        };
        Ok(Self {
            header: config.header,
            tokens: config.tokens,
            scheme: config.scheme.map(|scheme| scheme.to_ascii_lowercase()),
            challenge,
            remove: config.remove,
        })
    }

    fn access(&self, request: &mut Request) -> Verdict {
        // Two values are refused: an upstream might look at the other one.
        let Some(value) = request.only_header(&self.header) else {
            return self.refuse();
        };
        let Some(known) = self
            .presented(value.as_bytes())
            .and_then(|token| self.find(token))
        else {
            return self.refuse();
        };
        if let Some(user) = &known.user {
            request.set_var("user", user);
        }
        if self.remove {
            request.remove_header(&self.header);
        }
        Verdict::Continue
    }
}

impl TokenAuth {
    /// The token in the header's value; `None` when the scheme is another.
    fn presented<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        let Some(scheme) = &self.scheme else {
            return Some(value);
        };
        // RFC 9110 §11.1: the scheme's case does not matter.
        let (given, rest) = value.split_at_checked(scheme.len())?;
        let token = rest.strip_prefix(b" ")?;
        given
            .eq_ignore_ascii_case(scheme.as_bytes())
            .then(|| token.trim_ascii_start())
    }

    /// Compares with every token in full, so that the time says how many there are and how long, not how much of one
    /// was right.
    fn find(&self, presented: &[u8]) -> Option<&Token> {
        let mut found = None;
        for known in &self.tokens {
            if is_same(known.token.as_bytes(), presented) {
                found = Some(known);
            }
        }
        found
    }

    #[cold]
    fn refuse(&self) -> Verdict {
        let response = Response::status(401).header("content-type", "text/plain");
        let response = match &self.challenge {
            Some(challenge) => response.header("www-authenticate", challenge),
            None => response,
        };
        response.body("token required\n").into()
    }
}

/// In the same time whatever the bytes are: eight of them at once, and all of them.
fn is_same(known: &[u8], presented: &[u8]) -> bool {
    let (known_words, known_rest) = known.as_chunks();
    let (words, rest) = presented.as_chunks();
    let rests = known_rest.iter().zip(rest);
    let difference = rests.fold(0, |all, (a, b)| all | u64::from(a ^ b));
    let pairs = known_words.iter().zip(words);
    let same = pairs.fold(difference.ct_eq(&0), |same, (a, b)| {
        same & u64::from_le_bytes(*a).ct_eq(&u64::from_le_bytes(*b))
    });
    known.len() == presented.len() && bool::from(same)
}

/// RFC 9110 §11.6.1.
fn challenge(scheme: &str, realm: &str) -> Result<String> {
    if HeaderValue::new(realm).is_err() {
        bail!("config.realm: a control character is in it");
    }
    let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
    Ok(format!("{scheme} realm=\"{quoted}\""))
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TokenVisitor)
    }
}

struct TokenVisitor;

impl<'de> Visitor<'de> for TokenVisitor {
    type Value = Token;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token: \"TOKEN\" or { token = \"TOKEN\", user = \"NAME\" }")
    }

    fn visit_str<E: de::Error>(self, token: &str) -> Result<Token, E> {
        checked(token.to_owned(), None)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Token, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            token: String,
            user: Option<String>,
        }
        let fields = Fields::deserialize(de::value::MapAccessDeserializer::new(map))?;
        checked(fields.token, fields.user)
    }
}

fn checked<E: de::Error>(token: String, user: Option<String>) -> Result<Token, E> {
    if token.is_empty() || HeaderValue::new(&token).is_err() {
        return Err(E::custom(
            "a token is one or more characters, none of them a control character",
        ));
    }
    Ok(Token { token, user })
}

#[cfg(test)]
mod tests {
    use super::*;
    use castling_sdk::testing::{self, Exchange};

    fn plugin(json: &str) -> TokenAuth {
        TokenAuth::configure(testing::config(json).unwrap()).unwrap()
    }

    fn refusal(json: &str) -> String {
        match testing::config(json).and_then(TokenAuth::configure) {
            Ok(_) => panic!("accepted: {json}"),
            Err(error) => error.to_string(),
        }
    }

    fn status(verdict: Verdict) -> u16 {
        match verdict {
            Verdict::Answer(response) => response.status_code(),
            Verdict::Continue => 0,
            Verdict::Reroute | Verdict::Streamed(_) => panic!("not answered"),
        }
    }

    #[test]
    fn a_known_token_passes_and_names_its_user() {
        let plugin =
            plugin(r#"{"header": "x-token", "tokens": ["a", {"token": "b", "user": "bob"}]}"#);

        let mut exchange = Exchange::get("/").header("X-Token", "a");
        assert_eq!(plugin.access(exchange.request()), Verdict::Continue);
        assert_eq!(exchange.request().var("user"), None);

        let mut exchange = Exchange::get("/").header("x-token", "b");
        assert_eq!(plugin.access(exchange.request()), Verdict::Continue);
        assert_eq!(exchange.request().var("user").unwrap(), "bob");
        assert_eq!(exchange.request().header("x-token").unwrap(), "b");
    }

    #[test]
    fn others_are_refused() {
        let plugin = plugin(r#"{"header": "x-token", "tokens": ["secret"]}"#);
        for token in [&b"secre"[..], b"secrets", b"SECRET", b"", b"\xff"] {
            let mut exchange = Exchange::get("/").header("x-token", token);
            assert_eq!(status(plugin.access(exchange.request())), 401, "{token:?}");
        }
        assert_eq!(status(plugin.access(Exchange::get("/").request())), 401);
        let mut twice = Exchange::get("/")
            .header("x-token", "secret")
            .header("x-token", "other");
        assert_eq!(status(plugin.access(twice.request())), 401);
    }

    #[test]
    fn tokens_of_all_lengths_are_compared_in_full() {
        let long = b"0123456789abcdefghijklmnopqrstuv";
        for len in 0..long.len() {
            let token = &long[..len];
            assert!(is_same(token, token));
            assert!(!is_same(token, &long[..len + 1]));
            assert!(!is_same(&long[..len + 1], token));
            for idx in 0..len {
                let mut other = token.to_vec();
                other[idx] ^= 1;
                assert!(!is_same(token, &other), "{len} {idx}");
            }
        }
    }

    #[test]
    fn a_scheme_stands_before_the_token() {
        let plugin = plugin(
            r#"{"header": "authorization", "scheme": "Bearer", "realm": "a \"b\"", "tokens": ["t"], "remove": true}"#,
        );
        for (value, expected) in [
            ("Bearer t", 0),
            ("bearer  t", 0),
            ("t", 401),
            ("Bearert", 401),
            ("Basic t", 401),
        ] {
            let mut exchange = Exchange::get("/").header("authorization", value);
            assert_eq!(
                status(plugin.access(exchange.request())),
                expected,
                "{value}"
            );
            if expected == 0 {
                assert_eq!(exchange.request().header("authorization"), None);
            }
        }
        let Verdict::Answer(response) = plugin.access(Exchange::get("/").request()) else {
            panic!("passed")
        };
        let challenge = response.header_value("www-authenticate").unwrap();
        assert_eq!(challenge, r#"Bearer realm="a \"b\"""#);
    }

    #[test]
    fn a_bad_config_says_where() {
        for (json, text) in [
            (r#"{"header": "x", "tokens": []}"#, "config.tokens: none"),
            (
                r#"{"header": "x y", "tokens": ["a"]}"#,
                "config.header: `x y` is not a header name",
            ),
            (
                r#"{"header": "x", "tokens": ["a", ""]}"#,
                "config.tokens[1]: a token is one or more",
            ),
            (
                r#"{"header": "x", "tokens": [5]}"#,
                "config.tokens[0]: invalid type: integer `5`, expected a token",
            ),
            (
                r#"{"header": "x", "tokens": [{"user": "a"}]}"#,
                "config.tokens[0]: missing field `token`",
            ),
            (
                r#"{"header": "x", "tokens": ["a"], "scheme": "a b"}"#,
                "config.scheme: expected one word",
            ),
            (
                r#"{"header": "x", "tokens": ["a"], "tokn": 1}"#,
                "config.tokn: unknown field `tokn`",
            ),
        ] {
            let error = refusal(json);
            assert!(error.starts_with(text), "{error}");
        }
    }
}
