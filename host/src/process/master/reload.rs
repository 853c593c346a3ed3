//! Reload: a config is loaded, a generation is built of it, and it takes the place of the one that serves.

use std::cell::OnceCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use tokio::task::spawn_local;

use crate::config::{self, Config};
use crate::process::compile;
use crate::process::generation::{Generation, GenerationStage, Shared};
use crate::process::metrics::Ledger;
use crate::process::notify;
use crate::process::orders::{ReloadProgress, ReloadWaiter};
use crate::process::ownership;
use crate::process::report::Reloaded;
use crate::process::zone_store::ZoneStore;
use crate::process::zones::{lend_again, zones};

use super::state::Current;
use super::{Master, load, placed};

/// A generation whose workers are all ready, and that does not serve yet.
pub(super) struct Built {
    generation: Rc<Generation>,
    metrics: Rc<Ledger>,
    /// Store of the kv zones, when this generation is the first that has some.
    zone_store: Option<Rc<ZoneStore>>,
    begun: Instant,
}

impl Master {
    /// Loads the config again and swaps generations. While a reload or an upgrade runs, the next one is queued, once for
    /// all who ask; after an upgrade it is the new master's.
    pub fn reload(self: &Rc<Self>, waiter: Option<ReloadWaiter>) {
        if self.state.borrow().active().is_none() {
            if let Some(pid) = self.successor() {
                tracing::warn!(pid, "no reload: another master has taken over");
            }
            // A waiter that is dropped tells the peer that the gateway is stopping.
            return;
        }
        let mut reloads = self.reloads.borrow_mut();
        if let (Some(waiter), Some(why)) = (&waiter, reloads.held_up_by()) {
            waiter.tell(ReloadProgress::Waits(why.to_owned()));
        }
        if reloads.request(waiter) {
            let task = spawn_local(Rc::clone(self).run_reloads());
            self.tasks.borrow_mut().reload = Some(task);
        } else {
            // With another config a reload that waits may have nothing to wait for.
            self.room_news.notify_one();
        }
    }

    async fn run_reloads(self: Rc<Self>) {
        // A signal has nobody who waits, and its reload is done all the same.
        let _pending = self.pending_command();
        loop {
            let result = self.reload_in_turn().await;
            if let Err(errors) = &result {
                for error in errors {
                    tracing::error!("reload refused: {error}");
                }
            }
            if let Some(ledger) = &self.memory.borrow().metrics
                && self.successor().is_none()
            {
                ledger.metrics().reloaded(result.is_ok());
            }
            let (waiters, again) = self.reloads.borrow_mut().finished();
            for waiter in waiters.into_iter().flatten() {
                waiter.tell(ReloadProgress::Ended(result.clone()));
            }
            if !again {
                return;
            }
        }
    }

    async fn reload_in_turn(&self) -> Result<Reloaded, Vec<String>> {
        let mut turn = self.changes.lock().await;
        if self.successor().is_none() {
            notify::reloading();
        }
        let result = loop {
            if self.successor().is_some() {
                self.reloads.borrow_mut().go_on();
                return self.reload_successor().await;
            }
            // Peers that have asked while it waited have the config in mind as it is now.
            self.reloads.borrow_mut().take_in();
            match load_aside(&self.config_path).await {
                Ok(config) if self.has_room(&config) => break self.swap(config).await,
                Ok(_) => {}
                Err(errors) => break Err(errors),
            }
            // An upgrade may come first.
            drop(turn);
            self.room_may_change().await;
            turn = self.changes.lock().await;
        };
        self.reloads.borrow_mut().go_on();
        drop(turn);
        match &result {
            Ok(_) => notify::ready(&self.summary()),
            Err(_) => notify::ready(&format!("{}; the last reload was refused", self.summary())),
        }
        result
    }

    /// Builds a generation, and only when all of it is ready puts it in the place of the one that serves. Any failure
    /// before that leaves the one that serves as it was.
    pub(super) async fn swap(&self, config: Config) -> Result<Reloaded, Vec<String>> {
        let built = self.build(config).await?;
        self.put_to_work(built).await
    }

    pub(super) async fn build(&self, config: Config) -> Result<Built, Vec<String>> {
        let built = self.try_build(config).await;
        if built.is_err() {
            self.lend_zones_again();
        }
        built
    }

    /// Gives the zones back to the user of the generation that serves, after one of another user that did not come to serve,
    /// this master's or a new one's.
    pub(super) fn lend_zones_again(&self) {
        if let Some(serving) = self.serving()
            && let Some(user) = &serving.config.workers.user
        {
            serving.with_zones(|zones| lend_again(zones, user));
        }
    }

