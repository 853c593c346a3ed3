//! Checks that a peer does what a case says that it does. Figures of proxies that do different things are of no use.

use super::front::Front;
use super::grpc;
use super::origin::{BODIES, PHRASE, SEEN};
use super::peer::Running;
use super::probe::{KEY, Reply};

/// Whether the proxy does what its logic is named after.
pub(crate) fn conforms(running: &Running) -> Result<(), String> {
    let check = Check { running };
    let logic = running.peer.logic.unwrap_or("plain");
    match logic.split('-').next().unwrap_or(logic) {
        "plain" if running.peer.front == Front::Grpc => check.calls(),
        "gate" | "three" => check.gate(logic == "three"),
        "substitute" => check.substitutes(),
        "compute" => check.computes(),
        _ => check.passes_on(),
    }
    .map_err(|error| format!("{} ({logic}): {error}", running.peer.id))
}

struct Check<'a> {
    running: &'a Running,
}

impl Check<'_> {
    fn passes_on(&self) -> Result<(), String> {
        for (path, len) in BODIES {
            let reply = self.get(path, &[KEY])?;
            // Filtered bodies may come in chunks, whose sizes count here.
            if reply.status != 200 || reply.body.len() < len {
                return Err(format!(
                    "{path}: {} with {} bytes",
                    reply.status,
                    reply.body.len()
                ));
            }
        }
        Ok(())
    }

    fn calls(&self) -> Result<(), String> {
        let reply = self.get(grpc::PATH, &[KEY])?;
        let is_answered = reply.body.as_bytes() == grpc::MESSAGE;
        match reply.status == 200 && is_answered && reply.trailers.contains("\r\ngrpc-status: 0") {
            true => Ok(()),
            false => Err(format!("a call: {reply:?}")),
        }
    }

    fn gate(&self, checks_tokens: bool) -> Result<(), String> {
        self.passes_on()?;
        let refusal = if checks_tokens { 401 } else { 403 };
        let without = self.get("/34", &[])?.status;
        if without != refusal {
            return Err(format!("without a key: {without}"));
        }
        let seen = self.get(SEEN, &[KEY])?;
        if !seen.head.contains("\r\nx-gate: passed") {
            return Err(format!("no x-gate in the response: {}", seen.head));
        }
        has(&seen.body, "x-consumer: s3cret")
    }

    fn substitutes(&self) -> Result<(), String> {
        let body = self.get("/64k", &[KEY])?.body;
        match body.matches("https://www.example.com").count() {
            64 if !body.contains(PHRASE) => Ok(()),
            n => Err(format!("{n} of 64 were replaced")),
        }
    }

    fn computes(&self) -> Result<(), String> {
        let seen = self.get(SEEN, &[("x-compute", "10")])?;
        has(&seen.body, "x-computed: ")
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Reply, String> {
        self.running.get(path, headers)
    }
}

fn has(seen: &str, header: &str) -> Result<(), String> {
    match seen.to_ascii_lowercase().contains(header) {
        true => Ok(()),
        false => Err(format!("the origin has not seen {header:?}: {seen}")),
    }
}
