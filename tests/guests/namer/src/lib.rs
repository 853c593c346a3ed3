//! Answers with what the upstream says that its config names, and how often it was asked. `x-ask` names another one.

use castling_sdk::prelude::*;

#[derive(Deserialize)]
struct Namer {
    upstream: http::Upstream,
    count: Option<zones::Counter>,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "it cannot be read")]
struct Typed {
    upstream: http::Upstream,
}

#[plugin]
impl Namer {
    fn configure(config: Self) -> Self {
        config
    }

    fn content(&self, request: &mut Request) -> Result<Verdict> {
        let question = http::Request::get("/");
        let other = request.header("x-ask");
        let answer = match other.as_ref().and_then(|name| name.as_str()) {
            // Reads a body that names one, and is no config.
            Some("typed") => {
                let read = request.read_json::<Typed>(1000);
                let error = read.err().map(|error| error.to_string());
                return Ok(Response::status(200).body(error.unwrap_or_default()).into());
            }
            Some(name) => http::send(name, question)?,
            None => self.upstream.send(question)?,
        };
        let mut text = String::from_utf8_lossy(answer.body()).into_owned();
        if let Some(count) = &self.count {
            text += &format!(" {}", count.add("asked", 1, Duration::from_secs(3600))?);
        }
        Ok(Response::status(200).body(text).into())
    }
}
