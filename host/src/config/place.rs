//! Places in the files of a config, and what was found wrong at them.

use std::cell::RefCell;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, ConfigErrors};
use super::secret_file;

/// Texts of all files of one load, and the errors in them so far.
#[derive(Default)]
pub(super) struct SourceMap {
    files: Vec<SourceFile>,
    /// Texts that no message shows.
    secrets: Vec<String>,
    errors: RefCell<Vec<(Place, String)>>,
}

/// A byte of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) file_idx: usize,
    pub(super) offset: usize,
}

struct SourceFile {
    /// Path for messages: as the operator, or the `include` that led here, wrote it.
    name: PathBuf,
    /// Absolute; relative paths in the file start from here.
    folder: PathBuf,
    text: String,
    /// Offset of each line's first byte.
    line_offsets: Vec<usize>,
    /// Characters before each multiple of [`STRIDE_BYTES`]: without them each place in a long line would take its
    /// length to tell.
    chars_before: Vec<usize>,
}

impl SourceMap {
    /// Takes up a file and returns its index. `folder` is absolute.
    pub(super) fn add(&mut self, name: &Path, folder: PathBuf, text: String) -> usize {
        let line_offsets = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(idx, _)| idx + 1))
            .collect();
        self.files.push(SourceFile {
            name: name.to_owned(),
            folder,
            chars_before: chars_before(&text),
            text,
            line_offsets,
        });
        self.files.len() - 1
    }

    /// Keeps texts out of all messages.
    pub(super) fn hide(&mut self, secrets: Vec<String>) {
        self.secrets.extend(secrets);
    }

    /// Errors in the order of the files.
    pub(super) fn into_errors(self) -> ConfigErrors {
        let mut errors = self.errors.take();
        errors.sort();
        errors.dedup();
        errors
            .into_iter()
            .map(|(at, message)| ConfigError {
                place: self.place(at),
                message: secret_file::hide(message, &self.secrets),
            })
            .collect()
    }

    /// Records an error.
    pub(super) fn refuse(&self, at: Place, message: impl Display) {
        self.errors.borrow_mut().push((at, message.to_string()));
    }

    /// `FILE:LINE:COLUMN`.
    pub(super) fn place(&self, at: Place) -> String {
        let file = &self.files[at.file_idx];
        let (line, column) = file.line_and_column(at.offset);
        format!("{}:{line}:{column}", file.name.display())
    }

    /// Text of the file from a place to a byte.
    pub(super) fn text(&self, at: Place, end: usize) -> &str {
        self.files[at.file_idx]
            .text
            .get(at.offset..end)
            .unwrap_or_default()
    }

    /// Path of the file, as messages name it.
    pub(super) fn name(&self, file_idx: usize) -> &Path {
        &self.files[file_idx].name
    }

    /// `path` from the folder of the file that it stands in. Absolute.
    pub(super) fn resolve_path(&self, at: Place, path: &str) -> PathBuf {
        // Collecting the components drops `.` between them.
        self.files[at.file_idx]
            .folder
            .join(path)
            .components()
            .collect()
    }

    /// First place of the key that is repeated at `second`. The parser tells only the second.
    pub(super) fn first_of_duplicate(&self, second: Place) -> Option<Place> {
        let file = &self.files[second.file_idx];
        Some(Place {
            offset: file.first_of_duplicate(second.offset)?,
            ..second
        })
    }
}

impl SourceFile {
    /// Line and column of the offset, from 1; columns in characters.
    fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let line = self.line_offsets.partition_point(|&start| start <= offset);
        let chars = self.chars_to(offset) - self.chars_to(self.line_offsets[line - 1]);
        (line, chars + 1)
    }

    /// Characters before the offset.
    fn chars_to(&self, offset: usize) -> usize {
        let offset = offset.min(self.text.len());
        let stride = offset / STRIDE_BYTES;
        let rest = &self.text.as_bytes()[stride * STRIDE_BYTES..offset];
        self.chars_before.get(stride).copied().unwrap_or_default() + count_chars(rest)
    }

    /// Offset of the first key that equals the one at `offset`.
    fn first_of_duplicate(&self, offset: usize) -> Option<usize> {
        let line_idx = self.line_offsets.partition_point(|&start| start <= offset) - 1;
        let repeated = self.line(line_idx);
        if let Some((header, _)) = repeated
            .split_once(']')
            .filter(|_| repeated.starts_with('['))
        {
            let first = (0..line_idx).find(|&idx| {
                self.line(idx)
                    .split_once(']')
                    .is_some_and(|(line, _)| line == header)
            })?;
            return Some(self.key_offset(first));
        }
        let key = |line: &str| {
            line.split_once('=')
                .map(|(key, _)| key.trim_end().to_owned())
        };
        let name = key(repeated)?;
        // A key of another table is another key.
        let same_table = (0..line_idx)
            .rev()
            .take_while(|&idx| !self.line(idx).starts_with('['));
        let first = same_table
            .filter(|&idx| key(self.line(idx)).as_ref() == Some(&name))
            .last()?;
        Some(self.key_offset(first))
    }

    fn line(&self, idx: usize) -> &str {
        self.text[self.line_offsets[idx]..]
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start()
    }

    fn key_offset(&self, line_idx: usize) -> usize {
        let line = &self.text[self.line_offsets[line_idx]..];
        self.line_offsets[line_idx] + (line.len() - line.trim_start().len())
    }
}

/// See [`SourceFile::chars_before`].
fn chars_before(text: &str) -> Vec<usize> {
    let mut before = vec![0];
    for stride in text.as_bytes().chunks(STRIDE_BYTES) {
        let so_far = before.last().copied().unwrap_or_default();
        before.push(so_far + count_chars(stride));
    }
    before
}

/// Every byte but those that go on with a character (RFC 3629 §3).
fn count_chars(utf8: &[u8]) -> usize {
    utf8.iter().filter(|&&byte| byte & 0xc0 != 0x80).count()
}

const STRIDE_BYTES: usize = 1024;
