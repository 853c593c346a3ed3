use castling_sdk::prelude::*;

#[derive(Deserialize)]
struct Config {
    header: HeaderName,
    tokens: Vec<String>,
}

struct TokenAuth {
    config: Config,
}

#[plugin]
impl TokenAuth {
    fn configure(config: Config) -> Result<Self> {
        Ok(Self { config })
    }

    fn access(&self, request: &mut Request) -> Verdict {
        match request.header(&self.config.header) {
            Some(token) if self.config.tokens.iter().any(|t| token == t.as_str()) => {
                request.set_var("user", &token);
                Verdict::Continue
            }
            _ => Response::status(401).body("token required").into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use castling_sdk::testing::{self, Exchange};

    #[test]
    fn a_known_token_passes() {
        let config = testing::config(r#"{"header": "x-token", "tokens": ["s3cret"]}"#).unwrap();
        let plugin = TokenAuth::configure(config).unwrap();

        let mut known = Exchange::get("/").header("x-token", "s3cret");
        assert_eq!(plugin.access(known.request()), Verdict::Continue);
        assert_eq!(known.request().var("user").unwrap(), "s3cret");

        let refused = Response::status(401).body("token required").into();
        assert_eq!(plugin.access(Exchange::get("/").request()), refused);
    }
}
