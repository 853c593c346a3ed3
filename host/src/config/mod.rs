//! The config: TOML files in, a checked [`Config`] out, or every error with its place.
//!
//! Reading goes in three steps: `source` reads the files, their includes and environment values into trees that keep
//! places; `table` reads checked values from a tree; `resolve` says which keys there are, with their defaults, and
//! builds the `model`. `place` tells where in the files something stands, and takes every error.

mod access_log;
mod acme;
mod acme_names;
mod cache;
mod certificate_facts;
mod client_certificates;
mod distinguished_name;
mod error;
mod file;
mod granted_file;
mod granted_hosts;
mod http2;
mod http_settings;
mod instances;
mod listener;
mod model;
mod names;
mod networks;
mod peers_list;
mod place;
mod plugin;
mod plugin_pools;
mod privileges;
mod redaction;
mod resolve;
mod route;
mod route_match;
mod route_proxy;
mod secret_file;
mod sections;
mod socket_path;
mod source;
mod statuses;
mod suggest;
mod table;
mod tcp_keepalive;
#[cfg(test)]
mod tests;
mod tls;
mod tls_warnings;
mod tree;
mod units;
mod upstream;
mod variables;
mod zone_store;

use std::path::{Path, PathBuf};

pub use certificate_facts::Validity;
pub use distinguished_name::{add_escaped, distinguished_name};
pub use error::ConfigErrors;
pub use file::{open_private, read_regular};
pub use instances::{RESERVES, all_instances, instances_warning};
pub use model::*;
pub use peers_list::read_peers;
pub use plugin::config_place;
pub use redaction::without_values;
pub use tls::{names_of_chain, private_key};
pub use tls_warnings::{expiry_warning, tls_warnings};
pub use upstream::is_of_a_host;
pub use variables::{TemplatePart, template_parts};

use source::Sources;
use tree::Environment;

/// Reads and checks the config in `path` and the files that it includes. Paths in it are relative to the file that they
/// stand in. On failure everything that can be found is reported at once.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    load_with(path, &|name| std::env::var(name))
}

/// Path of the control socket, as well as it can be told from a config that may be broken otherwise: commands must
/// reach a running master through it. Fails where `path` cannot be read.
pub fn control_socket(path: &Path) -> Result<PathBuf, ConfigErrors> {
    let sources = Sources::read(path, &|name| std::env::var(name))?;
    Ok(resolve::control_socket(&sources))
}

fn load_with(path: &Path, environment: &Environment<'_>) -> Result<Config, ConfigErrors> {
    let sources = Sources::read(path, environment)?;
    // Good references to a file that is missing would look unknown.
    let config = sources.is_complete().then(|| resolve::resolve(&sources));
    match (config, sources.into_errors()) {
        (Some(config), errors) if errors.is_empty() => Ok(config),
        (Some(_) | None, errors) => Err(errors),
    }
}
