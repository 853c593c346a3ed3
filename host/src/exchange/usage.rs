//! Usage of an exchange by plugins: fields, variables and CPU time, each plugin's own.

use std::sync::Arc;
use std::time::Duration;

use castling_abi::rules::usage::Usage;

/// Usage of the exchange by each plugin, less what it has taken away. Few plugins add anything, so a walk beats a
/// hash.
#[derive(Debug, Default)]
pub struct PluginUsage(Vec<(PluginKey, [Usage; 3])>);

/// A plugin while the request lasts, which its worker outlives with all of its plugins: where its name is. To count references
/// of the name itself would be two atomic writes a request and plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PluginKey(usize);

impl PluginKey {
    /// The name must be the plugin's own: one that only reads the same is another's.
    pub fn of(plugin: &Arc<str>) -> Self {
        Self(Arc::as_ptr(plugin).addr())
    }
}

/// A part of the exchange that plugins add to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    RequestHead,
    ReplyHead,
    Variables,
}

impl PluginUsage {
    /// Usage of this section by a plugin.
    #[inline]
    pub fn of(&mut self, plugin: PluginKey, part: Section) -> &mut Usage {
        let known = self.0.iter().position(|(other, _)| *other == plugin);
        let idx = known.unwrap_or_else(|| self.begin(plugin));
        &mut self.0[idx].1[part as usize]
    }

    /// Whether the plugin has changed anything in this part.
    pub fn has_changed(&self, plugin: PluginKey, part: Section) -> bool {
        let mut all = self.0.iter();
        all.any(|(other, added)| *other == plugin && added[part as usize].changed)
    }

    fn begin(&mut self, plugin: PluginKey) -> usize {
        self.0.push((plugin, Default::default()));
        self.0.len() - 1
    }

    pub(super) fn forget(&mut self, part: Section) {
        for (_, added) in &mut self.0 {
            added[part as usize] = Usage::default();
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// CPU time that the hooks of each plugin have used for the request, as far as the worker's clock has met them.
#[derive(Debug, Default)]
pub struct CpuTime(Vec<(PluginKey, Duration)>);

impl CpuTime {
    /// Returns the plugin's sum.
    pub fn add(&mut self, plugin: PluginKey, used: Duration) -> Duration {
        if let Some((_, sum)) = self.0.iter_mut().find(|(other, _)| *other == plugin) {
            *sum += used;
            return *sum;
        }
        self.0.push((plugin, used));
        used
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use castling_abi::rules::usage::Size;

    use super::*;

    #[test]
    fn additions_are_each_plugins_own() {
        let names: [Arc<str>; 2] = [Arc::from("p"), Arc::from("p")];
        let [one, other] = names.each_ref().map(PluginKey::of);
        let mut usage = PluginUsage::default();
        let added = usage.of(one, Section::RequestHead);
        *added = added.after(Size::of(b"x-a", b"12"), Size::default());
        assert_eq!((added.count, added.bytes), (1, 5));
        assert_eq!(*usage.of(one, Section::ReplyHead), Usage::default());
        assert_eq!(*usage.of(other, Section::RequestHead), Usage::default());
        let added = usage.of(one, Section::RequestHead);
        *added = added.after(Size::of(b"x-a", b""), Size::of(b"x-a", b"12"));
        assert_eq!((added.count, added.bytes), (1, 3));
        assert!(usage.has_changed(one, Section::RequestHead));
        assert!(!usage.has_changed(other, Section::RequestHead));
        usage.forget(Section::RequestHead);
        assert_eq!(*usage.of(one, Section::RequestHead), Usage::default());
    }
}
