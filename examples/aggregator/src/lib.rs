//! One answer of several services, asked at once: a JSON object with a member for each.
//!
//! ```toml
//! [plugins.page]
//! wasm = "aggregator.wasm"
//!
//! [plugins.page.config]
//! timeout = "500ms"
//! forward = ["authorization"]     # headers that the services are sent; the query they all are
//!
//! [plugins.page.config.parts]     # the gateway grants the upstreams that the config names
//! user = { upstream = "users", path = "/me", required = true }
//! news = { upstream = "news", path = "/latest" }
//! ```
//!
//! A part that cannot be had is missing, and `errors` says why; without a required one there is no page.

use std::collections::BTreeMap;

use castling_sdk::prelude::*;
use castling_sdk::units;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(deserialize_with = "units::duration_above_zero")]
    timeout: Duration,
    #[serde(default)]
    forward: Vec<HeaderName>,
    parts: BTreeMap<String, Part>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    upstream: http::Upstream,
    path: String,
    #[serde(default)]
    required: bool,
}

#[plugin]
impl Page {
    fn configure(config: Self) -> Self {
        config
    }

    fn content(&self, request: &mut Request) -> Result<Verdict> {
        let query = request.query().map(|query| format!("?{query}"));
        let calls = self.parts.values().map(|part| {
            let target = part.path.clone() + query.as_deref().unwrap_or_default();
            let call = http::Request::get(target).forward(request, &self.forward);
            (&part.upstream, call.timeout(self.timeout))
        });
        let (mut page, mut errors) = (Map::new(), Map::new());
        for ((name, part), answer) in self.parts.iter().zip(http::send_all(calls)) {
            match value(answer) {
                Ok(value) => _ = page.insert(name.clone(), value),
                Err((why, status)) if part.required => {
                    let why = json!({"errors": {name: why}});
                    return Ok(Response::status(status).json(&why)?.into());
                }
                Err((why, _)) => _ = errors.insert(name.clone(), why.into()),
            }
        }
        page.insert("errors".to_owned(), errors.into());
        Ok(Response::status(200).json(&page)?.into())
    }
}

/// What the service has answered, or in a word why that is nothing, and the status for it.
fn value(answer: Result<http::Response>) -> Result<Value, (&'static str, u16)> {
    let answer = answer.map_err(|error| (error.kind().name(), error.client_status()))?;
    match answer.status() {
        200 => answer.json().map_err(|_| ("no JSON", 502)),
        _ => Err(("another status", 502)),
    }
}

#[cfg(test)]
mod tests;
