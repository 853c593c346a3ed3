//! Closed-loop load by HTTP/2: h2load, of nghttp2.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::peer::on_path;
use super::wrk::Answered;

/// Load that h2load is to send.
#[derive(Clone, Debug)]
pub(super) struct H2load {
    pub(super) url: String,
    pub(super) connections: u32,
    /// Requests under way on each connection.
    pub(super) streams: u32,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    /// File whose bytes each request has as its body.
    pub(super) body: Option<PathBuf>,
}

impl H2load {
    /// `wrapper` is a command that runs h2load.
    pub(super) fn run(&self, seconds: f64, wrapper: &[&str]) -> Result<Answered, String> {
        on_path("h2load")?;
        let mut words: Vec<String> = wrapper.iter().map(|word| (*word).to_owned()).collect();
        words.extend(["h2load", "-t", "1"].map(str::to_owned));
        words.push(format!("--duration={:.0}ms", seconds * 1e3));
        words.push(format!("--clients={}", self.connections));
        words.push(format!("--max-concurrent-streams={}", self.streams));
        // Suite and group are those of all that is measured beside it.
        words.push("--tls13-ciphers=TLS_AES_128_GCM_SHA256".to_owned());
        words.push("--groups=X25519".to_owned());
        for (name, value) in &self.headers {
            words.push(format!("--header={name}: {value}"));
        }
        if let Some(file) = &self.body {
            words.push(format!("--data={}", file.display()));
        }
        words.push(self.url.clone());
        let output = Command::new(&words[0])
            .args(&words[1..])
            .output()
            .map_err(|e| format!("{}: {e}", words[0]))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let answered = output.status.success().then(|| parse(&text, seconds));
        answered.flatten().ok_or_else(|| {
            let errors = String::from_utf8_lossy(&output.stderr);
            format!("{}: {text}{errors}", words.join(" "))
        })
    }
}

/// Writes the body of a call of gRPC where h2load can read it.
pub(super) fn write_body(work: &Path, bytes: &[u8]) -> Result<PathBuf, String> {
    let file = work.join("call.grpc");
    std::fs::write(&file, bytes).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(file)
}

/// Requests that are under way when the time is over count nowhere.
fn parse(text: &str, seconds: f64) -> Option<Answered> {
    let numbers = |begin: &str, of: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(begin))?;
        let words = line
            .split(", ")
            .filter_map(|part| part.trim().split_once(' '));
        let mut numbers = words.filter(|(_, word)| *word == of);
        numbers.next()?.0.parse().ok()
    };
    let requests = numbers("status codes:", "2xx")?;
    let others: Option<u64> = ["3xx", "4xx", "5xx"]
        .map(|class| numbers("status codes:", class))
        .into_iter()
        .sum();
    let broken: Option<u64> = ["errored", "timeout"]
        .map(|word| numbers("requests:", word))
        .into_iter()
        .sum();
    Some(Answered {
        requests,
        failed: others? + broken?,
        seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "starting benchmark...
finished in 1.00s, 35024.00 req/s, 4.92MB/s
requests: 35024 total, 35124 started, 35024 done, 35020 succeeded, 4 failed, 1 errored, 0 timeout
status codes: 35020 2xx, 0 3xx, 0 4xx, 3 5xx
traffic: 4.92MB (5163000) total, 1.10MB (1155000) headers (space savings 92.00%), 1.14MB (1190816) data
";

    #[test]
    fn figures_are_read() {
        let answered = Answered {
            requests: 35020,
            failed: 4,
            seconds: 1.0,
        };
        assert_eq!(parse(SAID, 1.0), Some(answered));
        assert_eq!(parse("UnrecoverableError", 1.0), None);
    }
}
