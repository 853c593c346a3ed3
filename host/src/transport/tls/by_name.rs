//! Things by the names of servers: exact ones, and `*.example.com` for one label more than `example.com`.

use std::borrow::Cow;
use std::collections::HashMap;

pub(super) struct ByName<T> {
    exact: HashMap<String, T>,
    /// By what follows the star and its dot.
    wildcards: HashMap<String, T>,
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            wildcards: HashMap::new(),
        }
    }
}

impl<T> ByName<T> {
    /// Thing of this name, which is in lower case; a new one where there is none.
    pub(super) fn entry(&mut self, name: &str) -> &mut T
    where
        T: Default,
    {
        let (map, name) = match name.strip_prefix("*.") {
            Some(parent) => (&mut self.wildcards, parent),
            None => (&mut self.exact, name),
        };
        map.entry(name.to_owned()).or_default()
    }

    /// Finds by a name in any case: the exact one before the wildcard.
    pub(super) fn get(&self, name: &str) -> Option<&T> {
        let name = match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(name.to_ascii_lowercase()),
            false => Cow::Borrowed(name),
        };
        let exact = self.exact.get(&*name);
        exact.or_else(|| self.wildcards.get(name.split_once('.')?.1))
    }

    pub(super) fn len(&self) -> usize {
        self.exact.len() + self.wildcards.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_name_comes_before_a_wildcard_which_is_one_label() {
        let mut names = ByName::default();
        for name in ["a.test", "*.a.test", "b.a.test"] {
            *names.entry(name) = name;
        }
        assert_eq!(names.get("A.test"), Some(&"a.test"));
        assert_eq!(names.get("b.a.test"), Some(&"b.a.test"));
        assert_eq!(names.get("c.a.test"), Some(&"*.a.test"));
        for unknown in ["d.c.a.test", "test", "", "*.test", ".a.test.", "x"] {
            assert_eq!(names.get(unknown), None, "{unknown}");
        }
        assert_eq!(names.len(), 3);
    }
}
