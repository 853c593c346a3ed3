//! Closed-loop load: wrk, which sends as fast as it is answered.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::peer::on_path;

/// Load that wrk is to send.
#[derive(Clone, Debug)]
pub(super) struct Saturation {
    pub(super) url: String,
    pub(super) connections: u32,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    /// A program for wrk that makes the requests.
    pub(super) script: Option<PathBuf>,
    /// A config for OpenSSL, which says what is spoken: wrk itself has no option for that.
    pub(super) openssl: PathBuf,
}

/// Figures that a driver tells.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Answered {
    /// Answered by a 2xx or 3xx.
    pub(super) requests: u64,
    /// Other statuses than 2xx and 3xx, and sockets that failed.
    pub(super) failed: u64,
    pub(super) seconds: f64,
}

impl Saturation {
    /// `wrapper` is a command that runs wrk; with one, it runs for whole seconds.
    pub(super) fn run(&self, seconds: f64, wrapper: &[&str]) -> Result<Answered, String> {
        on_path("wrk")?;
        let mut words: Vec<String> = wrapper.iter().map(|word| (*word).to_owned()).collect();
        words.push("wrk".to_owned());
        words.extend(["-t", "1", "-c"].map(str::to_owned));
        words.push(self.connections.to_string());
        let whole_seconds = seconds.ceil().max(1.0);
        words.extend(["-d".to_owned(), format!("{whole_seconds}s")]);
        for (name, value) in &self.headers {
            words.extend(["-H".to_owned(), format!("{name}: {value}")]);
        }
        if let Some(script) = &self.script {
            words.extend(["-s".to_owned(), script.display().to_string()]);
        }
        words.push(self.url.clone());
        let of_wrapper = |error| format!("{}: {error}", words[0]);
        let child = Command::new(&words[0])
            .args(&words[1..])
            .env("OPENSSL_CONF", &self.openssl)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(of_wrapper)?;
        if wrapper.is_empty() && seconds < whole_seconds {
            // The program takes whole seconds only, but tells what was when it is interrupted, too.
            thread::sleep(Duration::from_secs_f64(seconds));
            // Where it has ended already, its output says why.
            let _ended = kill_process(Pid::from_child(&child), Signal::INT);
        }
        let output = child.wait_with_output().map_err(of_wrapper)?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return Err(format!(
                "{}: {text}{}",
                words.join(" "),
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        Answered::parse(&text).ok_or_else(|| format!("{}: {text}", words.join(" ")))
    }
}

impl Answered {
    fn parse(text: &str) -> Option<Self> {
        let mut answered = Self::default();
        for line in text.lines().map(str::trim) {
            if let Some((requests, rest)) = line.split_once(" requests in ") {
                answered.requests = requests.parse().ok()?;
                answered.seconds = seconds(rest.split(',').next()?)?;
            } else if let Some(number) = line.strip_prefix("Non-2xx or 3xx responses: ") {
                let others = number.parse::<u64>().ok()?;
                answered.requests = answered.requests.saturating_sub(others);
                answered.failed += others;
            } else if let Some(kinds) = line.strip_prefix("Socket errors: ") {
                let numbers = kinds.split(", ").filter_map(|kind| kind.split_once(' '));
                answered.failed += numbers
                    .filter_map(|(_, n)| n.parse::<u64>().ok())
                    .sum::<u64>();
            }
        }
        (answered.seconds > 0.0).then_some(answered)
    }
}

/// wrk writes "995.00ms", "2.00s", "1.50m".
fn seconds(text: &str) -> Option<f64> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = text[..unit_at].parse().ok()?;
    let unit = match &text[unit_at..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Some(number * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Running 2s test @ http://127.0.0.1:8080/34
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.20ms  300.00us   9.00ms   90.00%
    Req/Sec    54.00k     1.00k   56.00k    70.00%
  108500 requests in 2.00s, 20.10MB read
Requests/sec:  54210.11
Transfer/sec:     10.04MB
";

    #[test]
    fn wrks_words_are_read() {
        let answered = Answered::parse(SAID).unwrap();
        assert_eq!(
            (answered.requests, answered.failed, answered.seconds),
            (108_500, 0, 2.0)
        );
        assert_eq!(Answered::parse("unable to connect to 127.0.0.1:1"), None);
    }

    #[test]
    fn what_failed_is_counted() {
        let failed = SAID.replace(
            "Requests/sec:",
            "  Socket errors: connect 0, read 3, write 1, timeout 0\n  Non-2xx or 3xx responses: 5\nRequests/sec:",
        );
        assert_eq!(Answered::parse(&failed).unwrap().failed, 9);
    }

    #[test]
    fn times_have_units() {
        assert_eq!(seconds("995.00ms"), Some(0.995));
        assert_eq!(seconds("1.50m"), Some(90.0));
        assert_eq!(seconds("2"), None);
    }
}
