//! Names of the config in an exchange.

use std::sync::Arc;

/// A name of the config, or none. It is kept for the next request, which often has the same: to count a reference up and
/// down takes longer than to compare it.
#[derive(Debug, Default)]
pub struct CachedName {
    text: Option<Arc<str>>,
    is_set: bool,
}

impl CachedName {
    #[inline]
    pub fn set(&mut self, text: &Arc<str>) {
        let is_same = |kept: &Arc<str>| Arc::ptr_eq(kept, text);
        if !self.text.as_ref().is_some_and(is_same) {
            self.text = Some(Arc::clone(text));
        }
        self.is_set = true;
    }

    pub fn unset(&mut self) {
        self.is_set = false;
    }

    pub fn as_deref(&self) -> Option<&str> {
        self.text.as_deref().filter(|_| self.is_set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_unset_is_none() {
        let [one, other]: [Arc<str>; 2] = [Arc::from("one"), Arc::from("other")];
        let mut name = CachedName::default();
        assert_eq!(name.as_deref(), None);
        for text in [&one, &one, &other] {
            name.set(text);
            assert_eq!(name.as_deref(), Some(&**text));
            name.unset();
            assert_eq!(name.as_deref(), None);
        }
    }
}
