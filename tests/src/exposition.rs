//! A strict reader of Prometheus' text format, version 0.0.4: it panics at whatever a scraper might refuse.

use std::collections::{BTreeMap, BTreeSet};

/// Everything that was exposed.
#[derive(Debug, PartialEq)]
pub struct Exposition {
    samples: BTreeMap<Series, f64>,
    types: BTreeMap<String, String>,
}

/// Name and labels.
type Series = (String, BTreeMap<String, String>);

impl Exposition {
    /// Reads a text. Panics with the line that is not right.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let (mut samples, mut types) = (BTreeMap::new(), BTreeMap::new());
        let mut helped = BTreeSet::new();
        let mut current = String::new();
        assert!(
            text.is_empty() || text.ends_with('\n'),
            "the last line ends"
        );
        for line in text.lines() {
            assert!(!line.contains(char::is_control), "{line:?}");
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, _) = rest.split_once(' ').unwrap_or((rest, ""));
                assert!(is_name(name), "{line:?}");
                assert!(helped.insert(name.to_owned()), "helped twice: {line:?}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect(line);
                assert!(
                    matches!(kind, "counter" | "gauge" | "histogram"),
                    "{line:?}"
                );
                let before = types.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "typed twice, or not in one group: {line:?}");
                name.clone_into(&mut current);
            } else {
                let (series, value) = sample(line);
                let family = match types.get(&current).map(String::as_str) {
                    Some("histogram") => ["_bucket", "_sum", "_count"]
                        .iter()
                        .any(|suffix| series.0 == format!("{current}{suffix}")),
                    Some(_) => series.0 == current,
                    None => false,
                };
                assert!(family, "not of the type before it, {current}: {line:?}");
                let before = samples.insert(series, value);
                assert_eq!(before, None, "twice: {line:?}");
            }
        }
        let exposition = Self { samples, types };
        exposition.check_histograms();
        exposition
    }

    /// The value of the one series of this name with exactly these labels.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let labels = labels.iter().map(owned).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    /// The sum of all series of this name that have these labels among others.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|(_, value)| value).sum()
    }

    /// How many series of this name there are with these labels among others.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> usize {
        self.matching(name, labels).count()
    }

    /// All of it but the series that `of_no_interest` names.
    #[must_use]
    pub fn without(
        mut self,
        of_no_interest: impl Fn(&str, &BTreeMap<String, String>) -> bool,
    ) -> Self {
        self.samples
            .retain(|(name, labels), _| !of_no_interest(name, labels));
        self
    }

    fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = (&'a BTreeMap<String, String>, f64)> {
        let fits = move |found: &BTreeMap<String, String>| {
            labels
                .iter()
                .all(|(label, value)| found.get(*label).is_some_and(|found| found == value))
        };
        self.samples
            .iter()
            .filter(move |((found, labels), _)| found == name && fits(labels))
            .map(|((_, labels), value)| (labels, *value))
    }

    /// Buckets do not shrink upwards, and the infinite one is the count.
    fn check_histograms(&self) {
        let histograms = self.types.iter().filter(|(_, kind)| *kind == "histogram");
        for (name, _) in histograms {
            let mut buckets: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
            for (labels, value) in self.matching(&format!("{name}_bucket"), &[]) {
                let mut labels = labels.clone();
                let le = labels.remove("le").expect("every bucket has `le`");
                buckets
                    .entry(labels)
                    .or_default()
                    .push((number(&le), value));
            }
            for (labels, mut buckets) in buckets {
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{name} {labels:?}");
                let last = buckets.last().expect("has one");
                let count = self.samples.get(&(format!("{name}_count"), labels.clone()));
                assert_eq!((last.0, Some(&last.1)), (f64::INFINITY, count), "{name}");
                let sum = self.samples.get(&(format!("{name}_sum"), labels));
                assert!(sum.is_some(), "{name}");
            }
        }
    }
}

fn sample(line: &str) -> (Series, f64) {
    let name_end = line.find(['{', ' ']).expect(line);
    let (name, mut rest) = line.split_at(name_end);
    assert!(is_name(name), "{line:?}");
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").expect(line);
            assert!(is_name(label) && !label.contains(':'), "{line:?}");
            let (value, after) = quoted(after).expect(line);
            assert_eq!(labels.insert(label.to_owned(), value), None, "{line:?}");
            match after.split_at_checked(1) {
                Some((",", more)) => rest = more,
                Some(("}", more)) => {
                    rest = more;
                    break;
                }
                _ => panic!("{line:?}"),
            }
        }
    }
    let value = rest.strip_prefix(' ').expect(line);
    ((name.to_owned(), labels), number(value))
}

/// The text up to the closing quote, and what is after that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    loop {
        match chars.next()? {
            (at, '"') => return Some((value, &text[at + 1..])),
            (_, '\\') => value.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            (_, c) => value.push(c),
        }
    }
}

#[track_caller]
fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        // Rust reads words too.
        digits if !digits.contains(char::is_alphabetic) || digits.contains('e') => {
            digits.parse().expect("a number")
        }
        other => panic!("{other:?} is no number"),
    }
}

fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    !name.is_empty() && name.chars().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit())
}
