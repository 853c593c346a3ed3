//! `castling status`

mod upstreams;

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use crate::process::{
    AcmeReport, CertificateReport, DeathsReport, GenerationReport, MasterStatus, Reply, Request,
    SourceReport, WorkerReport,
};
use crate::wasm::PluginStatus;
use crate::zone::ZoneStatus;

use super::{Outcome, control};
pub(super) use upstreams::peers_text;

pub(super) fn status(config: &Path, json: bool) -> Outcome {
    match control::ask(config, Request::Status)? {
        Reply::Status(status) if json => {
            println!(
                "{}",
                serde_json::to_string_pretty(&status).map_err(control::lines)?
            );
            Ok(())
        }
        Reply::Status(status) => {
            print!("{}", text(&status));
            Ok(())
        }
        other => Err(control::unexpected(other)),
    }
}

fn text(status: &MasterStatus) -> String {
    let mut text = format!(
        "castling {}, pid {}, up {}, config {}\n\n",
        status.version,
        status.pid,
        duration(status.uptime_seconds),
        status.config.display()
    );
    let is_serving = |generation: &GenerationReport| generation.state == "serving";
    if !status.generations.iter().any(is_serving) {
        text.push_str("no generation serves: new connections wait until `castling reload`\n\n");
    }
    if let Some(generations) = table(&status.generations, GENERATION, generation) {
        text.push_str(&generations);
        text.push('\n');
    }
    if let Some(workers) = table(&status.workers, WORKER, worker) {
        text.push_str(&workers);
    }
    let last = [
        table(&status.deaths, DEATHS, deaths),
        table(&status.plugins, PLUGIN, plugin),
        table(&status.zones, ZONE, zone),
        table(&status.certificates, CERTIFICATE, certificate),
        table(&status.acme, ACME, acme),
        upstreams::summary(&status.upstreams),
        upstreams::not_up(&status.upstreams),
        table(&status.sources, SOURCE, source),
    ];
    for table in last.into_iter().flatten() {
        text.push('\n');
        text.push_str(&table);
    }
    text
}

/// A table with a row for each item; None without items.
fn table<T, const COLUMNS: usize>(
    items: &[T],
    head: [&str; COLUMNS],
    row: fn(&T) -> [String; COLUMNS],
) -> Option<String> {
    let mut table = Table::new(head);
    for item in items {
        table.row(row(item));
    }
    (!items.is_empty()).then(|| table.print())
}

const GENERATION: [&str; 6] = ["generation", "master", "state", "for", "since", "listeners"];

fn generation(generation: &GenerationReport) -> [String; 6] {
    let listeners = generation
        .listeners
        .iter()
        .map(|(name, address)| format!("{name} {address}"));
    [
        generation.id.to_string(),
        generation.master.to_string(),
        match generation.ends_within_seconds {
            Some(at_most) => format!("{}, ends within {}", generation.state, duration(at_most)),
            None => generation.state.clone(),
        },
        duration(generation.state_seconds),
        generation.since.clone(),
        or_dash(listeners.collect::<Vec<_>>().join(", ")),
    ]
}

const WORKER: [&str; 9] = [
    "worker",
    "pid",
    "core",
    "generation",
    "state",
    "up",
    "connections",
    "requests",
    "active",
];

fn worker(worker: &WorkerReport) -> [String; 9] {
    [
        worker.slot.to_string(),
        worker.pid.to_string(),
        or_dash(worker.core.map_or(String::new(), |core| core.to_string())),
        worker.generation.to_string(),
        worker.state.clone(),
        duration(worker.uptime_seconds),
        worker.connections.to_string(),
        worker.requests.to_string(),
        worker.requests_active.to_string(),
    ]
}

const SOURCE: [&str; 8] = [
    "name",
    "upstream",
    "by",
    "addresses",
    "age",
    "next",
    "failures",
    "last error",
];

fn source(source: &SourceReport) -> [String; 8] {
    [
        source.name.clone(),
        source.upstream.clone(),
        source.kind.clone(),
        source.addresses.to_string(),
        or_dash(source.age_seconds.map_or(String::new(), duration)),
        duration(source.next_seconds),
        source.failures.to_string(),
        or_dash(source.last_error.clone().unwrap_or_default()),
    ]
}

const DEATHS: [&str; 5] = ["worker", "generation", "deaths", "last", "how"];

fn deaths(slot: &DeathsReport) -> [String; 5] {
    [
        slot.slot.to_string(),
        slot.generation.to_string(),
        slot.count.to_string(),
        slot.at.clone(),
        slot.last.clone(),
    ]
}

