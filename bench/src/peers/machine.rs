//! The machine that was measured on, and whether something else ran there.

use std::fs;
use std::process::Command;

use rustix::thread::CpuSet;

/// Description of the machine in the report.
pub(super) fn description() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = value(&cpuinfo, "model name").unwrap_or("unknown");
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let virtual_machine = cpuinfo
        .lines()
        .any(|line| line.starts_with("flags") && line.contains(" hypervisor"));
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory_kib: u64 = value(&meminfo, "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{cores} cores of {model}{}, {} GiB, Linux {}",
        if virtual_machine {
            " in a virtual machine"
        } else {
            ""
        },
        memory_kib >> 20,
        kernel.trim(),
    )
}

/// `2026-01-31`.
pub(super) fn today() -> String {
    let date = Command::new("date").arg("+%Y-%m-%d").output();
    date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

/// Cores that this program may run on.
pub(super) fn cores() -> Vec<usize> {
    let allowed = rustix::thread::sched_getaffinity(None);
    let is_allowed = |core: &usize| allowed.as_ref().is_ok_and(|cores| cores.is_set(*core));
    (0..CpuSet::MAX_CPU).filter(is_allowed).collect()
}

/// This program, its threads and what it starts from now on.
pub(super) fn stay_on(core: usize) -> Result<(), String> {
    let mut cores = CpuSet::new();
    cores.set(core);
    rustix::thread::sched_setaffinity(None, &cores)
        .map_err(|e| format!("cannot be bound to core {core}: {e}"))
}

fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .map(|(found, value)| (found.trim(), value.trim()))
        .find_map(|(found, value)| (found == key).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_key() {
        let cpuinfo = "processor\t: 0\nmodel name\t: AMD EPYC\nprocessor\t: 1\n";
        assert_eq!(value(cpuinfo, "model name"), Some("AMD EPYC"));
        assert_eq!(value(cpuinfo, "bogomips"), None);
    }
}
