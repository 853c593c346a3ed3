//! Reports of the gateway about itself: `castling status`, and the answer to `castling reload`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::config::Bind;
use crate::gateway::GatewayStatus;
use crate::wasm::PluginStatus;
use crate::zone::ZoneStatus;

use super::acme::{AcmeReport, AcmeShared};
use super::child::{WorkerChild, WorkerState};
use super::generation::{Generation, GenerationStage};
use super::upstreams::{SourceReport, UpstreamReport};

/// Success of a reload: a new generation serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reloaded {
    pub generation: u64,
    pub workers: usize,
    /// Time from the request to the moment that the new workers were told to accept.
    pub seconds: f64,
}

/// Success of an upgrade: a new master serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upgraded {
    /// Process id of the new master.
    pub pid: u32,
    pub version: String,
    pub generation: u64,
    pub workers: usize,
    /// Time from the request to the moment that the old master's workers had ceased to accept.
    pub seconds: f64,
}

/// State of a gateway and of all its workers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MasterStatus {
    pub version: String,
    /// Process id of the master.
    pub pid: u32,
    pub uptime_seconds: f64,
    pub config: PathBuf,
    /// Generations, the oldest first; the last one serves. Older ones drain.
    pub generations: Vec<GenerationReport>,
    pub workers: Vec<WorkerReport>,
    /// Slots whose workers have died though nobody had told them to end.
    pub deaths: Vec<DeathsReport>,
    /// Plugins of the newest generation, added up over its workers; the state is the worst of theirs.
    pub plugins: Vec<PluginStatus>,
    /// Zones of the newest generation; all its workers see the same.
    pub zones: Vec<ZoneStatus>,
    /// Certificates of the newest generation's listeners. Empty from a master that knew of none.
    #[serde(default)]
    pub certificates: Vec<CertificateReport>,
    /// Certificates that the gateway orders itself. Empty from a master that orders none.
    #[serde(default)]
    pub acme: Vec<AcmeReport>,
    /// Upstreams of the newest generation, with their peers. Empty from a master that did not know them.
    #[serde(default)]
    pub upstreams: Vec<UpstreamReport>,
    /// Names whose addresses are peers.
    #[serde(default)]
    pub sources: Vec<SourceReport>,
}

/// Certificate of a listener.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificateReport {
    pub listener: String,
    pub names: Vec<String>,
    /// Time up to which it is good, RFC 3339 in UTC.
    pub not_after: String,
    /// Whole days until then; negative once it has expired.
    pub days_left: i64,
}

/// State of a generation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GenerationReport {
    pub id: u64,
    /// The pid of its master: after an upgrade an old master's generations drain beside those of the new one.
    pub master: u32,
    /// `serving`, `draining`, `stopping` or `ended`.
    pub state: String,
    /// Time when it came into that state, RFC 3339 in UTC.
    pub since: String,
    /// Time since then.
    pub state_seconds: f64,
    /// Longest time until it has ended; None when it does not drain.
    pub ends_within_seconds: Option<f64>,
    /// Addresses by listener; empty for a generation that no longer accepts.
    pub listeners: BTreeMap<String, Bind>,
}

/// State of a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerReport {
    pub pid: u32,
    pub slot: usize,
    pub generation: u64,
    /// State of its generation, or `starting`, `ended`, or `silent` when it does not answer.
    pub state: String,
    pub uptime_seconds: f64,
    /// The core that it ran on last; none when it has ended.
    pub core: Option<u32>,
    /// Open client connections.
    pub connections: u64,
    /// Requests since its start.
    pub requests: u64,
    /// Requests under way.
    pub requests_active: u64,
}

impl MasterStatus {
    /// Adds what a master says that hands over to this one, and drains.
    pub fn put_before(&mut self, before: Self) {
        self.generations.splice(0..0, before.generations);
        self.workers.splice(0..0, before.workers);
        self.deaths.splice(0..0, before.deaths);
    }
}

/// Deaths of one slot's workers that nobody had told to end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeathsReport {
    pub generation: u64,
    pub slot: usize,
    pub count: u64,
    /// Time of the last death, RFC 3339 in UTC.
    pub at: String,
    /// End of the last worker that died, in words for a person.
    pub last: String,
}

/// Asks every worker; one that does not answer within a second is reported as silent.
pub async fn status(
    config: PathBuf,
    started: Instant,
    generations: Vec<Rc<Generation>>,
    ordered: &AcmeShared,
) -> MasterStatus {
    let mut status = MasterStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_seconds: started.elapsed().as_secs_f64(),
        config: std::path::absolute(&config).unwrap_or(config),
        generations: generations
            .iter()
            .map(|generation| generation_report(generation))
            .collect(),
        workers: Vec::new(),
        deaths: generations
            .iter()
            .flat_map(|generation| deaths_report(generation))
            .collect(),
        plugins: Vec::new(),
        zones: Vec::new(),
        certificates: certificates(&generations, ordered),
        acme: Vec::new(),
        upstreams: Vec::new(),
        sources: Vec::new(),
    };
    let asked = generations.iter().flat_map(|generation| {
        generation
            .workers()
            .into_iter()
            .map(move |worker| async move {
                let answer = worker.status().await;
                (generation, worker, answer)
            })
    });
    let newest = generations.iter().map(|generation| generation.number).max();
    for (generation, worker, answer) in futures_util::future::join_all(asked).await {
        status
            .workers
            .push(worker_report(generation, &worker, answer.as_ref()));
        if Some(generation.number) == newest
            && let Some(answer) = answer
        {
            add_plugins(&mut status.plugins, answer.plugins);
            status.zones = answer.zones;
        }
    }
    status
}

