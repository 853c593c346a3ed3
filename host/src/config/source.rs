//! The files of a config: reading and includes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, ConfigErrors};
use super::file::{MAX_BYTES, read_regular};
use super::place::{Place, SourceMap};
use super::table::{Table, Value};
use super::tree::{self, Environment, Node, Outside};

/// All files of one load, a file before those that it includes.
pub(super) struct Sources {
    map: SourceMap,
    /// Trees of the files, by the map's indices.
    documents: Vec<Document>,
    /// Indices by paths without links, to know a file that is met twice.
    by_path: BTreeMap<PathBuf, usize>,
    bytes_left: u64,
    complete: bool,
}

struct Document {
    root: Node,
    included_at: Option<Place>,
}

impl Sources {
    /// Reads `path` and what it includes. Fails only where `path` itself cannot be read; all else is kept for
    /// [`Self::into_errors`].
    pub(super) fn read(path: &Path, environment: &Environment<'_>) -> Result<Self, ConfigErrors> {
        let mut sources = Self {
            map: SourceMap::default(),
            documents: Vec::new(),
            by_path: BTreeMap::new(),
            bytes_left: MAX_BYTES,
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

    /// Texts of the files, which tell places and take errors.
    pub(super) fn map(&self) -> &SourceMap {
        &self.map
    }

    /// Errors in the order of the files.
    pub(super) fn into_errors(self) -> ConfigErrors {
        self.map.into_errors()
    }

    /// The top-level table of each file.
    pub(super) fn roots(&self) -> impl Iterator<Item = Table<'_>> {
        (0..self.documents.len()).map(|file_idx| self.root(file_idx))
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

        let (text, document) = match String::from_utf8(bytes) {
            Ok(text) => {
                let outside = Outside {
                    environment,
                    folder: Some(&folder),
                    limit_bytes: self.bytes_left,
                };
                let document = Node::parse(&text, outside);
                (text, document)
            }
            Err(error) => {
                self.complete = false;
                let offset = error.utf8_error().valid_up_to();
                let document = tree::Document {
                    root: Node::empty(),
                    syntax_errors: Vec::new(),
                    refused: vec![(offset, "not UTF-8".to_owned())],
                    secrets: Vec::new(),
                };
                // Text up to the bad byte is kept, to count its lines.
                let text = String::from_utf8_lossy(&error.as_bytes()[..offset]).into_owned();
                (text, document)
            }
        };
        let tree::Document {
            root,
            syntax_errors,
            refused,
            secrets,
        } = document;
        let secret_bytes: u64 = secrets.iter().map(|secret| secret.len() as u64).sum();
        self.bytes_left = self.bytes_left.saturating_sub(secret_bytes);
        self.map.hide(secrets);
        let file_idx = self.map.add(path, folder, text);
        self.by_path.insert(canonical, file_idx);
        self.documents.push(Document { root, included_at });
        self.complete &= syntax_errors.is_empty();
        syntax_errors
            .iter()
            .for_each(|error| self.refuse_syntax(file_idx, error));
        refused.iter().for_each(|(offset, message)| {
            let offset = *offset;
            self.map.refuse(Place { file_idx, offset }, message);
        });
        self.read_includes(file_idx, environment);
        Ok(())
    }

    /// Why a file may not be included there: it is below itself, was read before (all in it would be there twice), or
    /// is too deep.
    fn refused_include(&self, canonical: &Path, included_at: Option<Place>) -> Option<String> {
        let above: Vec<_> =
            std::iter::successors(included_at, |at| self.documents[at.file_idx].included_at)
                .collect();
        match self.by_path.get(canonical).copied() {
            Some(first) if above.iter().any(|at| at.file_idx == first) => {
                Some("includes itself".to_owned())
            }
            Some(first) => {
                let place = self.documents[first]
                    .included_at
                    .map(|at| self.map.place(at))
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
        let offset = error.span().map_or(0, |span| span.start);
        let at = Place { file_idx, offset };
        let first = (error.message() == "duplicate key")
            .then(|| self.map.first_of_duplicate(at))
            .flatten();
        let message = match first {
            Some(first) => format!("already defined at {}", self.map.place(first)),
            None => format!("TOML: {}", error.message()),
        };
        self.map.refuse(at, message);
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
                self.map
                    .refuse(at, format_args!("include {pattern:?}: {reason}"));
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
        Table::new(&self.map, file_idx, &self.documents[file_idx].root)
    }

    /// Files that match, sorted. A pattern with a wildcard may match nothing, a plain name must exist.
    fn matching_files(&self, file_idx: usize, pattern: &str) -> Result<Vec<PathBuf>, String> {
        let folder = self.map.name(file_idx).parent().unwrap_or(Path::new(""));
        if !pattern.contains(['*', '?', '[']) {
            return Ok(vec![folder.join(pattern)]);
        }
        let folder = folder.to_str().ok_or("the folder's name is not UTF-8")?;
        let whole = Path::new(&glob::Pattern::escape(folder)).join(pattern);
        // Shell rules: `*` crosses no `/` and matches no hidden file (what editors leave behind).
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

/// Size limit of one file: a peer takes some 30 bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Includes within one another; nginx sets no bound.
const MAX_INCLUDE_DEPTH: usize = 8;
