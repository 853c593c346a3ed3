//! System calls of a proxy, counted in a run of their own: counting slows it down.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::counters;
use super::load::Ready;
use super::peer::on_path;

/// System calls a request, by `perf` where the kernel lets it, else by `strace`. An error says why neither could.
pub(super) fn a_request(root: u32, load: &Ready<'_>, work: &Path) -> Result<f64, String> {
    by_perf(root, load, work).or_else(|perf| {
        by_strace(root, load, work).map_err(|strace| format!("perf: {perf}; strace: {strace}"))
    })
}

fn by_perf(root: u32, load: &Ready<'_>, work: &Path) -> Result<f64, String> {
    on_path("perf")?;
    let file = work.join("perf.txt");
    let pids: Vec<String> = counters::tree(root).iter().map(u32::to_string).collect();
    let (pids, out) = (pids.join(","), file.display().to_string());
    // The counting of these processes lasts as long as the command runs.
    let wrapper = [
        "perf",
        "stat",
        "-x,",
        "-o",
        &out,
        "-e",
        "raw_syscalls:sys_enter",
        "-p",
        &pids,
        "--",
    ];
    let answered = load.run(1.0, &wrapper)?;
    let text = fs::read_to_string(&file).map_err(|e| format!("{out}: {e}"))?;
    let calls = perf_count(&text).ok_or_else(|| format!("{out}: {text}"))?;
    Ok(calls as f64 / answered.requests.max(1) as f64)
}

fn perf_count(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.contains("raw_syscalls:sys_enter"))?;
    line.split(',').next()?.parse().ok()
}

fn by_strace(root: u32, load: &Ready<'_>, work: &Path) -> Result<f64, String> {
    on_path("strace")?;
    let file = work.join("strace.txt");
    let pids = counters::tree(root);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-o"]).arg(&file);
    for pid in &pids {
        strace.args(["-p", &pid.to_string()]);
    }
    let mut strace = strace
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let mut said = BufReader::new(strace.stderr.take().ok_or("no output")?);
    let mut attached = 0;
    let mut line = String::new();
    while attached < pids.len() && said.read_line(&mut line).map_err(|e| e.to_string())? > 0 {
        attached += usize::from(line.contains("attached"));
        line.clear();
    }
    let answered = load.run(1.0, &[]);
    if let Some(pid) = i32::try_from(strace.id()).ok().and_then(Pid::from_raw) {
        kill_process(pid, Signal::INT).map_err(|e| e.to_string())?;
    }
    strace.wait().map_err(|e| e.to_string())?;
    let text = fs::read_to_string(&file).map_err(|e| e.to_string())?;
    let calls = strace_count(&text).ok_or_else(|| format!("it has counted nothing: {text}"))?;
    Ok(calls as f64 / answered?.requests.max(1) as f64)
}

/// The calls in the line of the total: `100.00 0.5 4 12345 [errors] total`.
fn strace_count(text: &str) -> Option<u64> {
    let total = text.lines().rfind(|line| line.ends_with(" total"))?;
    total.split_ascii_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_reports_are_read() {
        let perf = "# started on Sun Nov 22\n\n513400,,raw_syscalls:sys_enter,1000,100.00,,\n";
        assert_eq!(perf_count(perf), Some(513_400));
        assert_eq!(
            perf_count("<not supported>,,raw_syscalls:sys_enter,,,"),
            None
        );
        let strace = "% time seconds usecs/call calls errors syscall\n\
            ------ ----------- ----------- --------- --------- ----------------\n\
            60.00    0.030000           1     30000           sendto\n\
            100.00    0.050000           1     70000       120 total\n";
        assert_eq!(strace_count(strace), Some(70_000));
    }
}
