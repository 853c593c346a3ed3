//! Peers that may be chosen: every policy is held to them, a plugin's too.

use std::rc::Rc;

use super::group::Group;
use super::levels::{BACKUP, LEVELS, Level, Levels, OTHER_ZONES, OWN_ZONE};
use super::supply::Supply;
use super::{Ask, Choice, Health, Rules};
use crate::upstream::{Availability, Peer};

/// Peers by whether they may be chosen, at one time.
pub(super) struct Candidates {
    /// Groups of available peers, by level, and one of those that are passed over for their failures or by the checks.
    groups: [Group; GROUPS],
    /// Where the policy chooses from.
    first: First,
    pub supply: Supply,
    /// Time at which an ejection or a slow start ends.
    pub due_ns: u64,
}

/// Groups: the levels, and then those that are passed over.
const GROUPS: usize = LEVELS + 1;
const PASSED_OVER: usize = LEVELS;

enum First {
    Group(usize),
    /// Zones that have a share each.
    Shares(Levels),
}

/// Peers that are looked through.
#[derive(Default)]
struct Found {
    /// All peers of each level.
    members: [Vec<Rc<Peer>>; LEVELS],
    /// Peers of each group.
    peers: [Vec<Rc<Peer>>; GROUPS],
    /// Primaries that may not be chosen, for their failures or by the checks.
    unavailable: Vec<(usize, Rc<Peer>)>,
    due_ns: Option<u64>,
}

impl Found {
    fn add(&mut self, peer: &Rc<Peer>, rules: &Rules, health: &Health, now_ns: u64) {
        let level = match &rules.zone {
            _ if peer.is_backup.get() => BACKUP,
            Some(zone) if peer.zone.as_deref() != Some(zone) => OTHER_ZONES,
            Some(_) | None => OWN_ZONE,
        };
        self.members[level].push(Rc::clone(peer));
        let group = match peer.state.availability(health.checks, || now_ns) {
            Availability::Available => {
                if let Some(ramp) = rules.slow_start {
                    self.is_due(ramp.ends_ns(peer.state.came_up_ns()), now_ns);
                }
                level
            }
            Availability::Ejected { until_ns } => {
                self.is_due(until_ns, now_ns);
                self.is_unavailable(level, peer);
                PASSED_OVER
            }
            Availability::Unhealthy | Availability::Unchecked => {
                return self.is_unavailable(level, peer);
            }
            Availability::Down | Availability::Draining => return,
        };
        self.peers[group].push(Rc::clone(peer));
    }

    fn is_unavailable(&mut self, level: usize, peer: &Rc<Peer>) {
        if level != BACKUP {
            self.unavailable.push((level, Rc::clone(peer)));
        }
    }

    /// Has all primaries chosen from where too few are available: true.
    fn panics(&mut self, threshold: f64) -> bool {
        let available = self.peers[OWN_ZONE].len() + self.peers[OTHER_ZONES].len();
        let all = available + self.unavailable.len();
        let are_too_few = (available as f64) < threshold * all as f64;
        if are_too_few {
            for (level, peer) in self.unavailable.drain(..) {
                self.peers[level].push(peer);
            }
            for peers in &mut self.peers[OWN_ZONE..=OTHER_ZONES] {
                peers.sort_by_key(|peer| peer.slot);
            }
            self.peers[PASSED_OVER].retain(|peer| peer.is_backup.get());
        }
        are_too_few
    }

    fn is_due(&mut self, at_ns: u64, now_ns: u64) {
        if at_ns > now_ns {
            self.due_ns = Some(self.due_ns.map_or(at_ns, |due_ns| due_ns.min(at_ns)));
        }
    }

    fn first(&self) -> First {
        let has = |group: usize| !self.peers[group].is_empty();
        if has(OWN_ZONE) && has(OTHER_ZONES) {
            let weight = |peers: &[Rc<Peer>]| -> f64 {
                peers.iter().map(|peer| f64::from(peer.weight.get())).sum()
            };
            let level = |level: usize| Level {
                available: weight(&self.peers[level]),
                total: weight(&self.members[level]),
            };
            return First::Shares(Levels::new([OWN_ZONE, OTHER_ZONES, BACKUP].map(level)));
        }
        First::Group((0..GROUPS).find(|&group| has(group)).unwrap_or(PASSED_OVER))
    }
}

