//! The report: bench/report.md with what was measured filled in, and a plot for each case beside it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::case::Group;
use super::machine;
use super::metric::Metric;
use super::outcome::{Measured, Outcome, short};
use super::plot::{self, Bar};
use super::statistics::Spread;
use super::template;
use crate::Places;

/// Writes `file`, and the plots into a folder of its name beside it.
pub(super) fn write(file: &Path, outcomes: &[Outcome<'_>], places: &Places) -> Result<(), String> {
    let stem = file.file_stem().and_then(|stem| stem.to_str());
    let stem = stem.ok_or_else(|| format!("{}: names no file", file.display()))?;
    let folder_name = stem.to_lowercase();
    let folder = file.with_file_name(&folder_name);
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut groups = String::new();
    for of in Group::ALL {
        let mut of_group = outcomes.iter().filter(|outcome| outcome.case.group == of);
        if of_group.clone().next().is_none() {
            continue;
        }
        line(&mut groups, &format!("## {}\n", of.title()));
        goals(&mut groups, of_group.clone());
        of_group.try_for_each(|outcome| case(&mut groups, outcome, &folder, &folder_name))?;
    }
    let values = vec![
        (
            "command",
            each(outcomes, |outcome| &outcome.command).join("\n"),
        ),
        ("date", each(outcomes, |outcome| &outcome.date).join(", ")),
        ("machine", machine::description()),
        ("versions", versions(outcomes, places)),
        ("quiet", quiet(outcomes)),
        ("groups", groups.trim_end().to_owned()),
    ];
    let text = template::render(&places.bench.join("report.md"), &[], &values)?;
    fs::write(file, text).map_err(|e| format!("{}: {e}", file.display()))
}

/// Collects something of all cases, each once.
fn each<'o>(
    outcomes: &'o [Outcome<'_>],
    of: impl Fn(&'o Outcome<'_>) -> &'o String,
) -> Vec<&'o str> {
    let mut told: Vec<&str> = Vec::new();
    for outcome in outcomes {
        let text = of(outcome).as_str();
        if !told.contains(&text) {
            told.push(text);
        }
    }
    told
}

