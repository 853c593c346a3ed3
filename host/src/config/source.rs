//! The files of a config: reading, includes, and places in them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, ConfigErrors};
use super::file::read_regular;
use super::table::{Table, Value};
use super::tree::{Environment, Node};

/// All files of one load, a file before those that it includes, and what was found wrong in them so far.
pub(super) struct Sources {
    files: Vec<SourceFile>,
    /// By their paths without links, to know a file that is met twice.
    by_path: BTreeMap<PathBuf, usize>,
    bytes_left: u64,
    errors: RefCell<Vec<(Place, String)>>,
    complete: bool,
}

/// A byte of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) file_idx: usize,
    pub(super) offset: usize,
}

struct SourceFile {
    /// As messages name it: as the operator, or the `include` that led here, wrote it.
    name: PathBuf,
    /// Absolute; what relative paths in the file start from.
    folder: PathBuf,
    text: String,
    /// Where each line begins.
    line_offsets: Vec<usize>,
    /// Characters before each multiple of [`STRIDE_BYTES`]: in a long line, places would take its length to tell, each.
    chars_before: Vec<usize>,
    root: Node,
    included_at: Option<Place>,
}

impl Sources {
    /// Reads `path` and what it includes. Fails only where `path` itself cannot be read; all else is kept for
    /// [`Self::into_errors`].
    pub(super) fn read(path: &Path, environment: &Environment<'_>) -> Result<Self, ConfigErrors> {
        let mut sources = Self {
            files: Vec::new(),
            by_path: BTreeMap::new(),
            bytes_left: MAX_BYTES,
            errors: RefCell::default(),
            complete: true,
        };
        match sources.read_file(path, None, environment) {
            Ok(()) => Ok(sources),
            Err(message) => Err(ConfigError {
                place: path.display().to_string(),
                message,
            }
            .into()),
        }
    }

    /// Every file was read and is TOML. In a part of a config good references would look unknown.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// What was refused, in the order of the files.
    pub(super) fn into_errors(self) -> ConfigErrors {
        let mut errors = self.errors.take();
        errors.sort();
        errors.dedup();
        errors
            .into_iter()
            .map(|(at, message)| ConfigError {
                place: self.place(at),
                message,
            })
            .collect()
    }

    /// Records an error.
    pub(super) fn refuse(&self, at: Place, message: impl Display) {
        self.errors.borrow_mut().push((at, message.to_string()));
    }