    async fn try_build(&self, config: Config) -> Result<Built, Vec<String>> {
        let begun = Instant::now();
        self.retired
            .borrow_mut()
            .retain(|generation| generation.stage() != GenerationStage::Ended);
        ownership::prepare(&config)?;
        self.acme.prepare(&config).map_err(|error| vec![error])?;
        let modules = compile::modules(&config).await?;
        let lists = self.upstreams.lists(&config).await?;
        let files = self.files.of(&config).await.map_err(|error| vec![error])?;
        let opened = OnceCell::new();
        let (sockets, zones) = {
            let state = self.state.borrow();
            let active = state.active().ok_or_else(stopping)?;
            let sockets = active.sockets.prepare(&config)?;
            let store = || self.zone_store(&opened, &config);
            let zones = active
                .current
                .with_zones(|old| zones(&config, store, old))?;
            (sockets, zones)
        };
        self.rows.keep_gauges(&zones);
        let old_metrics = self.memory.borrow().metrics.clone();
        let metrics = Ledger::of(
            config.metrics.max_series,
            old_metrics.as_ref(),
            self.started_at,
        )
        .map_err(|error| vec![format!("{}: {error}", config.metrics.place)])?;
        let number = self.last_generation.get() + 1;
        let identity = self.identity();
        let shared = Shared {
            metrics: Rc::clone(&metrics),
            rows: Rc::clone(&self.rows),
            upstreams: Rc::clone(&self.upstreams),
            acme: Rc::clone(&self.acme.shared),
        };
        let own = (zones, lists, files);
        let started = Generation::start(number, config, modules, own, shared, identity, sockets);
        let generation = started.await?;
        self.make_room(&generation.config).await;
        Ok(Built {
            generation,
            metrics,
            zone_store: opened.into_inner(),
            begun,
        })
    }

    /// Has the generation serve and the one before it drain; returns when new connections meet the new generation only.
    pub(super) async fn put_to_work(&self, built: Built) -> Result<Reloaded, Vec<String>> {
        let (generation, begun) = (Rc::clone(&built.generation), built.begun);
        let (number, workers) = (generation.number, generation.config.workers.count);
        let old = self.install(built)?;
        generation.accepts().await;
        if let Some(old) = old {
            self.warn_of_fixed(&old.config, &generation.config);
            old.drain();
            // From here on every new connection meets the new generation, which is what a reload promises.
            old.accepts_no_more().await;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let listeners = generation.listeners();
        tracing::info!(generation = number, workers, listeners, took = ?begun.elapsed(), "generation serves");
        Ok(Reloaded {
            generation: number,
            workers,
            seconds,
        })
    }

    /// Makes the generation the one that serves, and returns the one that served until now.
    fn install(&self, built: Built) -> Result<Option<Rc<Generation>>, Vec<String>> {
        let Built {
            generation,
            metrics,
            zone_store,
            ..
        } = built;
        let mut state = self.state.borrow_mut();
        let active = state.active_mut().ok_or_else(stopping)?;
        let sockets = &mut active.sockets;
        if let Some(committed) = generation.with_sockets(|set| sockets.commit(set)) {
            committed?;
        }
        let mut memory = self.memory.borrow_mut();
        if zone_store.is_some() {
            memory.zone_store = zone_store;
        }
        metrics.begins();
        // Workers learn their certificates before they serve.
        self.acme.follow(&generation.config, &metrics);
        self.upstreams.count_in(&metrics, &generation.peers);
        generation.serve();
        metrics.metrics().generation_serves(generation.number);
        memory.metrics = Some(metrics);
        self.last_generation.set(generation.number);
        let old = active.current.replace(Current::Serving(generation));
        self.retired.borrow_mut().extend(old.clone());
        Ok(old)
    }

    /// The store of the kv zones, which lie where they lay first, as long as this gateway lives. The first caller puts a new
    /// store into `opened`, not into the master: of a config that is refused nothing stays.
    fn zone_store(
        &self,
        opened: &OnceCell<Rc<ZoneStore>>,
        config: &Config,
    ) -> Result<Rc<ZoneStore>, String> {
        if let Some(store) = &self.memory.borrow().zone_store {
            return Ok(Rc::clone(store));
        }
        if let Some(store) = opened.get() {
            return Ok(Rc::clone(store));
        }
        let folder = placed(&self.paths.zone_store, Some(&config.master.zone_store));
        let store = ZoneStore::open(&folder);
        let store = store.map_err(|error| format!("{}: {error}", folder.place))?;
        Ok(Rc::clone(opened.get_or_init(|| store)))
    }

    /// Warns of changes to what is the master's own and stays as it was at its start.
    fn warn_of_fixed(&self, old: &Config, new: &Config) {
        self.paths.warn_of_others(new);
        let of_master = |log: &config::Log| {
            let file = log.file.as_ref().map(|file| file.path.clone());
            (log.level, log.format, file)
        };
        if of_master(&old.log) != of_master(&new.log) {
            tracing::warn!(
                "[log] takes effect with the next start in the master; workers follow it now"
            );
        }
    }
}

fn stopping() -> Vec<String> {
    vec!["the gateway is stopping".to_owned()]
}

/// Loads the config in a thread of its own: reading may take as long as disk and network please, and the master answers
/// meanwhile.
async fn load_aside(config_path: &Path) -> Result<Config, Vec<String>> {
    let config_path = config_path.to_owned();
    let loaded = tokio::task::spawn_blocking(move || load(&config_path));
    loaded
        .await
        .unwrap_or_else(|error| Err(vec![format!("the config could not be read: {error}")]))
}
