//! How many requests an upstream can take at once, learnt from how long they take.
//!
//! A gradient as in Netflix' concurrency-limits (`Gradient2Limit`): the limit shrinks by the ratio of the calm latency to the present
//! one, and grows by a little when requests need it. The calm latency is learnt from what is seen while little is under way,
//! never by holding requests back for a measurement, which is what users of Envoy's filter complain about. Under a load that
//! stays too high it stands still: a latency that the load has made is not taken for a calm one.
//!
//! A gateway that starts under such a load has seen nothing calm. While its windows are full, so that requests are refused
//! anyway, the limit goes down for as long as the latency goes down with it.

use std::time::Duration;

use super::learnt::Learnt;

/// The estimate of one worker. Pure: who calls has the clock.
#[derive(Debug)]
pub(super) struct Gradient {
    min: f64,
    max: f64,
    /// Latency in relation to the calm one that is taken for a queue at the peers.
    tolerance: f64,
    limit: f64,
    /// Calm latency in seconds. `None`: nothing is known yet.
    calm: Option<f64>,
    /// Latencies of the current window, in seconds.
    window: Vec<f64>,
    /// Most that was under way in it.
    most: u32,
    /// Window that later ones are compared with: most under way, and median latency.
    reference: (f64, f64),
    /// Windows in a row whose latency was no calm one.
    strained: u32,
    /// While a higher limit is tried: the one before.
    before_trial: Option<f64>,
    /// Whether the calm latency was seen while little was under way, or found by going down.
    is_known: bool,
    /// While the limit goes down in search of the calm latency: the limit before, and the latency there.
    descent: Option<(f64, f64)>,
    /// Windows that are passed over: what they have seen is of two limits.
    skips: u32,
}

/// Least samples that the limit is changed upon.
const WINDOW: usize = 50;

/// After so many windows without a calm latency more are let through, to see whether that makes any difference.
const TRIAL: u32 = 100;

/// Gradient below which the limit is changed at once.
const STEEP: f64 = 0.7;

/// Share of the limit that a step down leaves, and share of the latency that shows that it was a queue's.
const STEP_DOWN: f64 = 0.7;
const DESCENDS: f64 = 0.85;

/// Share of the own limit from which on another's is a step down, and no rounding.
const FOLLOWS: f64 = 0.8;

/// Share of the way to a new limit that is gone at once.
const SMOOTHING: f64 = 0.3;

impl Gradient {
    pub(super) fn new(min: u32, max: u32, initial: u32, tolerance: f64) -> Self {
        let (min, max) = (f64::from(min.max(1)), f64::from(max.max(min).max(1)));
        Self {
            min,
            max,
            tolerance,
            limit: f64::from(initial).clamp(min, max),
            calm: None,
            window: Vec::with_capacity(WINDOW),
            most: 0,
            reference: (0.0, 0.0),
            strained: 0,
            before_trial: None,
            is_known: false,
            descent: None,
            // What is under way grows in the first.
            skips: 1,
        }
    }

    /// Goes on from what another has learnt.
    pub(super) fn resume(&mut self, learnt: Learnt) {
        self.limit = learnt.limit.clamp(self.min, self.max);
        self.calm = Some(learnt.calm);
        self.is_known = learnt.is_known;
    }

    /// Goes where another worker has gone, while the calm latency is not known here: what one of them has under way is a part of what
    /// the peers have, and says little when the others go another way.
    pub(super) fn follow(&mut self, learnt: Learnt) {
        let limit = learnt.limit.clamp(self.min, self.max);
        if !learnt.is_known && limit > self.limit * FOLLOWS {
            return;
        }
        let descent = (self.limit, learnt.calm);
        self.resume(learnt);
        self.descent = (!learnt.is_known).then_some(descent);
        self.window.clear();
        self.most = 0;
        self.skips = 1;
    }

    /// Whether the calm latency is known: then no other worker is followed.
    pub(super) fn is_known(&self) -> bool {
        self.is_known
    }

    /// Values that are learnt so far; `None`: nothing is.
    pub(super) fn learnt(&self) -> Option<Learnt> {
        Some(Learnt {
            limit: self.before_trial.unwrap_or(self.limit),
            calm: self.calm?,
            is_known: self.is_known,
        })
    }

    /// Requests that may be under way.
    pub(super) fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// The latency that is taken for a calm one.
    #[cfg(test)]
    pub(super) fn calm(&self) -> Option<Duration> {
        self.calm.map(Duration::from_secs_f64)
    }

