//! bench/instructions.toml: what a request took when it was last saved.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use toml::{Table, Value};

use super::Counted;

/// By case, in the order in which they were added.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Baseline(Vec<(String, Counted)>);

impl Baseline {
    /// Empty where there is no file.
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        match fs::read_to_string(file) {
            Ok(text) => Self::parse(&text).map_err(|e| format!("{}: {e}", file.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(format!("{}: {error}", file.display())),
        }
    }

    pub(super) fn write(&self, file: &Path) -> Result<(), String> {
        fs::write(file, self.text()).map_err(|e| format!("{}: {e}", file.display()))
    }

    pub(super) fn of(&self, case: &str) -> Option<&Counted> {
        let found = self.0.iter().find(|(name, _)| name == case);
        found.map(|(_, counted)| counted)
    }

    pub(super) fn set(&mut self, case: &str, counted: Counted) {
        match self.0.iter_mut().find(|(name, _)| name == case) {
            Some((_, known)) => *known = counted,
            None => self.0.push((case.to_owned(), counted)),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let table: Table = text.parse().map_err(|e| format!("{e}"))?;
        let mut cases = Vec::new();
        for (name, case) in table {
            let number = |key: &str| {
                let value = case.get(key).and_then(number);
                value.ok_or_else(|| format!("{name}: {key}: expected a number"))
            };
            let functions = case.get("functions").and_then(Value::as_table);
            let functions = functions.into_iter().flatten();
            let mut counted = Counted {
                instructions: number("instructions")?,
                allocations: number("allocations")?,
                functions: functions
                    .filter_map(|(function, value)| Some((function.clone(), self::number(value)?)))
                    .collect(),
            };
            counted.functions.sort_by(|(_, a), (_, b)| b.total_cmp(a));
            cases.push((name, counted));
        }
        Ok(Self(cases))
    }

    fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for (name, counted) in &self.0 {
            let _infallible = write!(
                text,
                "\n[{name}]\ninstructions = {:.0}\nallocations = {:.1}\n\n[{name}.functions]\n",
                counted.instructions, counted.allocations
            );
            for (function, instructions) in &counted.functions {
                if *instructions >= LEAST {
                    // A literal text: callgrind.rs has seen to it that no name has a single quote.
                    let _infallible = writeln!(text, "'{function}' = {instructions:.0}");
                }
            }
        }
        text
    }
}

fn number(value: &Value) -> Option<f64> {
    value
        .as_float()
        .or_else(|| value.as_integer().map(|n| n as f64))
}

/// Instructions a request of a function that is told of.
pub(super) const LEAST: f64 = 50.0;

const HEAD: &str = "\
# Instructions and allocations a request, counted by callgrind in the worker: written by `cargo xtask bench instructions --save`.
# They hold for one compiler, C library and kind of processor; save anew where these change.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut baseline = Baseline::default();
        let counted = |instructions| Counted {
            instructions,
            allocations: 3.5,
            functions: vec![
                (
                    "<castling::flow::Flow as core::future::Future>::poll".into(),
                    700.0,
                ),
                ("malloc".into(), 120.0),
            ],
        };
        baseline.set("plain", counted(900.0));
        baseline.set("one-plugin", counted(1000.0));
        baseline.set("plain", counted(950.0));
        let read = Baseline::parse(&baseline.text()).unwrap();
        assert_eq!(read.of("plain"), Some(&counted(950.0)));
        assert_eq!(read.of("one-plugin"), Some(&counted(1000.0)));
        assert_eq!(read.of("absent"), None);
    }

    #[test]
    fn a_case_without_numbers_is_an_error() {
        assert_eq!(
            Baseline::parse("[plain]\ninstructions = 1\n").unwrap_err(),
            "plain: allocations: expected a number"
        );
    }
}