    /// The top-level table of each file.
    pub(super) fn roots(&self) -> impl Iterator<Item = Table<'_>> {
        (0..self.files.len()).map(|file_idx| self.root(file_idx))
    }

    /// `FILE:LINE:COLUMN`.
    pub(super) fn place(&self, at: Place) -> String {
        let file = &self.files[at.file_idx];
        let (line, column) = file.line_and_column(at.offset);
        format!("{}:{line}:{column}", file.name.display())
    }

    /// What stands in the file between two bytes.
    pub(super) fn text(&self, at: Place, end: usize) -> &str {
        self.files[at.file_idx]
            .text
            .get(at.offset..end)
            .unwrap_or_default()
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

    /// `Err` says why the file cannot be read. What is wrong in it is recorded.
    fn read_file(
        &mut self,
        path: &Path,
        included_at: Option<Place>,
        environment: &Environment<'_>,
    ) -> Result<(), String> {
        let unreadable = |error: io::Error| format!("cannot be read: {error}");
        let canonical = fs::canonicalize(path).map_err(unreadable)?;
        if let Some(message) = self.refused_include(&canonical, included_at) {
            return Err(message);
        }
        let limit_bytes = self.bytes_left.min(MAX_FILE_BYTES);
        let bytes = read_regular(path, limit_bytes).map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => format!(
                "is too large: expected at most {} MiB in one file and {} MiB in all",
                MAX_FILE_BYTES >> 20,
                MAX_BYTES >> 20
            ),
            _ => unreadable(error),
        })?;
        self.bytes_left -= bytes.len() as u64;
        let folder = std::path::absolute(path)
            .map_err(unreadable)?
            .parent()
            .unwrap_or(Path::new("/"))
            .to_owned();

        let (text, (root, syntax_errors, refused)) = match String::from_utf8(bytes) {
            Ok(text) => {
                let document = Node::parse(&text, environment);
                (text, document)
            }
            Err(error) => {
                self.complete = false;
                let offset = error.utf8_error().valid_up_to();
                let refused = vec![(offset, "not UTF-8".to_owned())];
                // Of such a file we keep only the text up to there, to count its lines.
                (
                    String::from_utf8_lossy(&error.as_bytes()[..offset]).into_owned(),
                    (Node::empty(), Vec::new(), refused),
                )
            }
        };
        let file_idx = self.files.len();
        let line_offsets = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(idx, _)| idx + 1))
            .collect();
        self.by_path.insert(canonical, file_idx);
        self.files.push(SourceFile {
            name: path.to_owned(),
            folder,
            chars_before: chars_before(&text),
            text,
            line_offsets,
            root,
            included_at,
        });
        self.complete &= syntax_errors.is_empty();
        syntax_errors
            .iter()
            .for_each(|error| self.refuse_syntax(file_idx, error));
        refused.iter().for_each(|(offset, message)| {
            self.refuse(
                Place {
                    file_idx,
                    offset: *offset,
                },
                message,
            )
        });
        self.read_includes(file_idx, environment);
        Ok(())
    }

    /// Why a file may not be included there: it is below itself, was read before (all in it would be there twice), or
    /// is too deep.
    fn refused_include(&self, canonical: &Path, included_at: Option<Place>) -> Option<String> {
        let above: Vec<_> =
            std::iter::successors(included_at, |at| self.files[at.file_idx].included_at).collect();
        match self.by_path.get(canonical).copied() {
            Some(first) if above.iter().any(|at| at.file_idx == first) => {
                Some("includes itself".to_owned())
            }
            Some(first) => {
                let place = self.files[first]
                    .included_at
                    .map(|at| self.place(at))
                    .unwrap_or_default();
                Some(format!("is already included at {place}"))
            }
            None if above.len() > MAX_INCLUDE_DEPTH => Some(format!(
                "is nested too deep: expected at most {MAX_INCLUDE_DEPTH} includes within one another"
            )),
            None => None,
        }
    }

    fn refuse_syntax(&self, file_idx: usize, error: &toml::de::Error) {
        let file = &self.files[file_idx];
        let offset = error.span().map_or(0, |span| span.start);
        let first = (error.message() == "duplicate key")
            .then(|| file.first_of_duplicate(offset))
            .flatten();
        let message = match first {
            Some(first) => format!(
                "already defined at {}",
                self.place(Place {
                    file_idx,
                    offset: first
                })
            ),
            None => format!("TOML: {}", error.message()),
        };
        self.refuse(Place { file_idx, offset }, message);
    }

    fn read_includes(&mut self, file_idx: usize, environment: &Environment<'_>) {
        let pattern = |value: Value<'_>| {
            value
                .text()
                .map(|pattern| (value.place(), pattern.to_owned()))
        };
        let patterns = self
            .root(file_idx)
            .or("include", Vec::new(), |value| value.list(pattern));
        for (at, pattern) in patterns {
            let failures = match self.matching_files(file_idx, &pattern) {
                Ok(paths) => paths
                    .iter()
                    .filter_map(|path| self.read_include(path, at, environment).err())
                    .collect(),
                Err(reason) => vec![reason],
            };
            for reason in failures {
                self.complete = false;
                self.refuse(at, format_args!("include {pattern:?}: {reason}"));
            }
        }
    }

    fn read_include(
        &mut self,
        path: &Path,
        at: Place,
        environment: &Environment<'_>,
    ) -> Result<(), String> {
        self.read_file(path, Some(at), environment)
            .map_err(|reason| format!("{} {reason}", path.display()))
    }

    fn root(&self, file_idx: usize) -> Table<'_> {
        Table::new(self, file_idx, &self.files[file_idx].root)
    }

    /// Sorted. A pattern with a wildcard may match nothing, a plain name must exist.
    fn matching_files(&self, file_idx: usize, pattern: &str) -> Result<Vec<PathBuf>, String> {
        let folder = self.files[file_idx].name.parent().unwrap_or(Path::new(""));
        if !pattern.contains(['*', '?', '[']) {
            return Ok(vec![folder.join(pattern)]);
        }
        let folder = folder.to_str().ok_or("the folder's name is not UTF-8")?;
        let whole = Path::new(&glob::Pattern::escape(folder)).join(pattern);
        // As a shell does: `*` crosses no `/` and matches no hidden file (what editors leave behind).
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let paths = glob::glob_with(whole.to_str().unwrap_or(pattern), options)
            .map_err(|error| format!("not a pattern: {}", error.msg))?;
        let mut paths = paths
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| error.to_string())?;
        paths.sort();
        Ok(paths)
    }
}

impl SourceFile {
    /// From 1, columns in characters.
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

    /// Where the key that is repeated at `offset` stands first. The parser tells only the second place.
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

/// Of one file: a peer takes some 30 bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Of all files of a config.
const MAX_BYTES: u64 = 64 << 20;

/// Includes within one another; nginx sets no bound.
const MAX_INCLUDE_DEPTH: usize = 8;