impl Candidates {
    /// `peers`: by slot, ascending.
    pub(super) fn among(peers: &[Rc<Peer>], rules: &Rules, health: &Health, now_ns: u64) -> Self {
        let mut found = Found::default();
        for peer in peers {
            peer.refresh_weight();
            peer.is_candidate.set(false);
            found.add(peer, rules, health, now_ns);
        }
        let are_too_few = found.panics(health.panic_threshold);
        let first = found.first();
        let candidates = match first {
            First::Group(group) => &found.peers[group..=group],
            First::Shares(_) => &found.peers[OWN_ZONE..=OTHER_ZONES],
        };
        let supply = match first {
            _ if candidates.iter().all(Vec::is_empty) => Supply::Nobody,
            _ if are_too_few => Supply::TooFew,
            First::Group(PASSED_OVER) => Supply::PassedOver,
            First::Group(_) | First::Shares(_) => Supply::Enough,
        };
        for peer in candidates.iter().flatten() {
            peer.is_candidate.set(true);
        }
        let Found {
            members,
            peers: [own_zone, other_zones, backups, passed_over],
            due_ns,
            ..
        } = found;
        let level = |level: usize, peers| Group::new(&members[level], peers, rules, now_ns);
        Self {
            groups: [
                level(OWN_ZONE, own_zone),
                level(OTHER_ZONES, other_zones),
                level(BACKUP, backups),
                Group::passed_over(passed_over, rules),
            ],
            supply,
            first,
            due_ns: due_ns.unwrap_or(u64::MAX),
        }
    }

    /// A peer of the group that is asked first, else of the others in their order. Those that are passed over are not chosen while
    /// one that is available could be waited for.
    #[inline]
    pub(super) fn choose(&mut self, ask: &Ask<'_>) -> Choice {
        let first = match &mut self.first {
            First::Group(group) => *group,
            First::Shares(levels) => levels.next(),
        };
        match self.groups[first].choose(ask) {
            Some(active) => Choice::Peer(active),
            None => self.choose_beyond(ask),
        }
    }

    #[cold]
    #[inline(never)]
    fn choose_beyond(&mut self, ask: &Ask<'_>) -> Choice {
        let is_left = |group: &Group| group.peers().iter().any(|peer| !ask.tried.contains(peer));
        let [available @ .., passed_over] = &mut self.groups;
        for group in &mut *available {
            if let Some(active) = group.choose(ask) {
                return Choice::Peer(active);
            }
        }
        if available.iter().any(&is_left) {
            return Choice::Full;
        }
        match passed_over.choose(ask) {
            Some(active) => Choice::Peer(active),
            None if is_left(passed_over) => Choice::Full,
            None => Choice::Nobody,
        }
    }

    /// Two peers for a plugin to choose from: of the group that is asked first, else of the others in their order.
    pub(super) fn draw_two(&mut self, ask: &Ask<'_>) -> [Option<&Rc<Peer>>; 2] {
        let first = match &mut self.first {
            First::Group(group) => *group,
            First::Shares(levels) => levels.next(),
        };
        let available = std::iter::once(first).filter(|&group| group != PASSED_OVER);
        let available = available.chain(0..PASSED_OVER);
        let mut drawn = available.map(|group| self.groups[group].draw_two(ask));
        let is_left = |group: &Group| group.peers().iter().any(|peer| !ask.tried.contains(peer));
        match drawn.find(|[first, _]| first.is_some()) {
            Some(drawn) => drawn,
            // A peer that has room again is waited for.
            None if self.groups[..PASSED_OVER].iter().any(is_left) => [None; 2],
            None => self.groups[PASSED_OVER].draw_two(ask),
        }
    }

