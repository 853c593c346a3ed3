//! Facts that all instances of a plugin are made with.

use std::sync::Arc;
use std::time::Duration;

use castling_abi::Hook;

use super::granted_file::GrantedFiles;
use super::guest::{Files, GrantedZone, Zones};
use super::limit::LineBudget;
use crate::config::{self, GrantedHost, OwnRoutes, PluginLimits};
use crate::metrics::{PermitMetrics, PluginMetrics, Recorder};
use crate::zone::{self, Zone};

/// Facts that every instance of a plugin has alike.
pub(super) struct InstanceTemplate {
    pub(super) plugin: Arc<str>,
    /// Config of the plugin, as JSON.
    pub(super) config: Arc<str>,
    pub(super) memory_limit_bytes: usize,
    pub(super) cpu_limit: Duration,
    /// CPU time of `configure` and of what runs before it.
    pub(super) configure_cpu_limit: Duration,
    /// CPU time of all its hooks for one request; `None`: no limit.
    pub(super) request_cpu_limit: Option<Duration>,
    /// Largest body that it may have read or be answered.
    pub(super) body_limit_bytes: usize,
    /// Calls out that a request may make.
    pub(super) calls_limit: usize,
    pub(super) zones: Zones,
    pub(super) files: Files,
    pub(super) hosts: Arc<[GrantedHost]>,
    /// Upstreams that it may call.
    pub(super) upstreams: Arc<[Arc<str>]>,
    /// The plugin may call the gateway's own routes.
    pub(super) own_routes: bool,
    pub(super) hooks: Vec<Hook>,
    /// Variables of the manifest.
    pub(super) computes: Arc<[String]>,
    pub(super) limits: Arc<PluginLimits>,
    pub(super) log_lines: Arc<LineBudget>,
    pub(super) metrics: Arc<PluginMetrics>,
}

/// Template of the instances of a plugin with this config are made from.
pub(super) fn template(
    name: &Arc<str>,
    (hooks, computes): (Vec<Hook>, Arc<[String]>),
    config: &config::Plugin,
    (zones, files): (&zone::Zones, &GrantedFiles),
    metrics: Arc<PluginMetrics>,
    recorder: Recorder,
) -> InstanceTemplate {
    InstanceTemplate {
        log_lines: LineBudget::new(name, config.limits.log_lines),
        limits: Arc::new(config.limits.clone()),
        plugin: Arc::clone(name),
        config: Arc::from(config.config.as_str()),
        memory_limit_bytes: config.limits.memory_bytes,
        cpu_limit: config.limits.cpu,
        configure_cpu_limit: config.limits.configure_cpu,
        request_cpu_limit: config.limits.request_cpu,
        body_limit_bytes: config.limits.body_bytes,
        zones: granted_zones(config, zones, recorder),
        files: granted_files(config, files),
        hosts: granted_hosts(config),
        calls_limit: config.limits.calls as usize,
        upstreams: config
            .grants
            .upstreams
            .iter()
            .flatten()
            .map(|name| Arc::from(name.as_str()))
            .collect(),
        own_routes: config.grants.own_routes != OwnRoutes::Refused,
        hooks,
        computes,
        metrics,
    }
}

fn granted_zones(config: &config::Plugin, zones: &zone::Zones, recorder: Recorder) -> Zones {
    let granted = config.grants.zones.iter().flatten();
    let granted = granted.filter_map(|name| {
        let zone = zones.get(name)?;
        Some(GrantedZone {
            name: Arc::from(name.as_str()),
            zone: Arc::clone(zone),
            permits: match **zone {
                Zone::Gauge(_) => recorder.permits(name),
                Zone::Counter(_) | Zone::Kv(_) | Zone::Topic(_) | Zone::Cache(_) => {
                    PermitMetrics::default()
                }
            },
        })
    });
    granted.collect()
}

fn granted_hosts(config: &config::Plugin) -> Arc<[GrantedHost]> {
    let hosts = config.grants.hosts.iter();
    hosts.flat_map(|hosts| &hosts.names).cloned().collect()
}

fn granted_files(config: &config::Plugin, files: &GrantedFiles) -> Files {
    let granted = config.grants.files.iter().flatten();
    let file = |file: &config::GrantedFile| {
        let opened = files.get(&file.whole_path())?;
        Some((Arc::from(file.name.as_str()), Arc::clone(opened)))
    };
    granted.filter_map(file).collect()
}

#[cfg(test)]
impl InstanceTemplate {
    /// Template of a plugin without hooks, with default limits.
    pub(super) fn of_test() -> Self {
        let (plugin, limits) = (Arc::from("test"), PluginLimits::default());
        Self {
            config: Arc::from("{}"),
            memory_limit_bytes: limits.memory_bytes,
            cpu_limit: limits.cpu,
            configure_cpu_limit: limits.configure_cpu,
            request_cpu_limit: limits.request_cpu,
            body_limit_bytes: limits.body_bytes,
            calls_limit: limits.calls as usize,
            zones: Arc::default(),
            files: Arc::default(),
            hosts: Arc::default(),
            upstreams: Arc::default(),
            own_routes: false,
            hooks: Vec::new(),
            computes: Arc::default(),
            metrics: PluginMetrics::new(
                Recorder::alone(256).expect("the metrics' memory can be made"),
                &plugin,
                "test",
                10,
            ),
            log_lines: LineBudget::new(&plugin, limits.log_lines),
            limits: Arc::new(limits),
            plugin,
        }
    }
}
