//! The upstream that a plugin chooses for the request, and facts of its peers.

use castling_abi::rules::{self, Rule};
use castling_abi::{Grant, Property, Status, metric};

use super::hook::may;
use super::host::hand_out;
use super::world::with_facts;
use super::zones::grant_check;
use super::{Exchange, FakePeer};

pub(crate) fn upstream_set(name: &[u8]) -> i32 {
    if !may(&rules::UPSTREAM_SET) {
        return rules::UPSTREAM_SET.refused as i32;
    }
    with_facts(|facts| {
        if name.is_empty() {
            facts.chosen_upstream = None;
            return 0;
        }
        let granted = str::from_utf8(name)
            .ok()
            .filter(|name| facts.has_upstream(name));
        match granted {
            Some(name) => {
                facts.chosen_upstream = Some(name.to_owned());
                0
            }
            None => Status::NotGranted as i32,
        }
    })
}

pub(crate) fn peer_name(index: u32, out: &mut [u8]) -> i32 {
    with_peer(&rules::PEER_NAME, index, |peer| {
        let name = peer.name.as_ref().unwrap_or(&peer.address);
        hand_out(name.as_bytes(), out)
    })
}

pub(crate) fn peer_tags(index: u32, out: &mut [u8]) -> i32 {
    with_peer(&rules::PEER_TAGS, index, |peer| {
        let mut list = Vec::new();
        for tag in &peer.tags {
            let Some(head) = metric::text_head(tag.as_bytes()) else {
                return Status::Limit as i32;
            };
            list.extend_from_slice(&head);
            list.extend_from_slice(tag.as_bytes());
        }
        hand_out(&list, out)
    })
}

fn with_peer(rule: &Rule, index: u32, read: impl FnOnce(&FakePeer) -> i32) -> i32 {
    if !may(rule) {
        return rule.refused as i32;
    }
    with_facts(|facts| {
        let peer = facts.peers.get(index as usize);
        peer.map_or(Status::NotFound as i32, read)
    })
}

/// Names of a config are those of upstreams and zones that are all there, as for `grant_check`.
pub(crate) fn config_grant(grant: Grant, name: &[u8]) -> i32 {
    match may(&rules::CONFIG_GRANT) {
        true => grant_check(grant, name),
        false => rules::CONFIG_GRANT.refused as i32,
    }
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
