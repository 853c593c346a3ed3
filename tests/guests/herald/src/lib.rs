//! Asks routes of the gateway from its timer and for each message, which is the path, and keeps what came of it. `/heard/KEY` tells it; a path
//! with `say=PATH` as its query has that published.

use castling_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(default)]
struct Herald {
    /// Path that the timer asks for; nothing if empty.
    path: String,
    host: String,
}

impl Default for Herald {
    fn default() -> Self {
        Self { path: String::new(), host: "herald.example".to_owned() }
    }
}

#[plugin(timer = "1h")]
impl Herald {
    fn configure(config: Self) -> Self {
        config
    }

    fn content(&self, request: &mut Request) -> Result<Verdict> {
        if let Some(said) = request.query().and_then(|query| query.strip_prefix("say=").map(str::to_owned)) {
            zones::topic("news").publish(said)?;
            return Ok(Response::status(200).body("said").into());
        }
        let Some(key) = request.path().strip_prefix("/heard/").map(str::to_owned) else {
            return Ok(Verdict::Continue);
        };
        let heard = zones::kv("heard").get(key)?.unwrap_or_default();
        Ok(Response::status(200).body(heard).into())
    }

    fn timer(&mut self) -> Result<()> {
        match self.path.is_empty() {
            true => Ok(()),
            false => self.ask("timer", &self.path),
        }
    }

    fn message(&mut self, _topic: &str, message: &[u8]) -> Result<()> {
        self.ask("message", &String::from_utf8_lossy(message))
    }
}

impl Herald {
    fn ask(&self, key: &str, path: &str) -> Result<()> {
        let request = http::Request::get(path).header("host", &self.host).header("x-ask", path);
        let told = match http::subrequest(request) {
            Ok(answer) => format!("{}:{}", answer.status(), String::from_utf8_lossy(answer.body())),
            Err(error) => format!("{:?}: {error}", error.kind()),
        };
        zones::kv("heard").put(key, told, None)
    }
}
