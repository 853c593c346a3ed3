//! Configs that a plugin runs with: its own, and those of listeners and routes.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::{Config, Plugin, PluginUse, Serves, UseConfig};

impl Config {
    /// Configs of listeners and routes for the plugin of this name, each once.
    pub fn configs_of_uses<'a>(&'a self, plugin: &'a str) -> Vec<&'a UseConfig> {
        let mut configs: Vec<&UseConfig> = Vec::new();
        for config in self.uses_of(plugin).filter_map(|one| one.config.as_ref()) {
            if configs.iter().all(|known| known.text != config.text) {
                configs.push(config);
            }
        }
        configs
    }

    /// Whether the plugin of this name runs with its own config. One that is listed with others alone need not have one that is good.
    pub fn uses_own_config(&self, plugin: &str) -> bool {
        let mut uses = self.uses_of(plugin).peekable();
        let is_policy = |upstream: &super::Upstream| matches!(&upstream.balance, super::Balance::Plugin(name) if name == plugin);
        uses.peek().is_none()
            || uses.any(|one| one.config.is_none())
            || self.upstreams.values().any(is_policy)
    }

    fn uses_of<'a>(&'a self, plugin: &'a str) -> impl Iterator<Item = &'a PluginUse> {
        let of_listeners = self.listeners.values().flat_map(|listener| {
            let Serves::Http(http) = &listener.serves;
            &http.plugins
        });
        let of_routes = self.routes.iter().flat_map(|route| &route.plugins);
        of_listeners
            .chain(of_routes)
            .filter(move |one| one.name == plugin)
    }
}

impl Plugin {
    /// Grants upstreams and zones that texts of its config are the names of, where its `grants` do not say which it has: for a plugin
    /// whose config has types for them.
    pub fn grant_named(&mut self, config: &Config) {
        // JSON by now, whatever the file is.
        let own: Json = serde_json::from_str(&self.config).unwrap_or_default();
        let mut names = BTreeSet::new();
        add_texts(&own, &mut names);
        let named = |is_there: &dyn Fn(&String) -> bool| {
            let there = names.iter().filter(|name| is_there(name));
            there.cloned().collect()
        };
        let grants = &mut self.grants;
        grants
            .upstreams
            .get_or_insert_with(|| named(&|name| config.upstreams.contains_key(name)));
        grants
            .zones
            .get_or_insert_with(|| named(&|name| config.zones.contains_key(name)));
    }

    /// This plugin with another config, whole.
    #[must_use]
    pub fn with_config(&self, config: &UseConfig) -> Self {
        Self {
            config: config.text.clone(),
            config_places: config.places.clone(),
            place: config.place.clone(),
            ..self.clone()
        }
    }
}

fn add_texts(value: &Json, texts: &mut BTreeSet<String>) {
    match value {
        Json::String(text) => {
            texts.insert(text.clone());
        }
        Json::Array(values) => values.iter().for_each(|value| add_texts(value, texts)),
        Json::Object(values) => values.values().for_each(|value| add_texts(value, texts)),
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}
