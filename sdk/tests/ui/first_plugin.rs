use castling_sdk::prelude::*;

#[derive(Deserialize)]
struct Config { header: HeaderName, tokens: Vec<String> }

struct TokenAuth { config: Config }

#[plugin]
impl TokenAuth {
    fn configure(config: Config) -> Result<Self> { Ok(Self { config }) }

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

fn main() {}
