//! Variables from variables: by text, host, network, number, expression and share.
//!
//! README.md has the config.

mod index;
mod lines;
mod networks;
mod pairs;
mod ranges;
mod references;
mod split;
mod table;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::cell::RefCell;

use castling_sdk::expression::{Expression, Groups};
use castling_sdk::metrics::Gauge;
use castling_sdk::prelude::*;
use castling_sdk::template::Template;
use castling_sdk::variables;

use pairs::Pairs;
use split::{Share, Split};
use table::{Form, Found, Table};

/// The plugin's config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// At least one.
    maps: Vec<MapConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MapConfig {
    /// Name of the variable that the map makes.
    variable: String,
    /// Text that is looked up. Default `$host` where keys are hosts, `$client_address` where they are networks.
    source: Option<Template>,
    /// Kind of the keys, of `values` and of the file. Default `text`.
    #[serde(default)]
    keys: Keys,
    /// Whether the case of keys matters, where they are texts. Default `insensitive`.
    #[serde(default)]
    case: Case,
    /// Values by key. Default none.
    #[serde(default)]
    values: Pairs,
    /// A granted file with a key and a value a line; `values` come before it. Default none.
    file: Option<String>,
    /// The first that is found in the source counts, where no key is the source's. Default none.
    #[serde(default)]
    regexes: Vec<RegexConfig>,
    /// Shares of all sources, in the place of keys. Default none.
    #[serde(default)]
    split: Vec<Share>,
    /// Value where nothing else fits. Default: the variable has none.
    default: Option<Template>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegexConfig {
    /// Groups are variables of the value: `$1`, `$name`.
    regex: Expression,
    value: Template,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Keys {
    #[default]
    Text,
    /// Names of hosts, also `*.example.com`, `.example.com` and `www.example.*`.
    Hosts,
    /// Addresses, networks and ranges of addresses.
    Networks,
    /// Numbers, and ranges of them: `400..499`.
    Numbers,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Case {
    #[default]
    Insensitive,
    Sensitive,
}

/// The plugin.
pub struct Map {
    maps: Vec<Variable>,
}

/// A map, which is a variable.
struct Variable {
    name: String,
    source: Template,
    lookup: Lookup,
    default: Option<Template>,
}

enum Lookup {
    Tables(Box<Tables>),
    Split(Split),
}

struct Tables {
    /// Whether keys are hosts.
    are_hosts: bool,
    inline: Table,
    file: Option<files::Followed<Table>>,
}

#[plugin(variables = "declared")]
impl Map {
    fn configure(config: Config) -> Result<Self> {
        if config.maps.is_empty() {
            bail!("config.maps: expected at least one");
        }
        let entries = Gauge::max("entries", "Entries of the map's file.", ["map"])?;
        let maps = config.maps.into_iter().enumerate().map(|(idx, map)| {
            let built = Variable::new(map, entries);
            built.map_err(|error| error.context(format!("config.maps[{idx}]")))
        });
        let maps = maps.collect::<Result<Vec<_>>>()?;
        references::check(&maps)?;
        Ok(Self { maps })
    }

    fn variable(&self, request: &Request, name: &str) -> Option<Vec<u8>> {
        let idx = self.maps.iter().position(|map| map.name == name)?;
        let resolver = Resolver {
            maps: &self.maps,
            request,
            resolved: RefCell::new(vec![(idx, None)]),
        };
        resolver.value(idx)
    }
}

impl Variable {
    fn new(config: MapConfig, entries: Gauge<1>) -> Result<Self> {
        variables::declare(&config.variable)?;
        let source = match (config.source, config.keys) {
            (Some(source), _) => source,
            (None, Keys::Hosts) => "$host".parse()?,
            (None, Keys::Networks) => "$client_address".parse()?,
            (None, Keys::Text | Keys::Numbers) => bail!("source: expected what is looked up"),
        };
        let (name, form) = (config.variable, Form::new(config.keys, config.case));
        let has_table =
            !config.values.is_empty() || config.file.is_some() || !config.regexes.is_empty();
        let lookup = match (has_table, config.split.is_empty()) {
            (true, true) => Lookup::Tables(Box::new(Tables {
                are_hosts: config.keys == Keys::Hosts,
                inline: Table::of_pairs(config.values, config.regexes, form)?,
                file: config
                    .file
                    .map(|file| follow(&file, form, &name, entries))
                    .transpose()?,
            })),
            (false, false) => Lookup::Split(Split::new(config.split)?),
            _ => bail!("expected either `values`, `file` and `regexes`, or `split`"),
        };
        Ok(Self {
            name,
            source,
            lookup,
            default: config.default,
        })
    }
}

fn follow(file: &str, form: Form, map: &str, entries: Gauge<1>) -> Result<files::Followed<Table>> {
    let map = map.to_owned();
    let read = move |file: files::File| {
        let table = Table::of_file(file.read_text()?, form)?;
        entries.with([&*map]).set(table.len() as f64);
        Ok(table)
    };
    files::Followed::open(file, read).map_err(|error| error.context("file"))
}

/// Values of maps in one call of the hook. A map that another one names is looked up here: to ask the gateway would be to call this plugin from
/// within itself.
struct Resolver<'r> {
    maps: &'r [Variable],
    request: &'r Request,
    /// Maps that were looked up, with their values; `None` while they are.
    resolved: RefCell<Vec<(usize, Option<Vec<u8>>)>>,
}

impl Resolver<'_> {
    fn value(&self, idx: usize) -> Option<Vec<u8>> {
        let map = &self.maps[idx];
        let source = self.expand(&map.source, None);
        let source = String::from_utf8_lossy(&source);
        let found = match &map.lookup {
            Lookup::Split(split) => split
                .value(source.as_bytes())
                .map(|value| self.expand(value, None)),
            Lookup::Tables(tables) => self.in_tables(tables, &source),
        };
        found.or_else(|| {
            let default = map.default.as_ref()?;
            Some(self.expand(default, None))
        })
    }

    fn in_tables(&self, tables: &Tables, source: &str) -> Option<Vec<u8>> {
        let file = tables.file.as_ref().map(files::Followed::get);
        let (inline, file) = (&tables.inline, file.as_deref());
        let source = match tables.are_hosts {
            true => table::host_name(source).map(Cow::Owned),
            false => Some(Cow::Borrowed(source)),
        };
        let found = source.as_deref().and_then(|source| {
            inline
                .by_key(source)
                .or_else(|| file?.by_key(source))
                .or_else(|| inline.by_regex(source))
                .or_else(|| file?.by_regex(source))
        });
        let found = found.or_else(|| file?.default());
        found.map(|found| self.text(&found))
    }

    fn text(&self, found: &Found<'_>) -> Vec<u8> {
        match found {
            Found::Text(text) => text.as_bytes().to_vec(),
            Found::Template(template, groups) => self.expand(template, groups.as_ref()),
        }
    }

    fn expand(&self, template: &Template, groups: Option<&Groups<'_>>) -> Vec<u8> {
        template.expand_own(self.request, None, |name| {
            if let Some(group) = groups.and_then(|groups| groups.get(name)) {
                return Some(group.as_bytes().to_vec());
            }
            let idx = self.maps.iter().position(|map| map.name == name)?;
            Some(self.of_map(idx))
        })
    }

    /// Value of a map that another one names; empty where it has none.
    fn of_map(&self, idx: usize) -> Vec<u8> {
        let known = |resolved: &[(usize, Option<Vec<u8>>)]| {
            let mut resolved = resolved.iter();
            let (_, value) = resolved.find(|(it, _)| *it == idx)?;
            // A file that has come later may name a map that names its own.
            Some(value.clone().unwrap_or_default())
        };
        if let Some(value) = known(&self.resolved.borrow()) {
            return value;
        }
        self.resolved.borrow_mut().push((idx, None));
        let value = self.value(idx).unwrap_or_default();
        let mut resolved = self.resolved.borrow_mut();
        if let Some((_, known)) = resolved.iter_mut().find(|(it, _)| *it == idx) {
            *known = Some(value.clone());
        }
        value
    }
}
