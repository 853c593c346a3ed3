//! Lets webhooks pass whose body is signed with a known secret: HMAC-SHA256 over the whole body, checked before any
//! of it goes on.
//!
//! README.md has the config.

use castling_sdk::prelude::*;
use castling_sdk::units;
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The plugin's config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the signature is.
    header: HeaderName,
    /// Before the signature in the header: `sha256=`. Default none.
    #[serde(default)]
    prefix: String,
    /// Default `hex`.
    #[serde(default)]
    encoding: Encoding,
    /// At least one, none of them empty. Any of them may have signed.
    secrets: Vec<String>,
    /// Longest body, in bytes; beyond it 413. Default 1 MiB.
    #[serde(default = "one_mebibyte", deserialize_with = "units::size")]
    limit: usize,
}

/// How the signature is written.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Hex,
    Base64,
}

/// The plugin.
pub struct HmacBody {
    header: HeaderName,
    prefix: String,
    encoding: Encoding,
    /// A MAC for each secret, which it has taken in.
    keys: Vec<Hmac<Sha256>>,
    limit: usize,
}

#[plugin]
impl HmacBody {
    fn configure(config: Config) -> Result<Self> {
        if config.secrets.is_empty() {
            bail!("config.secrets: none; nothing could pass");
        }
        let mut keys = Vec::new();
        for (i, secret) in config.secrets.iter().enumerate() {
            if secret.is_empty() {
                bail!("config.secrets[{i}]: empty; anyone could sign");
            }
            keys.push(Hmac::new_from_slice(secret.as_bytes())?);
        }
        Ok(Self {
            header: config.header,
            prefix: config.prefix,
            encoding: config.encoding,
            keys,
            limit: config.limit,
        })
    }

    fn access(&self, request: &mut Request) -> Result<Verdict> {
        // First: a request without a signature need not be read.
        let Some(signature) = self.signature(request) else {
            return Ok(refuse(401, "signature required\n"));
        };
        let body = match request.read_body(self.limit) {
            Ok(body) => body,
            Err(error) if error.is_limit() => return Ok(refuse(413, "body too large\n")),
            Err(error) => return Err(error),
        };
        if self.is_signed(&body, &signature) {
            Ok(Verdict::Continue)
        } else {
            Ok(refuse(401, "signature does not match\n"))
        }
    }
}

impl HmacBody {
    /// The signature's bytes; `None` when there is none, or one of another form.
    fn signature(&self, request: &Request) -> Option<Vec<u8>> {
        // Two values are refused: an upstream might look at the other one.
        let value = request.only_header(&self.header)?;
        let text = value.as_bytes().strip_prefix(self.prefix.as_bytes())?;
        let encoding = match self.encoding {
            Encoding::Hex => HEXLOWER_PERMISSIVE,
            Encoding::Base64 => BASE64,
        };
        encoding.decode(text).ok()
    }

    /// Tries every key in full, so that the time says how many there are, not which was right.
    fn is_signed(&self, body: &[u8], signature: &[u8]) -> bool {
        let mut signed = false;
        for key in &self.keys {
            let mut mac = key.clone();
            mac.update(body);
            // Compares in constant time.
            signed |= mac.verify_slice(signature).is_ok();
        }
        signed
    }
}

fn refuse(status: u16, text: &str) -> Verdict {
    Response::status(status)
        .header("content-type", "text/plain")
        .body(text)
        .into()
}

const fn one_mebibyte() -> usize {
    1 << 20
}

#[cfg(test)]
mod tests {
    use super::*;
    use castling_sdk::testing::{self, Exchange};

    /// RFC 4231 §4.3, test case 2.
    const KEY: &str = "Jefe";
    const BODY: &str = "what do ya want for nothing?";
    const HEX: &str = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    const BASE64_TEXT: &str = "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=";

    fn plugin(json: &str) -> HmacBody {
        HmacBody::configure(testing::config(json).unwrap()).unwrap()
    }

    fn github(secrets: &str) -> HmacBody {
        plugin(&format!(
            r#"{{"header": "x-hub-signature-256", "prefix": "sha256=", "secrets": {secrets}, "limit": 64}}"#
        ))
    }

    fn hook(body: &str) -> Exchange {
        Exchange::new("POST", "/hook").body(body)
    }

    fn status(plugin: &HmacBody, mut exchange: Exchange) -> u16 {
        match plugin.access(exchange.request()).unwrap() {
            Verdict::Continue => 0,
            Verdict::Answer(response) => response.status_code(),
            Verdict::Reroute | Verdict::Streamed(_) => panic!("not answered"),
        }
    }

    #[test]
    fn a_signed_body_passes() {
        let signed = || hook(BODY).header("x-hub-signature-256", format!("sha256={HEX}"));
        assert_eq!(status(&github(r#"["Jefe"]"#), signed()), 0);
        assert_eq!(status(&github(r#"["old", "Jefe", "new"]"#), signed()), 0);
        assert_eq!(status(&github(r#"["old"]"#), signed()), 401);

        let base64 = plugin(&format!(
            r#"{{"header": "x-sign", "encoding": "base64", "secrets": ["{KEY}"]}}"#
        ));
        assert_eq!(status(&base64, hook(BODY).header("x-sign", BASE64_TEXT)), 0);
        assert_eq!(status(&base64, hook(BODY).header("x-sign", HEX)), 401);
    }

    #[test]
    fn others_are_refused() {
        let plugin = github(r#"["Jefe"]"#);
        let signed = |value: &str| hook(BODY).header("x-hub-signature-256", value);
        let cut = &HEX[..62];
        for value in [
            HEX,
            &format!("sha256={cut}"),
            &format!("sha256={HEX}00"),
            &format!("sha256={cut}44"),
            &format!("sha256={}", "zz".repeat(32)),
            "sha256=",
            "",
        ] {
            assert_eq!(status(&plugin, signed(value)), 401, "{value}");
        }
        let right = format!("sha256={HEX}");
        assert_eq!(status(&plugin, hook(BODY)), 401);
        let twice = signed(&right).header("x-hub-signature-256", "sha256=00");
        assert_eq!(status(&plugin, twice), 401);
        assert_eq!(status(&plugin, signed(&right).body("what else?")), 401);
    }

    #[test]
    fn a_body_beyond_the_limit_is_a_413() {
        let plugin = github(r#"["Jefe"]"#);
        let long = hook(&"x".repeat(65)).header("x-hub-signature-256", format!("sha256={HEX}"));
        assert_eq!(status(&plugin, long), 413);
    }

    #[test]
    fn a_bad_config_says_where() {
        for (json, text) in [
            (r#"{"header": "x", "secrets": []}"#, "config.secrets: none"),
            (
                r#"{"header": "x", "secrets": ["a", ""]}"#,
                "config.secrets[1]: empty",
            ),
            (
                r#"{"header": "x", "secrets": ["a"], "limit": "much"}"#,
                "config.limit: invalid value: string \"much\", expected a size",
            ),
            (
                r#"{"header": "x", "secrets": ["a"], "encoding": "hex64"}"#,
                "config.encoding: unknown variant `hex64`, expected `hex` or `base64`",
            ),
        ] {
            let error = testing::config(json).and_then(HmacBody::configure).err();
            let error = error.expect(json).to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