    /// Whether a policy may choose this peer of the set.
    pub(super) fn is_eligible(&self, peer: &Rc<Peer>, ask: &Ask<'_>) -> bool {
        match peer.is_candidate.get() {
            true => ask.allows(peer),
            false => self.is_eligible_beyond(peer, ask),
        }
    }

    /// Eligibility of a peer that is no candidate: no other is left.
    #[cold]
    #[inline(never)]
    fn is_eligible_beyond(&self, peer: &Rc<Peer>, ask: &Ask<'_>) -> bool {
        let allowed = |group: &Group, is_it: &dyn Fn(&Rc<Peer>) -> bool| {
            let mut peers = group.peers().iter();
            peers.any(|other| ask.allows(other) && is_it(other))
        };
        let [own_zone, other_zones, rest @ ..] = &self.groups;
        // A plugin knows nothing of zones.
        let primaries = [own_zone, other_zones];
        let is_peer = |other: &Rc<Peer>| Rc::ptr_eq(other, peer);
        if primaries.iter().any(|group| allowed(group, &|_| true)) {
            return primaries.iter().any(|group| allowed(group, &is_peer));
        }
        let group = rest.iter().find(|group| allowed(group, &|_| true));
        group.is_some_and(|group| allowed(group, &is_peer))
    }

    /// Notes that a request has ended at a peer.
    pub(super) fn has_ended(&mut self, peer: &Rc<Peer>) {
        for group in &mut self.groups {
            group.has_ended(peer);
        }
    }

