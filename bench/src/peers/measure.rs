//! One turn of one peer.

use std::path::PathBuf;
use std::time::Instant;

use super::case::{Measure, Sends};
use super::counters::Counters;
use super::metric::Turn;
use super::peer::Running;
use super::probe::KEY;
use super::syscalls;
use super::wrk::Saturation;
use crate::Places;

/// How turns of a case are taken.
pub(super) struct Method<'a> {
    pub(super) places: &'a Places,
    pub(super) measure: Measure,
    pub(super) seconds: f64,
    pub(super) connections: u32,
}

impl Method<'_> {
    /// What is to be done once before the rounds, with all peers of the case.
    pub(super) fn prepare(&self, peers: &[Running]) -> Result<(), String> {
        for running in peers {
            if let Measure::Saturated(sends) = self.measure {
                // Opens connections and compiles what is compiled late.
                self.load(running, sends).answered(1.0)?;
            }
        }
        Ok(())
    }

    pub(super) fn turn(&self, running: &Running) -> Result<Turn, String> {
        match self.measure {
            Measure::Saturated(sends) => self.saturated(running, sends),
            _ => Err("not yet".into()),
        }
    }

    /// None where a case is not about that.
    pub(super) fn syscalls(&self, running: &Running) -> Option<Result<f64, String>> {
        let Measure::Saturated(sends) = self.measure else {
            return None;
        };
        let load = self.load(running, sends);
        Some(syscalls::a_request(
            running.root(),
            &load.saturation(),
            &self.places.work,
        ))
    }

    fn saturated(&self, running: &Running, sends: Sends) -> Result<Turn, String> {
        let before = Counters::of_tree(running.root());
        let begun = Instant::now();
        let answered = self.load(running, sends).answered(self.seconds)?;
        Ok(Turn {
            requests: answered.requests,
            failed: answered.failed,
            seconds: begun.elapsed().as_secs_f64(),
            used: Counters::of_tree(running.root()) - before,
            ..Turn::default()
        })
    }

    fn load(&self, running: &Running, sends: Sends) -> Load {
        let mut headers = vec![KEY];
        if sends.closes {
            headers.push(("Connection", "close"));
        }
        Load {
            url: format!("http://{}{}", running.address, sends.path),
            connections: self.connections,
            headers,
            script: sends
                .body
                .then(|| self.places.bench.join("peers/request-body.lua")),
        }
    }
}

struct Load {
    url: String,
    connections: u32,
    headers: Vec<(&'static str, &'static str)>,
    script: Option<PathBuf>,
}

impl Load {
    fn saturation(&self) -> Saturation<'_> {
        Saturation {
            url: self.url.clone(),
            connections: self.connections,
            headers: &self.headers,
            script: self.script.as_deref(),
        }
    }

    fn answered(&self, seconds: f64) -> Result<super::wrk::Answered, String> {
        self.saturation().run(seconds, &[])
    }
}
