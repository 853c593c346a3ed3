//! A TOML document with the place of every value, environment values put in.

use std::env::VarError;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where environment values come from; the process's environment outside tests.
pub(super) type Environment<'a> = dyn Fn(&str) -> Result<String, VarError> + 'a;

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
    /// The document's root table and everything that is wrong with it. What could be read is returned all the same.
    pub(super) fn parse(
        text: &str,
        environment: &Environment<'_>,
    ) -> (Self, Vec<toml::de::Error>, Refused) {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut reader = Reader {
            environment,
            refused: Vec::new(),
        };
        let span = root.span();
        let kind = NodeKind::Table(reader.entries(root.into_inner(), 0));
        (Self { span, kind }, errors, reader.refused)
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
    environment: &'a Environment<'a>,
    refused: Refused,
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
            DeValue::Table(entries) => match environment_reference(&entries) {
                Some((name, default)) => self.environment_text(name, default, span.start),
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
        let message = match ((self.environment)(name), default) {
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
}

/// Name and default, where the table is `{ from_env = "NAME" }` or `{ from_env = "NAME", default = "TEXT" }` and no
/// more.
fn environment_reference<'a>(entries: &'a DeTable<'_>) -> Option<(&'a str, Option<&'a str>)> {
    let name = entries.get("from_env")?.get_ref().as_str()?;
    match entries.get("default") {
        None if entries.len() == 1 => Some((name, None)),
        Some(default) if entries.len() == 2 => Some((name, Some(default.get_ref().as_str()?))),
        None | Some(_) => None,
    }
}

/// serde_json, which reads a plugin's config in the guest, stops at 128.
const MAX_DEPTH: usize = 64;
