//! Room for generations: how many may drain at a time, and what a reload does when there are so many.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{join_all, select_all};

use crate::config::{Config, WhenDrainingFull};
use crate::process::generation::{Generation, GenerationStage};
use crate::process::orders::ReloadProgress;

use super::Master;

impl Master {
    /// Whether one more generation may drain, before a reload begins. With `wait` a reload that finds no room has its askers
    /// told so, once, and waits for [`Self::room_may_change`].
    pub(super) fn has_room(&self, config: &Config) -> bool {
        let limit = config.workers.max_draining_generations;
        if config.workers.when_draining_full != WhenDrainingFull::Wait {
            return true;
        }
        let draining = self.draining();
        if draining.len() + self.to_retire() <= limit {
            return true;
        }
        let mut reloads = self.reloads.borrow_mut();
        if reloads.held_up_by().is_none() {
            let line = why(&draining, limit);
            tracing::info!("{line}");
            for waiter in reloads.waiters().flatten() {
                waiter.tell(ReloadProgress::Waits(line.clone()));
            }
            reloads.hold_up(line);
        }
        false
    }

    /// Waits until a generation has ended, somebody has asked for a reload, or none serves any more.
    pub(super) async fn room_may_change(&self) {
        let draining = self.draining();
        if draining.is_empty() {
            return;
        }
        let ends = draining
            .iter()
            .map(|generation| Box::pin(generation.ended()));
        tokio::select! {
            _ = select_all(ends) => {}
            () = self.room_news.notified() => {}
        }
    }

    /// Makes room when a new generation is ready: with `end_oldest`, ends as many as it takes that the one which serves may
    /// drain.
    pub(super) async fn make_room(&self, config: &Config) {
        let limit = config.workers.max_draining_generations;
        if config.workers.when_draining_full != WhenDrainingFull::EndOldest {
            return;
        }
        let draining = self.draining();
        let beyond = (draining.len() + self.to_retire()).saturating_sub(limit);
        for oldest in draining.iter().take(beyond) {
            let connections = connections(oldest).await;
            tracing::warn!(
                generation = oldest.number,
                connections,
                "ended before its time: workers.max_draining_generations = {limit} is reached; its connections are closed"
            );
            oldest.stop();
            oldest.ended().await;
        }
    }

    /// Number of generations that a new one sends to drain: none where none serves, as after `drain`.
    fn to_retire(&self) -> usize {
        usize::from(self.serving().is_some())
    }

    /// Generations that drain, the oldest first.
    fn draining(&self) -> Vec<Rc<Generation>> {
        let retired = self.retired.borrow();
        let mut draining: Vec<_> = retired
            .iter()
            .filter(|generation| generation.stage() != GenerationStage::Ended)
            .cloned()
            .collect();
        draining.sort_by_key(|generation| generation.number);
        draining
    }
}

fn why(draining: &[Rc<Generation>], limit: usize) -> String {
    let longest = draining
        .iter()
        .map(|generation| generation.time_left())
        .min();
    let at_most = longest.unwrap_or(Duration::ZERO).as_secs_f64();
    let numbers: Vec<String> = draining
        .iter()
        .map(|generation| generation.number.to_string())
        .collect();
    format!(
        "reload waits: {} generations drain ({}), and workers.max_draining_generations = {limit}; one ends within {at_most:.1} s",
        draining.len(),
        numbers.join(", "),
    )
}

/// Counts open connections of clients, as far as the workers answer.
async fn connections(generation: &Generation) -> usize {
    let workers = generation.workers();
    let answers = join_all(workers.iter().map(|worker| worker.status())).await;
    answers
        .iter()
        .flatten()
        .map(|status| status.connections)
        .sum()
}
