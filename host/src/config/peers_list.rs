//! Lists of peers that are not in the config: a file's, TOML or JSON.

use std::env::VarError;
use std::path::Path;

use serde_json::Value as Json;

use super::error::{ConfigError, ConfigErrors};
use super::place::{Place, SourceMap};
use super::table::Table;
use super::tree::{Document, Entry, Node, NodeKind, Outside};
use super::{Peer, upstream};

/// Reads a list of peers: `peers = [...]` as in an upstream, or the same in JSON (`{ "peers": [...] }`). Peers are addresses:
/// names are for the config. `name`: what errors call it.
pub fn read_peers(name: &Path, text: &str) -> Result<Vec<Peer>, ConfigErrors> {
    let mut map = SourceMap::default();
    let folder = std::path::absolute(name).unwrap_or_else(|_| name.to_owned());
    let folder = folder.parent().unwrap_or(Path::new("/")).to_owned();
    let file_idx = map.add(name, folder, text.to_owned());
    let refuse = |offset, message: String| map.refuse(Place { file_idx, offset }, message);
    let root = match text.trim_start().starts_with('{') {
        true => match serde_json::from_str::<Json>(text) {
            Ok(json) => node(json, 0),
            Err(error) => {
                // serde_json has its own place.
                return Err(ConfigErrors::from(ConfigError {
                    place: format!("{}:{}:{}", name.display(), error.line(), error.column()),
                    message: format!("JSON: {error}"),
                }));
            }
        },
        false => {
            let outside = Outside {
                environment: &|_| Err(VarError::NotPresent),
                folder: None,
                limit_bytes: 0,
            };
            let Document {
                root,
                syntax_errors,
                refused,
                ..
            } = Node::parse(text, outside);
            for error in syntax_errors {
                let offset = error.span().map_or(0, |span| span.start);
                refuse(offset, format!("TOML: {}", error.message()));
            }
            refused
                .into_iter()
                .for_each(|(offset, message)| refuse(offset, message));
            root
        }
    };
    let mut table = Table::new(&map, file_idx, &root);
    let peers = table.required("peers", "a list of IP:PORT", upstream::peers);
    table.finish();
    for peer in peers.iter().flatten().filter(|peer| peer.is_name()) {
        let name = &peer.address;
        refuse(
            0,
            format!("peer {name}: expected an address; names are for `peers` of the upstream"),
        );
    }
    let errors = map.into_errors();
    match errors.is_empty() {
        true => Ok(peers.unwrap_or_default()),
        false => Err(errors),
    }
}

/// JSON as a tree whose values have no place of their own.
fn node(json: Json, depth: usize) -> Node {
    let kind = match json {
        _ if depth > MAX_DEPTH => NodeKind::Refused,
        Json::Null => NodeKind::Text("null".to_owned()),
        Json::Bool(boolean) => NodeKind::Boolean(boolean),
        Json::Number(number) => match number.as_i128() {
            Some(integer) => NodeKind::Integer(Some(integer)),
            None => NodeKind::Float(number.as_f64()),
        },
        Json::String(text) => NodeKind::Text(text),
        Json::Array(items) => NodeKind::List(
            items
                .into_iter()
                .map(|item| node(item, depth + 1))
                .collect(),
        ),
        Json::Object(entries) => {
            let entry = |(key, value)| Entry {
                key,
                offset: 0,
                value: node(value, depth + 1),
            };
            NodeKind::Table(entries.into_iter().map(entry).collect())
        }
    };
    Node { span: 0..0, kind }
}

/// Lists and tables within one another; peers are in a list in a table, and are tables.
const MAX_DEPTH: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, u16, bool)>, String> {
        let peers = read_peers(Path::new("/etc/peers.list"), text);
        let peers = peers.map_err(|errors| errors.to_string())?;
        let facts = |peer: Peer| (peer.address, peer.weight.get(), peer.backup);
        Ok(peers.into_iter().map(facts).collect())
    }

    #[test]
    fn toml_and_json_say_the_same() {
        let expected = vec![
            ("10.0.0.1:80".to_owned(), 1, false),
            ("10.0.0.2:80".to_owned(), 3, true),
        ];
        let toml =
            "peers = [\"10.0.0.1:80\",\n { address = \"10.0.0.2:80\", weight = 3, backup = true }]";
        assert_eq!(read(toml), Ok(expected.clone()));
        let json = r#"
            { "peers": ["10.0.0.1:80", { "address": "10.0.0.2:80", "weight": 3, "backup": true }] }
        "#;
        assert_eq!(read(json), Ok(expected));
    }

    #[test]
    fn errors_say_where() {
        for (text, said) in [
            ("peers = [\"10.0.0.1:80\"\n", "/etc/peers.list:"),
            ("peers = []", "/etc/peers.list:1:9: peers is empty"),
            ("peers = [\"10.0.0.1\"]", "/etc/peers.list:1:10: "),
            (
                "peers = [\"app.test:80\"]",
                "peer app.test:80: expected an address",
            ),
            ("pears = [\"10.0.0.1:80\"]", "/etc/peers.list:1:1: "),
            ("{\"peers\": [1, ]}", "/etc/peers.list:1:15: JSON: "),
            ("{\"peers\": [null]}", "/etc/peers.list:1:1: "),
            (
                "{\"peers\": [{\"from_env\": \"HOME\"}]}",
                "/etc/peers.list:1:1: ",
            ),
            ("peers = [{ from_env = \"HOME\" }]", "\"HOME\" is not set"),
            (
                "peers = [{ from_file = \"/etc/passwd\" }]",
                "/etc/peers.list:1:10: from_file: expected a text: only the config itself reads files",
            ),
            ("", "peers"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        let deep = format!("{{\"peers\": {}{}}}", "[".repeat(100), "]".repeat(100));
        assert!(read(&deep).is_err());
    }
}