    /// A response has begun after so long. `under_way`: requests that were, itself included, when it was sent. True: a window is
    /// full, and something may have been learnt.
    pub(super) fn sample(&mut self, latency: Duration, under_way: u32) -> bool {
        self.window.push(latency.as_secs_f64());
        self.most = self.most.max(under_way);
        // Twice what may be under way: the latter half has met what the former has left.
        let is_full = self.window.len() >= WINDOW.max(2 * self.limit as usize);
        if is_full {
            self.learn();
        }
        is_full
    }

    fn learn(&mut self) {
        let mid = self.window.len() / 2;
        let (_, median, _) = self.window.select_nth_unstable_by(mid, f64::total_cmp);
        let median = median.max(1e-6);
        let most = f64::from(self.most);
        self.window.clear();
        self.most = 0;
        // The floor counts as little: no limit could be lower, so what is seen there is what the peers do by themselves.
        let is_calm = most <= self.min.max(self.limit / 2.0);
        if self.skips > 0 {
            self.skips -= 1;
            return;
        }
        self.is_known |= is_calm;
        if !self.is_known && self.descend(most, median) {
            return;
        }
        let is_of_itself = match self.before_trial.take() {
            Some(limit) => self.end_trial(limit, most, median),
            None => self.is_of_itself(most, median),
        };
        let step = match self.calm {
            None => 1.0,
            Some(calm) if median < calm || is_of_itself => 0.5,
            Some(_) if is_calm => 0.1,
            Some(_) => 0.0,
        };
        let calm = self.calm.unwrap_or(median);
        let calm = calm + (median - calm) * step;
        self.calm = Some(calm);
        let gradient = (self.tolerance * calm / median).clamp(0.5, 1.0);
        self.strained = if gradient < 1.0 { self.strained + 1 } else { 0 };
        if self.strained == TRIAL {
            self.begin_trial(most, median);
            return;
        }
        let wanted = self.limit * gradient + self.limit.sqrt();
        let is_needed = most >= self.limit / 2.0;
        if wanted < self.limit || is_needed {
            // A queue that is long already is not to grow longer while the limit comes down.
            let step = if gradient < STEEP { 1.0 } else { SMOOTHING };
            self.limit += (wanted - self.limit) * step;
            self.limit = self.limit.clamp(self.min, self.max);
        }
    }

    /// Goes a step down in search of the calm latency. False: this is not the way to it.
    fn descend(&mut self, most: f64, median: f64) -> bool {
        if let Some((limit, before)) = self.descent.take()
            && median > before * DESCENDS
        {
            // Less under way took as long: what is below the limit is no queue.
            self.limit = limit;
            self.calm = Some(median.min(before));
            self.is_known = true;
            self.skips = 1;
            return true;
        }
        let is_full = most >= self.limit.floor();
        if !is_full || self.limit <= self.min {
            return false;
        }
        self.descent = Some((self.limit, median));
        self.calm = Some(median);
        self.limit = (self.limit * STEP_DOWN).max(self.min);
        self.skips = 1;
        true
    }

    /// Whether less under way has not made the latency less: then it is no queue of ours, and the peers have become slower.
    fn is_of_itself(&mut self, most: f64, median: f64) -> bool {
        let (most_before, median_before) = self.reference;
        let is_less = most <= most_before * 0.7;
        if is_less || most >= most_before {
            self.reference = (most, median);
        }
        is_less && median >= median_before * 0.85
    }

    /// Lets more be under way for two windows, of which the second is looked at: the first has requests of before.
    fn begin_trial(&mut self, most: f64, median: f64) {
        self.reference = (most, median);
        self.before_trial = Some(self.limit);
        self.skips = 1;
        self.limit = (self.limit * 1.4).ceil().min(self.max);
    }

