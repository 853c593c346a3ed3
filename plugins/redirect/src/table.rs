//! Redirects of a file, which is followed.

use std::cell::RefCell;
use std::ops::Range;

use castling_sdk::prelude::*;

use crate::{Target, check_status};

/// Lines of a granted file, sorted by their paths: a table of 100,000 takes little more memory than its file.
pub(crate) struct Table {
    file: files::File,
    status: u16,
    lines: RefCell<Lines>,
}

#[derive(Default)]
struct Lines {
    /// Version of the file.
    version: u64,
    text: String,
    /// Where each line's path is, and where the rest.
    sorted: Vec<(Range<u32>, Range<u32>)>,
}

impl Table {
    pub(crate) fn open(name: &str, status: u16) -> Result<Self> {
        let file = files::open(name)?;
        let lines = Lines::read(file).map_err(|error| error.context("config.table"))?;
        Ok(Self {
            file,
            status,
            lines: RefCell::new(lines),
        })
    }

    pub(crate) fn target(&self, path: &str) -> Result<Option<Target>> {
        self.follow();
        let lines = self.lines.borrow();
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

    /// Reads the file again when it is another. One that is wrong is told, once, and what was there before stays.
    fn follow(&self) {
        let version = self.file.version();
        if self.lines.borrow().version == version {
            return;
        }
        match Lines::read(self.file) {
            Ok(read) => *self.lines.borrow_mut() = read,
            Err(error) => {
                log::error!("the table is not used as it is now: {error}");
                self.lines.borrow_mut().version = version;
            }
        }
    }
}

impl Lines {
    fn read(file: files::File) -> Result<Self> {
        let version = file.version();
        let Ok(text) = String::from_utf8(file.read()?) else {
            bail!("expected UTF-8");
        };
        let mut sorted = Vec::new();
        let mut start = 0;
        for (number, line) in text.split('\n').enumerate() {
            let here = start;
            start += line.len() + 1;
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let begin = here + (line.len() - line.trim_start().len());
            let Some((path, rest)) = trimmed.split_once([' ', '\t']) else {
                bail!("line {}: {RULE}", number + 1);
            };
            let (location, other) = parts(rest);
            let is_status =
                other.is_none_or(|other| other.is_ok_and(|it| check_status(it).is_ok()));
            if !path.starts_with('/') || location.is_empty() || !is_status {
                bail!("line {}: {RULE}", number + 1);
            }
            let after = begin + path.len();
            sorted.push((range(begin, after), range(after, begin + trimmed.len())));
        }
        // The first line of a path counts, so the sort is one that keeps the order.
        sorted.sort_by(|(one, _), (other, _)| slice(&text, one).cmp(slice(&text, other)));
        sorted.dedup_by(|(later, _), (first, _)| slice(&text, later) == slice(&text, first));
        Ok(Self {
            version,
            text,
            sorted,
        })
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
