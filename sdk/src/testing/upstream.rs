//! The upstream that a plugin chooses for the request.

use castling_abi::{Hook, Property, Status};

use super::Exchange;
use super::hook::{may_change_request, running};
use super::world::with_facts;

pub(crate) fn upstream_set(name: &[u8]) -> i32 {
    let may_choose = may_change_request() && running() != Some(Hook::RequestBody);
    with_facts(|facts| {
        if !may_choose || facts.response.is_some() {
            return Status::NotNow as i32;
        }
        if name.is_empty() {
            facts.chosen_upstream = None;
            return 0;
        }
        let granted = str::from_utf8(name).ok().filter(|name| {
            facts.granted_upstreams.iter().any(|one| one == name)
                || facts.calls.scripts.contains_key(*name)
        });
        match granted {
            Some(name) => {
                facts.chosen_upstream = Some(name.to_owned());
                0
            }
            None => Status::NotGranted as i32,
        }
    })
}

/// The upstream by name that the request is to go to: the chosen one, as long as it has not gone to another.
pub(super) fn chosen(property: Property) -> Option<Vec<u8>> {
    let chosen = with_facts(|facts| facts.chosen_upstream.clone());
    chosen
        .filter(|_| property == Property::Upstream)
        .map(String::into_bytes)
}

impl Exchange {
    /// Grants an upstream to the plugin, for [`Request::set_upstream`](crate::Request::set_upstream). One that [`Self::call`]
    /// has is granted, too.
    #[must_use]
    pub fn grant_upstream(self, name: &str) -> Self {
        let name = name.to_owned();
        self.facts.borrow_mut().granted_upstreams.push(name);
        self
    }

    /// The upstream that the plugin has chosen; `None`: the route's own.
    pub fn chosen_upstream(&self) -> Option<String> {
        self.facts.borrow().chosen_upstream.clone()
    }
}