const PLUGIN: [&str; 11] = [
    "plugin",
    "version",
    "instances",
    "waiting",
    "calls",
    "failures",
    "traps",
    "exhausted",
    "after response",
    "state",
    "hooks",
];

fn plugin(plugin: &PluginStatus) -> [String; 11] {
    [
        plugin.name.clone(),
        plugin.version.clone(),
        format!("{}/{}", plugin.instances_in_use, plugin.instances_limit),
        plugin.waiting.to_string(),
        plugin.calls.to_string(),
        plugin.failures.to_string(),
        plugin.traps.to_string(),
        plugin.exhausted.to_string(),
        or_dash(after_response(plugin)),
        service(&plugin.state).to_owned(),
        plugin.hooks.join(" "),
    ]
}

/// Calls of `after_response` that run or wait, and those that were lost; empty without that hook.
fn after_response(plugin: &PluginStatus) -> String {
    let (now, lost) = (plugin.after_responses, plugin.after_responses_lost);
    match plugin.hooks.iter().any(|hook| hook == "after_response") {
        true => format!("{now}, {lost} lost"),
        false => String::new(),
    }
}

const ZONE: [&str; 7] = [
    "zone",
    "kind",
    "size",
    "used",
    "permits",
    "evicted",
    "contended",
];

fn zone(zone: &ZoneStatus) -> [String; 7] {
    [
        zone.name.clone(),
        zone.kind.clone(),
        size(zone.size_bytes),
        size(zone.used_bytes),
        or_dash(
            zone.permits
                .map(|permits| permits.to_string())
                .unwrap_or_default(),
        ),
        zone.evicted.to_string(),
        zone.contended.to_string(),
    ]
}

const CERTIFICATE: [&str; 4] = ["listener", "certificate", "not after", "days left"];

fn certificate(certificate: &CertificateReport) -> [String; 4] {
    [
        certificate.listener.clone(),
        or_dash(certificate.names.join(", ")),
        certificate.not_after.clone(),
        certificate.days_left.to_string(),
    ]
}

const ACME: [&str; 6] = [
    "acme",
    "state",
    "not after",
    "next order",
    "failures",
    "last error",
];

fn acme(certificate: &AcmeReport) -> [String; 6] {
    let or_dash = |text: &Option<String>| or_dash(text.clone().unwrap_or_default());
    [
        certificate.names.join(", "),
        certificate.state.clone(),
        or_dash(&certificate.not_after),
        or_dash(&certificate.next_order),
        certificate.failures.to_string(),
        or_dash(&certificate.last_error),
    ]
}

/// A plugin's state in words.
fn service(state: &str) -> &str {
    match state {
        "in" => "in service",
        "trial" => "on trial",
        "out" => "out of service",
        other => other,
    }
}

fn or_dash(cell: String) -> String {
    if cell.is_empty() {
        "-".to_owned()
    } else {
        cell
    }
}

fn duration(seconds: f64) -> String {
    // Whole seconds are what a person reads; a clock cannot run long enough to be out of range.
    humantime::format_duration(Duration::from_secs(seconds as u64)).to_string()
}

fn size(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().iec().to_string()
}

/// Rows of cells, in columns as wide as their widest cell; numbers stand at the right.
struct Table<const COLUMNS: usize> {
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    fn new(head: [&str; COLUMNS]) -> Self {
        Self {
            rows: vec![head.map(str::to_owned)],
        }
    }

    fn row(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells);
    }

    fn print(&self) -> String {
        let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
            self.rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        });
        let is_number = |column: usize| {
            let cells = self.rows.iter().skip(1).map(|row| &row[column]);
            cells.clone().count() > 0
                && cells
                    .clone()
                    .all(|cell| cell == "-" || cell.bytes().all(|b| b.is_ascii_digit()))
        };
        let numbers: [bool; COLUMNS] = std::array::from_fn(is_number);
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), is_number) in row.iter().zip(widths).zip(numbers) {
                // Writing to a String cannot fail.
                let _ = match is_number {
                    true => write!(line, "{cell:>width$}  "),
                    false => write!(line, "{cell:width$}  "),
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["a", "long"]);
        table.row(["wide".to_owned(), "x".to_owned()]);
        assert_eq!(table.print(), "a     long\nwide  x\n");
    }

    #[test]
    fn numbers_stand_at_the_right() {
        let mut table = Table::new(["count", "name"]);
        table.row(["7".to_owned(), "x1".to_owned()]);
        table.row(["-".to_owned(), "2".to_owned()]);
        assert_eq!(table.print(), "count  name\n    7  x1\n    -  2\n");
    }

    #[test]
    fn times_are_in_words() {
        assert_eq!(duration(3725.9), "1h 2m 5s");
    }
}
