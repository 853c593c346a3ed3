//! Waits for what the request's headers ask, and says in headers what came of it.

use std::cell::Cell;
use std::time::Duration;

use castling_sdk::prelude::*;

#[derive(Default)]
struct Waiter {
    /// Set by a request that plants; seen by every later one on the same instance.
    planted: Cell<bool>,
}

#[plugin]
impl Waiter {
    fn preaccess(&self, request: &mut Request) -> Result<()> {
        if request.header("x-trap").is_some() {
            panic!("it was asked to");
        }
        if let Some(milliseconds) = number(request, "x-delay") {
            delay(Duration::from_millis(milliseconds))?;
        }
        Ok(())
    }

    fn access(&self, request: &mut Request) -> Result<()> {
        let planted = self.planted.get();
        request.set_header("x-planted", if planted { "yes" } else { "no" });
        if request.header("x-plant").is_some() {
            self.planted.set(true);
        }
        if let Some(limit) = number(request, "x-body-limit") {
            let told = match request.read_body(limit as usize) {
                Ok(body) => format!("{} {}", body.len(), sum(&body)),
                Err(error) if error.is_limit() => "too large".to_owned(),
                Err(error) => return Err(error),
            };
            request.set_header("x-body", &told);
        }
        let paths = text(request, "x-calls");
        let calls: Vec<&str> = paths.split(' ').filter(|path| !path.is_empty()).collect();
        if calls.is_empty() {
            return Ok(());
        }
        let timeout = Duration::from_millis(number(request, "x-call-timeout").unwrap_or(5000));
        let results = http::send_all(calls.iter().map(|path| {
            let call = http::Request::post(*path).header("x-from", "waiter").body(*path);
            ("helper", call.timeout(timeout))
        }));
        if request.header("x-calls-must").is_some() {
            return results.into_iter().try_for_each(|result| result.map(drop));
        }
        let told: Vec<String> = results
            .into_iter()
            .map(|result| match result {
                Ok(response) => format!("{}:{}", response.status(), String::from_utf8_lossy(response.body())),
                Err(error) => format!("failed: {error}"),
            })
            .collect();
        request.set_header("x-results", told.join("|"));
        Ok(())
    }

    fn response_headers(&self, request: &Request, reply: &mut Reply) -> Result<()> {
        if let Some(limit) = number(request, "x-reply-limit") {
            let told = match reply.read_body(limit as usize) {
                Ok(body) => format!("{} {}", body.len(), sum(&body)),
                Err(error) if error.is_limit() => "too large".to_owned(),
                Err(error) => return Err(error),
            };
            let again = number(request, "x-reply-again").map(|limit| match reply.read_body(limit as usize) {
                Ok(body) => format!(", {}", body.len()),
                Err(error) if error.is_limit() => ", too large".to_owned(),
                Err(error) => format!(", {error}"),
            });
            reply.set_header("x-reply", told + &again.unwrap_or_default());
        }
        for name in ["x-body", "x-results", "x-planted"] {
            reply.set_header(name, text(request, name));
        }
        Ok(())
    }
}

fn text(request: &Request, name: &str) -> String {
    let value = request.header(name);
    value.as_ref().and_then(|value| value.as_str()).unwrap_or_default().to_owned()
}

fn number(request: &Request, name: &str) -> Option<u64> {
    text(request, name).parse().ok()
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}