fn certificates(
    generations: &[Rc<Generation>],
    ordered_by_id: &AcmeShared,
) -> Vec<CertificateReport> {
    let newest = generations
        .iter()
        .max_by_key(|generation| generation.number);
    let listeners = newest
        .into_iter()
        .flat_map(|newest| &newest.config.listeners);
    let now = jiff::Timestamp::now().as_second();
    let reports = listeners.flat_map(|(listener, config)| {
        let tls = config.tls.iter();
        let ordered = tls.clone().flat_map(|tls| &tls.acme);
        let ordered = ordered.filter_map(|it| ordered_by_id.certificate(&it.id()));
        let certificates = tls.flat_map(|tls| &tls.certificates).cloned();
        certificates.chain(ordered).filter_map(move |certificate| {
            let not_after = certificate.validity()?.not_after;
            Some(CertificateReport {
                listener: listener.clone(),
                names: certificate.names,
                not_after: jiff::Timestamp::from_second(not_after).ok()?.to_string(),
                days_left: (not_after - now).div_euclid(24 * 3600),
            })
        })
    });
    reports.collect()
}

fn generation_report(generation: &Generation) -> GenerationReport {
    let listeners = generation.with_sockets(|sockets| {
        sockets
            .addresses()
            .map(|(name, address)| (name.to_owned(), address.clone()))
            .collect()
    });
    let state_since = generation.stage_since();
    let stage = generation.stage();
    let ends = (stage == GenerationStage::Draining).then(|| generation.time_left().as_secs_f64());
    GenerationReport {
        id: generation.number,
        master: std::process::id(),
        state: stage.name().to_owned(),
        since: format!("{state_since:.3}"),
        state_seconds: jiff::Timestamp::now()
            .duration_since(state_since)
            .as_secs_f64()
            .max(0.0),
        ends_within_seconds: ends,
        listeners: listeners.unwrap_or_default(),
    }
}

fn deaths_report(generation: &Generation) -> Vec<DeathsReport> {
    let of_slots = generation.deaths().into_iter().enumerate();
    let reports = of_slots.filter_map(|(slot, deaths)| {
        Some(DeathsReport {
            generation: generation.number,
            slot,
            count: deaths.count,
            at: format!("{:.3}", deaths.last_at?),
            last: deaths.last?,
        })
    });
    reports.collect()
}

fn worker_report(
    generation: &Generation,
    worker: &WorkerChild,
    answer: Option<&GatewayStatus>,
) -> WorkerReport {
    let state = match (worker.state(), answer) {
        (WorkerState::Starting, _) => "starting",
        (WorkerState::Ended(_), _) => "ended",
        (WorkerState::Ready | WorkerState::Serving | WorkerState::Draining, None) => "silent",
        (WorkerState::Ready | WorkerState::Serving | WorkerState::Draining, Some(_)) => {
            generation.stage().name()
        }
    };
    WorkerReport {
        pid: worker.pid,
        slot: worker.slot,
        generation: generation.number,
        state: state.to_owned(),
        uptime_seconds: worker.started.elapsed().as_secs_f64(),
        core: worker.is_alive().then(|| core_of(worker.pid)).flatten(),
        connections: answer.map_or(0, |answer| answer.connections as u64),
        requests: answer.map_or(0, |answer| answer.requests_total),
        requests_active: answer.map_or(0, |answer| answer.requests_active as u64),
    }
}

/// The core that a process ran on last (proc_pid_stat(5), field 39).
fn core_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the process's name in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(36)?.parse().ok()
}

fn add_plugins(sum: &mut Vec<PluginStatus>, plugins: Vec<PluginStatus>) {
    for plugin in plugins {
        match sum.iter_mut().find(|known| known.name == plugin.name) {
            Some(known) => {
                known.instances += plugin.instances;
                known.instances_in_use += plugin.instances_in_use;
                known.instances_limit += plugin.instances_limit;
                known.waiting += plugin.waiting;
                known.calls += plugin.calls;
                known.failures += plugin.failures;
                known.traps += plugin.traps;
                known.exhausted += plugin.exhausted;
                known.after_responses += plugin.after_responses;
                known.after_responses_lost += plugin.after_responses_lost;
                if badness(&plugin.state) > badness(&known.state) {
                    known.state = plugin.state;
                }
            }
            None => sum.push(plugin),
        }
    }
}

/// Rank of a plugin's state in one worker: the worst of all is shown.
fn badness(state: &str) -> u8 {
    match state {
        "in" => 0,
        "trial" => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_on_a_core() {
        assert!(core_of(std::process::id()).is_some_and(|core| core < 65536));
        assert_eq!(core_of(u32::MAX), None);
    }

    #[test]
    fn a_plugin_is_in_the_worst_state_of_its_workers() {
        let of_worker = |state: &str| PluginStatus {
            name: "p".to_owned(),
            traps: 2,
            state: state.to_owned(),
            ..PluginStatus::default()
        };
        for (states, worst) in [
            (["in", "in", "in"], "in"),
            (["in", "trial", "in"], "trial"),
            (["trial", "out", "in"], "out"),
            (["out", "in", "trial"], "out"),
            (["in", "out", "trial"], "out"),
        ] {
            let mut sum = Vec::new();
            for state in states {
                add_plugins(&mut sum, vec![of_worker(state)]);
            }
            assert_eq!((sum.len(), sum[0].traps), (1, 6));
            assert_eq!(sum[0].state, worst, "{states:?}");
        }
    }
}
