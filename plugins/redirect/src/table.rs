//! Redirects of a file, which is followed.

use std::ops::Range;

use castling_sdk::prelude::*;

use crate::{Target, check_status};

/// Lines of a granted file, sorted by their paths: a table of 100,000 takes little more memory than its file.
pub(crate) struct Table {
    status: u16,
    lines: files::Followed<Lines>,
}

struct Lines {
    text: String,
    /// Where each line's path is, and where the rest.
    sorted: Vec<(Range<u32>, Range<u32>)>,
}

impl Table {
    pub(crate) fn open(name: &str, status: u16) -> Result<Self> {
        let lines = files::Followed::open(name, |file| Lines::read(file.read_text()?));
        Ok(Self {
            status,
            lines: lines.map_err(|error| error.context("config.table"))?,
        })
    }

    pub(crate) fn target(&self, path: &str) -> Result<Option<Target>> {
        let lines = self.lines.get();
        let found = lines
            .sorted
            .binary_search_by(|(line, _)| lines.text(line).cmp(path));
        let Ok(idx) = found else {
            return Ok(None);
        };
        let (location, status) = parts(lines.text(&lines.sorted[idx].1));
        Ok(Some(Target {
            location: location.to_owned(),
            status: status.unwrap_or(Ok(self.status))?,
        }))
    }
}

impl Lines {
    fn read(text: String) -> Result<Self> {
        let mut sorted = Vec::new();
        for (number, line) in files::lines(&text) {
            let begin = line.as_ptr().addr() - text.as_ptr().addr();
            let Some((path, rest)) = line.split_once([' ', '\t']) else {
                bail!("line {number}: {RULE}");
            };
            let (location, other) = parts(rest);
            let is_status =
                other.is_none_or(|other| other.is_ok_and(|it| check_status(it).is_ok()));
            if !path.starts_with('/') || location.is_empty() || !is_status {
                bail!("line {number}: {RULE}");
            }
            let after = begin + path.len();
            sorted.push((range(begin, after), range(after, begin + line.len())));
        }
        // The first line of a path counts, so the sort is one that keeps the order.
        sorted.sort_by(|(one, _), (other, _)| slice(&text, one).cmp(slice(&text, other)));
        sorted.dedup_by(|(later, _), (first, _)| slice(&text, later) == slice(&text, first));
        Ok(Self { text, sorted })
    }

    fn text(&self, range: &Range<u32>) -> &str {
        slice(&self.text, range)
    }
}

const RULE: &str = "expected a path that begins with `/`, a target, and a status if it is another";

fn slice<'t>(text: &'t str, range: &Range<u32>) -> &'t str {
    &text[range.start as usize..range.end as usize]
}

fn range(start: usize, end: usize) -> Range<u32> {
    // Files are far smaller: they are read into the memory of the plugin.
    start as u32..end as u32
}

/// Target and status of what follows a path.
fn parts(rest: &str) -> (&str, Option<Result<u16>>) {
    let mut words = rest.split_whitespace();
    let location = words.next().unwrap_or_default();
    let status = words.next().map(|word| match (word.parse(), words.next()) {
        (Ok(status), None) => Ok(status),
        _ => bail!("{RULE}"),
    });
    (location, status)
}
