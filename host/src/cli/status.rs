//! `castling status`

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use crate::process::{MasterStatus, Reply, Request};

use super::{Outcome, control};

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
    let mut generations =
        Table::new(["generation", "master", "state", "for", "since", "listeners"]);
    for generation in &status.generations {
        let listeners = generation
            .listeners
            .iter()
            .map(|(name, address)| format!("{name} {address}"));
        generations.row([
            generation.id.to_string(),
            generation.master.to_string(),
            match generation.ends_within_seconds {
                Some(at_most) => format!("{}, ends within {}", generation.state, duration(at_most)),
                None => generation.state.clone(),
            },
            duration(generation.state_seconds),
            generation.since.clone(),
            or_dash(listeners.collect::<Vec<_>>().join(", ")),
        ]);
    }
    let mut workers = Table::new([
        "worker",
        "pid",
        "core",
        "generation",
        "state",
        "up",
        "connections",
        "requests",
        "active",
    ]);
    for worker in &status.workers {
        workers.row([
            worker.slot.to_string(),
            worker.pid.to_string(),
            or_dash(worker.core.map_or(String::new(), |core| core.to_string())),
            worker.generation.to_string(),
            worker.state.clone(),
            duration(worker.uptime_seconds),
            worker.connections.to_string(),
            worker.requests.to_string(),
            worker.requests_active.to_string(),
        ]);
    }
    let mut deaths = Table::new(["worker", "generation", "deaths", "last", "how"]);
    for slot in &status.deaths {
        deaths.row([
            slot.slot.to_string(),
            slot.generation.to_string(),
            slot.count.to_string(),
            slot.at.clone(),
            slot.last.clone(),
        ]);
    }
    let mut plugins = Table::new([
        "plugin",
        "version",
        "instances",
        "calls",
        "failures",
        "traps",
        "exhausted",
        "state",
        "hooks",
    ]);
    for plugin in &status.plugins {
        plugins.row([
            plugin.name.clone(),
            plugin.version.clone(),
            plugin.instances.to_string(),
            plugin.calls.to_string(),
            plugin.failures.to_string(),
            plugin.traps.to_string(),
            plugin.exhausted.to_string(),
            service(&plugin.state).to_owned(),
            plugin.hooks.join(" "),
        ]);
    }
    let mut zones = Table::new(["zone", "kind", "size", "used", "evicted", "contended"]);
    for zone in &status.zones {
        zones.row([
            zone.name.clone(),
            zone.kind.clone(),
            size(zone.size_bytes),
            size(zone.used_bytes),
            zone.evicted.to_string(),
            zone.contended.to_string(),
        ]);
    }
    if !status
        .generations
        .iter()
        .any(|generation| generation.state == "serving")
    {
        text.push_str("no generation serves: new connections wait until `castling reload`\n\n");
    }
    if !status.generations.is_empty() {
        text.push_str(&generations.print());
        text.push('\n');
    }
    if !status.workers.is_empty() {
        text.push_str(&workers.print());
    }
    if !status.deaths.is_empty() {
        text.push('\n');
        text.push_str(&deaths.print());
    }
    if !status.plugins.is_empty() {
        text.push('\n');
        text.push_str(&plugins.print());
    }
    if !status.zones.is_empty() {
        text.push('\n');
        text.push_str(&zones.print());
    }
    text
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
