//! State that plugins keep for an exchange, from one hook to the next.

use super::PluginKey;

/// Bytes of each plugin that keeps some. Few do, so a walk beats a hash.
#[derive(Debug, Default)]
pub struct PluginStates(Vec<(PluginKey, Vec<u8>)>);

impl PluginStates {
    /// `None`: the plugin keeps nothing.
    #[inline]
    pub fn of(&self, plugin: PluginKey) -> Option<&[u8]> {
        let mut all = self.0.iter();
        let (_, state) = all.find(|(other, _)| *other == plugin)?;
        Some(state)
    }

    /// Keeps these bytes in the place of the plugin's others. No more memory is taken than they need, and that for a request alone: a
    /// worker has thousands of requests that wait for something.
    pub fn keep(&mut self, plugin: PluginKey, state: &[u8]) {
        match self.0.iter_mut().find(|(other, _)| *other == plugin) {
            Some((_, kept)) => {
                kept.clear();
                if kept.capacity() > 2 * state.len() {
                    kept.shrink_to(state.len());
                }
                kept.reserve_exact(state.len());
                kept.extend_from_slice(state);
            }
            None => self.0.push((plugin, state.to_vec())),
        }
    }

    #[cold]
    pub fn forget(&mut self, plugin: PluginKey) {
        self.0.retain(|(other, _)| *other != plugin);
    }

    #[inline]
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn each_plugin_has_its_own() {
        let names: [Arc<str>; 2] = [Arc::from("p"), Arc::from("p")];
        let [one, other] = names.each_ref().map(PluginKey::of);
        let mut states = PluginStates::default();
        assert_eq!(states.of(one), None);
        states.keep(one, &[1; 1000]);
        states.keep(other, b"");
        states.keep(one, b"short");
        assert_eq!(states.of(one), Some(&b"short"[..]));
        assert!(states.0[0].1.capacity() < 1000);
        assert_eq!(states.of(other), Some(&b""[..]));
        states.forget(one);
        assert_eq!(states.of(one), None);
        states.clear();
        assert_eq!(states.of(other), None);
    }
}