fn versions(outcomes: &[Outcome<'_>], places: &Places) -> String {
    let mut told: Vec<&str> = Vec::new();
    let mut lines = String::new();
    let peers = outcomes.iter().flat_map(|outcome| &outcome.peers);
    for peer in peers.map(|measured| measured.peer) {
        let what = match peer.id {
            "nginx-again" | "nginx-forwarded" => "nginx",
            "castling-plain" => "castling",
            "envoy-wasm" => "envoy",
            id => id,
        };
        if !told.contains(&what) {
            told.push(what);
            line(&mut lines, &format!("- {}", peer.version(places)));
        }
    }
    lines.trim_end().to_owned()
}

/// How much others have used the machine, and so what the figures are worth.
fn quiet(outcomes: &[Outcome<'_>]) -> String {
    let others: Vec<f64> = outcomes.iter().map(|o| o.used_by_others).collect();
    let (Some(spread), most) = (
        Spread::of(&others),
        others.iter().copied().fold(0.0, f64::max),
    ) else {
        return String::new();
    };
    let told = format!(
        "Others used {:.1} % of a core meanwhile (the median of the cases; at most {most:.1} %).",
        spread.median
    );
    match spread.median > super::BUSY_PERCENT {
        true => format!("**A busy machine: these figures say little.** {told}"),
        false => told,
    }
}

/// A table of what Castling wants to reach, where it wants anything.
fn goals<'o>(text: &mut String, outcomes: impl Iterator<Item = &'o Outcome<'o>>) {
    let mut begins = "| case | figure | measured | must | goal | |\n|---|---|---:|---:|---:|---|\n";
    for outcome in outcomes {
        for verdict in outcome.verdicts() {
            text.push_str(std::mem::take(&mut begins));
            line(
                text,
                &format!(
                    "| {} | {} | {} | {:.2} | {:.2} | {} |",
                    outcome.case.title,
                    verdict.figure(),
                    spread(&verdict.value, 2),
                    verdict.goal.must,
                    verdict.goal.goal,
                    verdict.word()
                ),
            );
        }
    }
    if begins.is_empty() {
        text.push('\n');
    }
}

fn case(
    text: &mut String,
    outcome: &Outcome<'_>,
    folder: &Path,
    folder_name: &str,
) -> Result<(), String> {
    let case = outcome.case;
    line(text, &format!("### {}\n", case.title));
    if !case.note.is_empty() {
        line(text, &format!("{}\n", case.note));
    }
    let metrics = outcome.metrics();
    let main = metrics
        .iter()
        .copied()
        .find(|metric| case.main_metric() == *metric);
    if let Some(main) = main {
        let file = folder.join(format!("{}.svg", case.name));
        let title = format!(
            "{}: {}, ratio to {}",
            case.title,
            main.title(),
            first(outcome)
        );
        fs::write(&file, plot::bars(&title, &bars(outcome, main)))
            .map_err(|e| format!("{}: {e}", file.display()))?;
        line(
            text,
            &format!("![{title}]({folder_name}/{}.svg)\n", case.name),
        );
    }
    table(text, outcome, &metrics);
    let others = outcome.used_by_others;
    let worth = match others > super::BUSY_PERCENT {
        true => " **These figures say little.**",
        false => "",
    };
    line(
        text,
        &format!("\nOthers used {others:.1} % of a core meanwhile.{worth}\n"),
    );
    Ok(())
}

fn table(text: &mut String, outcome: &Outcome<'_>, metrics: &[Metric]) {
    let counted = outcome
        .peers
        .iter()
        .any(|measured| measured.syscalls.is_some());
    let mut head = vec![String::new()];
    for metric in metrics {
        head.push(metric.title().to_owned());
        if metric.is_compared() {
            head.push("ratio".to_owned());
        }
    }
    if counted {
        head.push("syscalls/request".to_owned());
    }
    head.push("failed".to_owned());
    let columns = head.len();
    row(text, &head);
    line(text, &format!("|---{}|", "|---:".repeat(columns - 1)));
    for measured in &outcome.peers {
        let mut cells = vec![measured.peer.title().to_owned()];
        for metric in metrics {
            let of = measured.spread(*metric);
            cells.push(of.map_or(String::new(), |of| short(of.median)));
            if metric.is_compared() {
                let ratio = outcome.ratio(measured, *metric);
                cells.push(ratio.map_or(String::new(), |ratio| spread(&ratio, 2)));
            }
        }
        if counted {
            cells.push(
                measured
                    .syscalls
                    .map_or(String::new(), |n| format!("{n:.2}")),
            );
        }
        cells.push(failed(measured));
        row(text, &cells);
    }
}

fn failed(measured: &Measured) -> String {
    match (measured.failed(), measured.resent()) {
        (failed, 0) => failed.to_string(),
        (failed, resent) => format!("{failed}, {resent} sent again"),
    }
}

fn bars(outcome: &Outcome<'_>, metric: Metric) -> Vec<Bar> {
    let bar = |measured: &Measured| {
        Some(Bar {
            label: measured.peer.title().to_owned(),
            ratio: outcome.ratio(measured, metric)?,
            ours: measured.peer.id.starts_with("castling"),
        })
    };
    outcome.peers.iter().filter_map(bar).collect()
}

fn first(outcome: &Outcome<'_>) -> &'static str {
    outcome
        .peers
        .first()
        .map_or("", |measured| measured.peer.title())
}

/// `0.97 (0.95 to 1.02)`; without the quartiles where there was but one value.
fn spread(spread: &Spread, digits: usize) -> String {
    let Spread { median, low, high } = spread;
    if low == high {
        return format!("{median:.digits$}");
    }
    format!("{median:.digits$} ({low:.digits$} to {high:.digits$})")
}

fn row(text: &mut String, cells: &[String]) {
    line(text, &format!("| {} |", cells.join(" | ")));
}

fn line(text: &mut String, line: &str) {
    let _infallible = writeln!(text, "{line}");
}