    /// Looks at the loads of all peers, which others have changed.
    pub(super) fn refresh(&mut self) {
        self.groups.iter_mut().for_each(Group::refresh);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::policy::Policy;
    use super::super::slow_start::SlowStart;
    use super::super::tests::{health, peers, tried};
    use super::*;
    use crate::upstream::Standing;
    use crate::zone::now_ns;

    fn fail(peer: &Peer) {
        peer.state.eject(now_ns(), Duration::from_secs(10), 1);
    }

    /// Slots of those that the policy chooses from.
    fn slots(candidates: &Candidates) -> Vec<u32> {
        let First::Group(first) = candidates.first else {
            panic!("zones");
        };
        let first = candidates.groups[first].peers();
        first.iter().map(|peer| peer.slot).collect()
    }

    fn candidates(peers: &[Rc<Peer>]) -> Candidates {
        Candidates::among(peers, &Policy::RoundRobin.into(), &health(), now_ns())
    }

    fn chosen(candidates: &mut Candidates, slots: &[u32]) -> Option<u32> {
        let tried = &tried(slots);
        match candidates.choose(&Ask { tried, key: b"" }) {
            Choice::Peer(active) => Some(active.slot),
            Choice::Full | Choice::Nobody => None,
        }
    }

    #[test]
    fn a_failed_peer_is_passed_over_while_there_are_others() {
        let peers = peers(&[1, 1, 1]);
        fail(&peers[1]);
        let mut candidates = candidates(&peers);
        assert_eq!(slots(&candidates), [0, 2]);
        assert_eq!(candidates.supply, Supply::Enough);
        assert!(candidates.due_ns < u64::MAX);
        assert_eq!(chosen(&mut candidates, &[0, 2]), Some(1));
        assert_eq!(chosen(&mut candidates, &[0, 1, 2]), None);
    }

    #[test]
    fn failed_peers_are_candidates_when_nothing_else_is_there() {
        let peers = peers(&[1, 1]);
        peers.iter().for_each(|peer| fail(peer));
        let candidates = candidates(&peers);
        assert_eq!(slots(&candidates), [0, 1]);
        assert_eq!(candidates.supply, Supply::PassedOver);
    }

    #[test]
    fn below_the_threshold_all_are_chosen_from() {
        let peers = peers(&[1, 1, 1]);
        let health = Health {
            panic_threshold: 0.5,
            ..health()
        };
        let first = || {
            let rules = Policy::RoundRobin.into();
            let candidates = Candidates::among(&peers, &rules, &health, now_ns());
            (slots(&candidates), candidates.supply)
        };
        fail(&peers[1]);
        assert_eq!(first(), (vec![0, 2], Supply::Enough));
        fail(&peers[0]);
        assert_eq!(first(), (vec![0, 1, 2], Supply::TooFew));
    }

    #[test]
    fn the_operators_order_holds_also_when_nothing_else_is_there() {
        let peers = peers(&[1, 1, 1]);
        peers[0].state.order(Standing::Down, None);
        peers[1].state.order(Standing::Draining, None);
        peers[2].state.order(Standing::Up, Some(9));
        fail(&peers[2]);
        let mut candidates = candidates(&peers);
        assert_eq!(slots(&candidates), [2]);
        assert_eq!(peers[2].weight.get(), 9);
        assert_eq!(chosen(&mut candidates, &[2]), None);
    }

    /// Requests of 1100 that each of two peers gets, of which the second has just come back.
    fn slowly_started(policy: Policy) -> [i32; 2] {
        let peers = peers(&[1, 1]);
        peers[1].state.eject(now_ns(), Duration::ZERO, 1);
        let hour = Duration::from_secs(3600);
        let rules = Rules {
            slow_start: Some(SlowStart::new(hour, 1.0)),
            ..Rules::from(policy)
        };
        let mut candidates = Candidates::among(&peers, &rules, &health(), now_ns());
        assert!(candidates.due_ns < u64::MAX, "its end is waited for");
        let ask = Ask {
            tried: &tried(&[]),
            key: b"",
        };
        let mut counts = [0; 2];
        for _ in 0..1100 {
            if let Choice::Peer(active) = candidates.choose(&ask) {
                counts[active.slot as usize] += 1;
                let peer = Rc::clone(&peers[active.slot as usize]);
                drop(active);
                candidates.has_ended(&peer);
            }
        }
        counts
    }

    #[test]
    fn a_peer_that_comes_back_begins_with_a_tenth_of_its_weight() {
        for policy in [Policy::RoundRobin, Policy::LeastConn] {
            let counts = slowly_started(policy);
            assert!((98..=102).contains(&counts[1]), "{counts:?}");
        }
        // Six standard deviations.
        let counts = slowly_started(Policy::Random);
        assert!((43..=157).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn a_plugin_draws_from_what_the_other_policies_see() {
        let peers = peers(&[1, 1, 1, 1]);
        fail(&peers[1]);
        let mut candidates = candidates(&peers);
        let first = &mut candidates.groups[OWN_ZONE];
        first.draw_for_a_plugin();
        let mut drawn = |slots: &[u32]| {
            let tried = &tried(slots);
            let two = candidates.draw_two(&Ask { tried, key: b"" });
            let mut two: Vec<u32> = two.into_iter().flatten().map(|it| it.slot).collect();
            two.sort_unstable();
            two
        };
        for _ in 0..100 {
            let two = drawn(&[]);
            assert!(two[0] < two[1] && !two.contains(&1), "{two:?}");
        }
        assert_eq!(drawn(&[0]), [2, 3]);
        assert_eq!(drawn(&[0, 2]), [3]);
        assert_eq!(drawn(&[0, 2, 3]), [0; 0]);
    }

    #[test]
    fn a_plugin_is_held_to_what_the_other_policies_see() {
        let peers = peers(&[1, 1, 1]);
        fail(&peers[1]);
        let candidates = candidates(&peers);
        let eligible = |slots: &[u32]| -> Vec<u32> {
            let ask = Ask {
                tried: &tried(slots),
                key: b"",
            };
            let all = peers.iter();
            let all = all.filter(|peer| candidates.is_eligible(peer, &ask));
            all.map(|peer| peer.slot).collect()
        };
        assert_eq!(eligible(&[]), [0, 2]);
        assert_eq!(eligible(&[0]), [2]);
        assert_eq!(eligible(&[0, 2]), [1]);
        assert_eq!(eligible(&[0, 1, 2]), [0; 0]);
    }
}
