//! Balances by latency and load: of two random peers, the one with the lower peak-EWMA latency times requests under
//! way, over weight.
//!
//! README.md has the config. Each worker learns for itself.

use castling_sdk::prelude::*;
use castling_sdk::{peer_status, units};

/// The plugin's config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Time constant: a latency that is this old counts 37 %. More than zero. Default 10 s.
    #[serde(deserialize_with = "units::duration_above_zero")]
    decay: Duration,
    /// Latency that a failed try and a response of 500 or more count as, at least. More than zero. Default 1 s.
    #[serde(deserialize_with = "units::duration_above_zero")]
    penalty: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            decay: Duration::from_secs(10),
            penalty: Duration::from_secs(1),
        }
    }
}

/// The plugin.
pub struct Ewma {
    config: Config,
    /// By the peer's index; none yet for peers that were never heard of.
    latencies: Vec<Latency>,
}

/// A peer's latency, as a moving average that follows a rise at once and a fall slowly.
#[derive(Clone, Copy, Default)]
struct Latency {
    seconds: f64,
    /// When it was that.
    at: Duration,
}

#[plugin]
impl Ewma {
    fn configure(config: Config) -> Self {
        Self {
            config,
            latencies: Vec::new(),
        }
    }

    fn balance(&mut self, _request: &Request, peers: &Peers) -> Option<usize> {
        let (first, second) = peers.draw_two()?;
        let Some(second) = second else {
            return Some(first.index);
        };
        let now = clock::monotonic();
        let is_better = self.cost(&second, now) < self.cost(&first, now);
        Some(if is_better { second } else { first }.index)
    }

    fn peer_done(&mut self, peer: usize, outcome: PeerOutcome, latency: Duration) {
        let seconds = match outcome {
            PeerOutcome::Responded if !has_failed() => latency.as_secs_f64(),
            PeerOutcome::Responded
            | PeerOutcome::ConnectFailed
            | PeerOutcome::Broken
            | PeerOutcome::TimedOut => latency.max(self.config.penalty).as_secs_f64(),
            // Says nothing about the peer.
            PeerOutcome::Cancelled => return,
        };
        let now = clock::monotonic();
        match self.latencies.get_mut(peer) {
            Some(known) => known.observe(seconds, now, self.config.decay),
            None => self.learn(peer, Latency { seconds, at: now }),
        }
    }
}

impl Ewma {
    /// Adds an entry for a peer that was never heard of.
    #[cold]
    #[inline(never)]
    fn learn(&mut self, peer: usize, first: Latency) {
        self.latencies.resize(peer + 1, Latency::default());
        self.latencies[peer] = first;
    }

    /// Expected cost of a request to the peer. Below [`FLOOR_SECONDS`] latencies do not differ, so that peers
    /// nothing is known of are told apart by their load.
    fn cost(&self, peer: &Peer, now: Duration) -> f64 {
        let latency = self.latencies.get(peer.index).copied().unwrap_or_default();
        let seconds = latency.decayed(now, self.config.decay).max(FLOOR_SECONDS);
        seconds * (f64::from(peer.active) + 1.0) / weight(peer)
    }
}

/// Whether the peer has answered that it cannot serve: however quick that is, it is no success.
fn has_failed() -> bool {
    peer_status().is_some_and(|status| status >= 500)
}

const FLOOR_SECONDS: f64 = 0.000_1;

/// In times of `decay`.
const SMALL_AGE: f64 = 0.001;

impl Latency {
    fn observe(&mut self, seconds: f64, now: Duration, decay: Duration) {
        let weight = self.weight(now, decay);
        self.seconds = if seconds > self.seconds {
            seconds
        } else {
            self.seconds * weight + seconds * (1.0 - weight)
        };
        self.at = now;
    }

    /// A peer that gets no requests is thought better of as time passes, so that it gets one again.
    fn decayed(&self, now: Duration, decay: Duration) -> f64 {
        self.seconds * self.weight(now, decay)
    }

    /// How much of it still counts: e to the power of minus its age in times of `decay`.
    fn weight(&self, now: Duration, decay: Duration) -> f64 {
        let age = now.saturating_sub(self.at);
        let age = age.as_secs_f64() / decay.as_secs_f64();
        match age < SMALL_AGE {
            // A short series is exact to nine digits, at a fraction of the cost: so young are most where requests are many.
            true => 1.0 - age + age * age / 2.0,
            false => old(age),
        }
    }
}

#[cold]
#[inline(never)]
fn old(age: f64) -> f64 {
    (-age).exp()
}