    /// Whether more under way has not made the latency more.
    fn end_trial(&mut self, limit: f64, most: f64, median: f64) -> bool {
        let (most_before, median_before) = std::mem::take(&mut self.reference);
        self.limit = limit;
        self.strained = 0;
        self.skips = 1;
        most >= most_before * 1.2 && median <= median_before * 1.1
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::{BinaryHeap, VecDeque};

    use super::*;

    /// Peers with so many places, each of which serves a request in 5 to 15 ms.
    struct Peers {
        places: usize,
        slowness: f64,
    }

    /// Results of a simulation.
    struct Seen {
        /// Latencies of accepted requests in milliseconds, ascending.
        latencies: Vec<f64>,
        refused: usize,
        limits: Vec<u32>,
    }

    impl Seen {
        fn p99(&self) -> f64 {
            self.latencies[self.latencies.len() * 99 / 100]
        }
    }

    /// A random number from 0 to 1.
    fn random(state: &mut u64) -> f64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Requests that come at random, `rate` a second for so many seconds; the first second is not looked at.
    fn simulate(gradient: &mut Gradient, peers: &Peers, rate: f64, seconds: f64) -> Seen {
        simulate_workers(std::slice::from_mut(gradient), peers, rate, seconds)
    }

    /// The same for several workers, of which each gets any request.
    fn simulate_workers(
        gradients: &mut [Gradient],
        peers: &Peers,
        rate: f64,
        seconds: f64,
    ) -> Seen {
        let mut state = 0x2545_f491_4f6c_dd1d;
        let mut seen = Seen {
            latencies: Vec::new(),
            refused: 0,
            limits: Vec::new(),
        };
        // Ends of services and the request each is of: in microseconds.
        let mut ends: BinaryHeap<Reverse<(u64, u64, u32, usize)>> = BinaryHeap::new();
        let mut queue: VecDeque<(u64, u32, usize)> = VecDeque::new();
        let (mut now, mut busy) = (0.0_f64, 0);
        let mut under_way = vec![0_u32; gradients.len()];
        let mut word = None;
        while now < seconds {
            now += -random(&mut state).max(1e-12).ln() / rate;
            let now_us = (now * 1e6) as u64;
            while let Some(&Reverse((end, began, under, worker))) = ends.peek()
                && end <= now_us
            {
                ends.pop();
                busy -= 1;
                under_way[worker] -= 1;
                let gradient = &mut gradients[worker];
                if let Some(learnt) = word.filter(|_| !gradient.is_known()) {
                    gradient.follow(learnt);
                }
                if gradient.sample(Duration::from_micros(end - began), under) {
                    word = gradient.learnt();
                }
                if began > 1_000_000 {
                    seen.latencies.push((end - began) as f64 / 1e3);
                    seen.limits.push(gradient.limit());
                }
                if let Some((began, under, worker)) = queue.pop_front() {
                    let service = (5_000.0 + 10_000.0 * random(&mut state)) * peers.slowness;
                    ends.push(Reverse((end + service as u64, began, under, worker)));
                    busy += 1;
                }
            }
            let worker = (random(&mut state) * gradients.len() as f64) as usize;
            if under_way[worker] >= gradients[worker].limit() {
                seen.refused += 1;
                continue;
            }
            under_way[worker] += 1;
            let under = under_way[worker];
            match busy < peers.places {
                true => {
                    let service = (5_000.0 + 10_000.0 * random(&mut state)) * peers.slowness;
                    ends.push(Reverse((now_us + service as u64, now_us, under, worker)));
                    busy += 1;
                }
                false => queue.push_back((now_us, under, worker)),
            }
        }
        seen.latencies.sort_by(f64::total_cmp);
        seen
    }

    fn gradient() -> Gradient {
        Gradient::new(3, 1000, 20, 1.2)
    }

    #[test]
    fn at_twice_the_capacity_the_accepted_take_no_more_than_twice_the_calm_time() {
        for places in [4, 10, 40, 200] {
            let peers = Peers {
                places,
                slowness: 1.0,
            };
            let capacity = places as f64 * 100.0;
            let mut gradient = gradient();
            simulate(&mut gradient, &peers, capacity / 2.0, 20.0);
            let calm = simulate(&mut gradient, &peers, capacity / 2.0, 20.0);
            assert!(
                calm.refused * 100 < calm.latencies.len(),
                "{places}: {}",
                calm.refused
            );
            let over = simulate(&mut gradient, &peers, capacity * 2.0, 60.0);
            let (before, after) = (calm.p99(), over.p99());
            let served = over.latencies.len() as f64 / 59.0 / capacity;
            println!(
                "{places} places: p99 {before:.1} -> {after:.1} ms, {served:.2} of the capacity, limits {:?} {:?}",
                over.limits.iter().min(),
                over.limits.iter().max()
            );
            assert!(after <= 2.0 * before, "{places}: {before} -> {after} ms");
            assert!(served > 0.85, "{places}: {served} of the capacity");
        }
    }

    #[test]
    fn a_start_at_twice_the_capacity_is_no_calm_one() {
        for places in [4, 10, 40, 200] {
            let peers = Peers {
                places,
                slowness: 1.0,
            };
            let capacity = places as f64 * 100.0;
            let before = simulate(&mut gradient(), &peers, capacity / 2.0, 20.0).p99();
            let mut gradient = Gradient::new(3, 1000, 10 * places as u32, 1.2);
            simulate(&mut gradient, &peers, capacity * 2.0, 10.0);
            let over = simulate(&mut gradient, &peers, capacity * 2.0, 60.0);
            let (after, served) = (over.p99(), over.latencies.len() as f64 / 59.0 / capacity);
            println!(
                "{places} places: p99 {before:.1} -> {after:.1} ms, {served:.2} of the capacity"
            );
            assert!(after <= 2.0 * before, "{places}: {before} -> {after} ms");
            assert!(served > 0.85, "{places}: {served} of the capacity");
        }
    }

    #[test]
    fn workers_that_start_at_twice_the_capacity_go_down_together() {
        for workers in [2, 4] {
            let peers = Peers {
                places: 21,
                slowness: 5.0,
            };
            let capacity = 420.0;
            let before = simulate(&mut gradient(), &peers, capacity / 2.0, 20.0).p99();
            let mut gradients: Vec<_> = (0..workers)
                .map(|_| Gradient::new(1, 1000, 100_u32.div_ceil(workers), 1.2))
                .collect();
            simulate_workers(&mut gradients, &peers, capacity * 2.0, 5.0);
            let over = simulate_workers(&mut gradients, &peers, capacity * 2.0, 60.0);
            let (after, served) = (over.p99(), over.latencies.len() as f64 / 59.0 / capacity);
            println!(
                "{workers} workers: p99 {before:.1} -> {after:.1} ms, {served:.2} of the capacity, {:?}",
                gradients
                    .iter()
                    .map(|g| (g.limit, g.calm, g.is_known))
                    .collect::<Vec<_>>()
            );
            assert!(after <= 2.0 * before, "{workers}: {before} -> {after} ms");
            assert!(served > 0.85, "{workers}: {served} of the capacity");
        }
    }

    #[test]
    fn peers_that_have_become_slower_are_learnt_without_holding_requests_back() {
        let mut gradient = gradient();
        let peers = |slowness| Peers {
            places: 40,
            slowness,
        };
        simulate(&mut gradient, &peers(1.0), 1000.0, 20.0);
        // 500 a second now take 20 of the 40 places.
        simulate(&mut gradient, &peers(4.0), 500.0, 20.0);
        let seen = simulate(&mut gradient, &peers(4.0), 500.0, 20.0);
        println!("refused {} of {}", seen.refused, seen.latencies.len());
        assert!(
            seen.refused * 100 < seen.latencies.len(),
            "{}",
            seen.refused
        );
    }

    #[test]
    fn a_sudden_load_is_met_within_seconds() {
        let mut gradient = Gradient::new(2, 1000, 100, 1.2);
        let peers = Peers {
            places: 8,
            slowness: 4.0,
        };
        simulate(&mut gradient, &peers, 80.0, 20.0);
        assert_eq!(gradient.limit(), 100);
        simulate(&mut gradient, &peers, 400.0, 4.0);
        assert!((8..=20).contains(&gradient.limit()), "{}", gradient.limit());
    }

    #[test]
    fn a_load_that_needs_more_gets_more() {
        let mut gradient = gradient();
        let peers = Peers {
            places: 200,
            slowness: 1.0,
        };
        let seen = simulate(&mut gradient, &peers, 15_000.0, 20.0);
        println!("limit {} refused {}", gradient.limit(), seen.refused);
        assert!(gradient.limit() > 150, "{}", gradient.limit());
    }

    #[test]
    fn another_goes_on_from_what_one_has_learnt() {
        let peers = Peers {
            places: 40,
            slowness: 1.0,
        };
        let mut first = gradient();
        assert_eq!(first.learnt(), None);
        simulate(&mut first, &peers, 2000.0, 20.0);
        simulate(&mut first, &peers, 8000.0, 20.0);
        let learnt = first.learnt().expect("it has learnt");
        assert!(learnt.is_known && learnt.limit > 30.0, "{learnt:?}");
        let mut second = gradient();
        second.resume(learnt);
        assert_eq!(second.learnt(), Some(learnt));
        assert_eq!(
            (second.limit(), second.calm()),
            (first.limit(), first.calm())
        );
        // Other bounds hold for it.
        let mut third = Gradient::new(1, 30, 20, 1.2);
        third.resume(learnt);
        assert_eq!(third.limit(), 30);
    }

    #[test]
    fn the_limit_keeps_its_bounds() {
        let mut gradient = Gradient::new(5, 30, 1000, 1.2);
        assert_eq!(gradient.limit(), 30);
        for _ in 0..10 * WINDOW {
            gradient.sample(Duration::from_millis(1), 30);
        }
        assert_eq!(gradient.limit(), 30);
        for _ in 0..90 * WINDOW {
            gradient.sample(Duration::from_secs(1), 30);
        }
        assert_eq!(gradient.limit(), 5);
        assert!(
            gradient
                .calm()
                .is_some_and(|calm| calm < Duration::from_millis(2))
        );
    }
}
