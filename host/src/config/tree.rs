//! A TOML document with the place of every value, texts of the environment and of files put in.

use std::env::VarError;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::secret_file;

/// Where environment values come from; the process's environment outside tests.
pub(super) type Environment<'a> = dyn Fn(&str) -> Result<String, VarError> + 'a;

/// What texts may come from beside the document.
#[derive(Clone, Copy)]
pub(super) struct Outside<'a> {
    pub(super) environment: &'a Environment<'a>,
    /// Folder that paths of files start from. `None`: no file is read.
    pub(super) folder: Option<&'a Path>,
    /// Bytes that the files may have in all.
    pub(super) limit_bytes: u64,
}

/// A document as it was read; what could not be is told beside it.
pub(super) struct Document {
    pub(super) root: Node,
    pub(super) syntax_errors: Vec<toml::de::Error>,
    pub(super) refused: Refused,
    /// Texts of files.
    pub(super) secrets: Vec<String>,
}

/// A value and the bytes of the file that it was written in (of a `[table]`, its header).
pub(super) struct Node {
    pub(super) span: Range<usize>,
    pub(super) kind: NodeKind,
}

pub(super) enum NodeKind {
    Text(String),
    /// `None`: too large for any number that we know.
    Integer(Option<i128>),
    Float(Option<f64>),
    Boolean(bool),
    /// Text as it was written.
    Datetime(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
    /// Value whose error was recorded already.
    Refused,
}

/// A key of a table, with its value.
pub(super) struct Entry {
    pub(super) key: String,
    /// Offset of the key.
    pub(super) offset: usize,
    pub(super) value: Node,
}

/// Refused values: offset and reason of each.
pub(super) type Refused = Vec<(usize, String)>;

impl Node {
    /// The document and everything that is wrong with it. What could be read is returned all the same.
    pub(super) fn parse(text: &str, outside: Outside<'_>) -> Document {
        let (root, syntax_errors) = DeTable::parse_recoverable(text);
        let mut reader = Reader {
            outside,
            refused: Vec::new(),
            secrets: Vec::new(),
        };
        let span = root.span();
        let kind = NodeKind::Table(reader.entries(root.into_inner(), 0));
        Document {
            root: Self { span, kind },
            syntax_errors,
            refused: reader.refused,
            secrets: reader.secrets,
        }
    }

    /// A document without anything in it.
    pub(super) fn empty() -> Self {
        Self {
            span: 0..0,
            kind: NodeKind::Table(Vec::new()),
        }
    }

    /// The entries of a table, in the order of the file; none where it is something else.
    pub(super) fn entries(&self) -> &[Entry] {
        let NodeKind::Table(entries) = &self.kind else {
            return &[];
        };
        entries
    }
}

struct Reader<'a> {
    outside: Outside<'a>,
    refused: Refused,
    secrets: Vec<String>,
}

impl Reader<'_> {
    fn node(&mut self, value: Spanned<DeValue<'_>>, depth: usize) -> Node {
        let span = value.span();
        let kind = match value.into_inner() {
            DeValue::String(text) => NodeKind::Text(text.into_owned()),
            DeValue::Integer(integer) => {
                NodeKind::Integer(i128::from_str_radix(integer.as_str(), integer.radix()).ok())
            }
            DeValue::Float(float) => NodeKind::Float(float.as_str().parse().ok()),
            DeValue::Boolean(boolean) => NodeKind::Boolean(boolean),
            DeValue::Datetime(datetime) => NodeKind::Datetime(datetime.to_string()),
            DeValue::Array(_) | DeValue::Table(_) if depth == MAX_DEPTH => {
                let message = format!(
                    "nested too deep: expected at most {MAX_DEPTH} tables and lists within one another"
                );
                self.refused.push((span.start, message));
                NodeKind::Refused
            }
            DeValue::Array(items) => NodeKind::List(
                items
                    .into_iter()
                    .map(|item| self.node(item, depth + 1))
                    .collect(),
            ),
            DeValue::Table(entries) => match reference(&entries) {
                Some(Reference::Environment(name, default)) => {
                    self.environment_text(name, default, span.start)
                }
                Some(Reference::File(path)) => self.file_text(path, span.start),
                None => NodeKind::Table(self.entries(entries, depth + 1)),
            },
        };
        Node { span, kind }
    }

    fn entries(&mut self, table: DeTable<'_>, depth: usize) -> Vec<Entry> {
        let entry = |(key, value): (Spanned<_>, _)| {
            let offset = key.span().start;
            let key: std::borrow::Cow<'_, str> = key.into_inner();
            Entry {
                key: key.into_owned(),
                offset,
                value: self.node(value, depth),
            }
        };
        let mut entries: Vec<_> = table.into_iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.offset);
        entries
    }

    fn environment_text(&mut self, name: &str, default: Option<&str>, offset: usize) -> NodeKind {
        let message = match ((self.outside.environment)(name), default) {
            (Ok(text), _) => return NodeKind::Text(text),
            (Err(VarError::NotPresent), Some(default)) => {
                return NodeKind::Text(default.to_owned());
            }
            (Err(VarError::NotPresent), None) => {
                format!("environment variable {name:?} is not set, and there is no default")
            }
            (Err(VarError::NotUnicode(_)), _) => {
                format!("environment variable {name:?} is not UTF-8")
            }
        };
        self.refused.push((offset, message));
        NodeKind::Refused
    }

    fn file_text(&mut self, path: &str, offset: usize) -> NodeKind {
        let limit_bytes = self.outside.limit_bytes;
        let text = match self.outside.folder {
            Some(folder) => secret_file::read(&folder.join(path), limit_bytes),
            None => {
                Err("from_file: expected a text: only the config itself reads files".to_owned())
            }
        };
        match text {
            Ok(text) => {
                self.outside.limit_bytes -= (text.len() as u64).min(limit_bytes);
                self.secrets.push(text.clone());
                NodeKind::Text(text)
            }
            Err(message) => {
                self.refused.push((offset, message));
                NodeKind::Refused
            }
        }
    }
}

/// Source of a text that stands elsewhere.
enum Reference<'a> {
    /// Name and default.
    Environment(&'a str, Option<&'a str>),
    /// Path.
    File(&'a str),
}

/// A table that is `{ from_env = "NAME" }`, `{ from_env = "NAME", default = "TEXT" }` or `{ from_file = "PATH" }` and no
/// more.
fn reference<'a>(entries: &'a DeTable<'_>) -> Option<Reference<'a>> {
    let text = |key: &str| entries.get(key)?.get_ref().as_str();
    if let Some(path) = text("from_file").filter(|_| entries.len() == 1) {
        return Some(Reference::File(path));
    }
    let name = text("from_env")?;
    match entries.get("default") {
        None if entries.len() == 1 => Some(Reference::Environment(name, None)),
        Some(default) if entries.len() == 2 => Some(Reference::Environment(
            name,
            Some(default.get_ref().as_str()?),
        )),
        None | Some(_) => None,
    }
}

/// serde_json, which reads a plugin's config in the guest, stops at 128.
const MAX_DEPTH: usize = 64;
