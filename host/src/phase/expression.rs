//! Regular expressions of routes, and the variables that their groups become.

use std::cell::RefCell;

use regex::bytes::{CaptureLocations, Regex};

use crate::config::Pattern;
use crate::exchange::Vars;

/// A compiled one. Its searches take time that grows linearly with what is searched.
pub(super) struct Expression {
    regex: Regex,
    /// Groups that become variables, with their names.
    groups: Box<[(usize, Box<str>)]>,
    /// Places of the groups, for one search after the other.
    places: RefCell<CaptureLocations>,
}

/// Which groups become variables.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Groups {
    Named,
    /// All, by number and by name.
    All,
}

impl Expression {
    pub(super) fn new(pattern: &Pattern, ignores_case: bool, kept: Groups) -> Self {
        let regex = pattern.regex(ignores_case);
        let mut groups = Vec::new();
        for (idx, name) in regex.capture_names().enumerate().skip(1) {
            if kept == Groups::All {
                groups.push((idx, idx.to_string().into()));
            }
            groups.extend(name.map(|name| (idx, name.into())));
        }
        Self {
            places: RefCell::new(regex.capture_locations()),
            groups: groups.into(),
            regex,
        }
    }

    pub(super) fn is_match(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }

    pub(super) fn has_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Sets the variables of its groups; one that takes no part in the match sets none.
    pub(super) fn capture(&self, text: &[u8], vars: &mut Vars) {
        let mut places = self.places.borrow_mut();
        if self.regex.captures_read(&mut places, text).is_none() {
            return;
        }
        for (group, name) in &self.groups {
            if let Some((start, end)) = places.get(*group) {
                vars.set(&**name, &text[start..end]);
            }
        }
    }

    pub(super) fn as_str(&self) -> &str {
        self.regex.as_str()
    }
}
