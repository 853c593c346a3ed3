//! Closed-loop load, which sends as fast as it is answered, by the driver that a case wants.

use super::h2load::H2load;
use super::handshakes::{Clients, Handshakes};
use super::wrk::{Answered, Saturation};

pub(super) enum Load {
    Wrk(Saturation),
    H2load(H2load),
    Handshakes(Handshakes),
}

/// A load whose clients have done what is not to be measured.
pub(super) enum Ready<'a> {
    Wrk(&'a Saturation),
    H2load(&'a H2load),
    Handshakes(Clients<'a>),
}

impl Load {
    pub(super) fn ready(&self) -> Result<Ready<'_>, String> {
        Ok(match self {
            Self::Wrk(load) => Ready::Wrk(load),
            Self::H2load(load) => Ready::H2load(load),
            Self::Handshakes(load) => Ready::Handshakes(load.clients()?),
        })
    }

    /// Whether a command can be wrapped around it.
    pub(super) fn is_program(&self) -> bool {
        match self {
            Self::Wrk(_) | Self::H2load(_) => true,
            Self::Handshakes(_) => false,
        }
    }
}

impl Ready<'_> {
    /// `wrapper` is a command that runs the driver where that [is a program](Load::is_program).
    pub(super) fn run(&self, seconds: f64, wrapper: &[&str]) -> Result<Answered, String> {
        match self {
            Self::Wrk(load) => load.run(seconds, wrapper),
            Self::H2load(load) => load.run(seconds, wrapper),
            Self::Handshakes(clients) => Ok(clients.run(seconds)),
        }
    }
}