fn weight(peer: &Peer) -> f64 {
    f64::from(peer.weight.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use castling_sdk::testing::{self, Exchange, FakePeer};

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn plugin() -> Ewma {
        Ewma::configure(Config::default())
    }

    /// The peer chosen of those, when the random two are the first and the second untried one.
    fn choose(plugin: &mut Ewma, peers: &[FakePeer]) -> Option<usize> {
        let exchange = peers
            .iter()
            .cloned()
            .fold(Exchange::get("/"), Exchange::peer);
        let mut exchange = exchange;
        testing::script_random([0, 0]);
        let peers = exchange.peers();
        plugin.balance(exchange.request(), &peers)
    }

    fn peers() -> Vec<FakePeer> {
        vec![FakePeer::at("a:1"), FakePeer::at("b:2")]
    }

    #[test]
    fn the_quicker_peer_is_chosen() {
        let mut plugin = plugin();
        plugin.peer_done(0, PeerOutcome::Responded, 20 * MILLISECOND);
        plugin.peer_done(1, PeerOutcome::Responded, 10 * MILLISECOND);
        assert_eq!(choose(&mut plugin, &peers()), Some(1));
    }

    #[test]
    fn load_and_weight_count() {
        let mut plugin = plugin();
        for peer in [0, 1] {
            plugin.peer_done(peer, PeerOutcome::Responded, 10 * MILLISECOND);
        }
        let [a, b] = [FakePeer::at("a:1"), FakePeer::at("b:2")];
        assert_eq!(
            choose(&mut plugin, &[a.clone().active(3), b.clone().active(1)]),
            Some(1)
        );
        assert_eq!(
            choose(&mut plugin, &[a.active(3).weight(4), b.active(1)]),
            Some(0)
        );
    }

    #[test]
    fn a_weight_is_a_power_of_e() {
        let latency = Latency::default();
        let decay = Duration::from_secs(10);
        for age in [0.0, 1e-6, 0.009_999, 0.010_001, 1.0, 50.0] {
            let weight = latency.weight(Duration::from_secs_f64(age), decay);
            let expected = (-age / 10.0).exp();
            assert!((weight - expected).abs() < 1e-9, "{age}: {weight}");
        }
    }

    #[test]
    fn a_rise_counts_at_once_and_a_fall_slowly() {
        let mut plugin = plugin();
        plugin.peer_done(0, PeerOutcome::Responded, 10 * MILLISECOND);
        plugin.peer_done(0, PeerOutcome::Responded, 500 * MILLISECOND);
        assert!((plugin.latencies[0].seconds - 0.5).abs() < 1e-9);
        testing::advance_clock(Duration::from_secs(10));
        plugin.peer_done(0, PeerOutcome::Responded, 10 * MILLISECOND);
        // After one time constant: 37 % of the old, 63 % of the new.
        let expected = 0.5 * (-1.0_f64).exp() + 0.01 * (1.0 - (-1.0_f64).exp());
        assert!((plugin.latencies[0].seconds - expected).abs() < 1e-9);
    }

    #[test]
    fn a_failure_is_a_penalty_that_is_forgotten() {
        let mut plugin = plugin();
        plugin.peer_done(0, PeerOutcome::ConnectFailed, MILLISECOND);
        plugin.peer_done(1, PeerOutcome::Responded, 100 * MILLISECOND);
        assert_eq!(choose(&mut plugin, &peers()), Some(1));
        // The other one answers all the time; what the failed one cost fades.
        for _ in 0..30 {
            testing::advance_clock(Duration::from_secs(1));
            plugin.peer_done(1, PeerOutcome::Responded, 100 * MILLISECOND);
        }
        assert_eq!(choose(&mut plugin, &peers()), Some(0));
    }

    #[test]
    fn an_answer_that_is_a_failure_is_not_quick() {
        let mut plugin = plugin();
        let mut failing = Exchange::get("/").peer_status(503);
        failing.request();
        plugin.peer_done(0, PeerOutcome::Responded, MILLISECOND);
        let mut serving = Exchange::get("/").peer_status(404);
        serving.request();
        plugin.peer_done(1, PeerOutcome::Responded, 100 * MILLISECOND);
        assert_eq!(choose(&mut plugin, &peers()), Some(1));
    }

    #[test]
    fn a_client_that_left_says_nothing() {
        let mut plugin = plugin();
        plugin.peer_done(0, PeerOutcome::Cancelled, Duration::from_secs(60));
        assert!(plugin.latencies.is_empty());
    }

    #[test]
    fn peers_that_were_tried_are_left_out() {
        let [a, b, c] = [
            FakePeer::at("a:1"),
            FakePeer::at("b:2"),
            FakePeer::at("c:3"),
        ];
        let mut plugin = plugin();
        assert_eq!(
            choose(&mut plugin, &[a.clone().tried(), b.clone(), c.tried()]),
            Some(1)
        );
        assert_eq!(choose(&mut plugin, &[a.tried(), b.tried()]), None);
    }

    #[test]
    fn a_heavy_peer_is_not_held_to_two_of_all() {
        let mut plugin = plugin();
        let heavy = FakePeer::at("a:1").weight(6);
        let light = |name: &str| FakePeer::at(name).weight(1);
        let mut exchange = Exchange::get("/")
            .peer(heavy)
            .peer(light("b:2"))
            .peer(light("c:3"))
            .peer(light("d:4"));
        let mut chosen = |_| {
            let peers = exchange.peers();
            plugin.balance(exchange.request(), &peers)
        };
        // Drawn evenly, it would be one of the two in half of the cases.
        let of_it = (0..1000).map(&mut chosen).filter(|it| *it == Some(0));
        assert!(of_it.count() > 700);
    }

    #[test]
    fn durations_are_written_as_people_do() {
        let decay = |json: &str| testing::config::<Config>(json).map(|config| config.decay);
        assert_eq!(decay("{}").unwrap(), Duration::from_secs(10));
        assert_eq!(
            decay(r#"{"decay": "500ms"}"#).unwrap(),
            Duration::from_millis(500)
        );
        assert_eq!(decay(r#"{"decay": 2}"#).unwrap(), Duration::from_secs(2));
        assert_eq!(
            decay(r#"{"decay": 1.5}"#).unwrap(),
            Duration::from_millis(1500)
        );
        for bad in [r#""0s""#, "0", "-1", "0.0", r#""soon""#, "true"] {
            let error = decay(&format!("{{\"decay\": {bad}}}"))
                .unwrap_err()
                .to_string();
            assert!(error.starts_with("config.decay: invalid "), "{error}");
            assert!(error.contains("a duration above zero"), "{error}");
        }
    }
}
