//! `castling upstream`: the peers of an upstream of the running gateway.

use std::num::NonZero;
use std::path::Path;

use clap::Subcommand;

use crate::config::is_of_a_host;
use crate::process::{PeerOrder, Reply, Request};
use crate::transport::PeerAddress;

use super::{Outcome, control, status};

#[derive(Subcommand)]
pub(super) enum UpstreamCommand {
    /// Show its peers
    List,
    /// Add a peer
    Add {
        /// Address: IP:PORT or unix:PATH
        #[arg(value_parser = address)]
        peer: PeerAddress,
        /// Share of the requests in relation to the other peers
        #[arg(long, default_value = "1")]
        weight: NonZero<u16>,
        /// Keep it for the time when no other is available
        #[arg(long)]
        backup: bool,
    },
    /// Take a peer out, wherever it is listed, until it is added again
    Remove {
        #[arg(value_parser = address)]
        peer: PeerAddress,
    },
    /// Let a peer finish what it has; requests that are bound to it may still come
    Drain {
        #[arg(value_parser = address)]
        peer: PeerAddress,
    },
    /// Send nothing new to a peer
    Down {
        #[arg(value_parser = address)]
        peer: PeerAddress,
    },
    /// Take `drain` or `down` back: it is used as its checks say
    Up {
        #[arg(value_parser = address)]
        peer: PeerAddress,
        /// Use it whatever its checks say
        #[arg(long)]
        force: bool,
    },
    /// Give a peer another weight, or `listed`: the one that it is listed with
    Weight {
        #[arg(value_parser = address)]
        peer: PeerAddress,
        #[arg(value_parser = weight)]
        weight: Weight,
    },
}

/// Weight that is ordered; `None`: the one that the peer is listed with.
#[derive(Clone, Copy)]
pub(super) struct Weight(Option<NonZero<u16>>);

fn weight(text: &str) -> Result<Weight, String> {
    match (text, text.parse()) {
        ("listed", _) => Ok(Weight(None)),
        (_, Ok(weight)) => Ok(Weight(Some(weight))),
        (_, Err(_)) => Err("expected 1 to 65535, or `listed`".to_owned()),
    }
}

fn address(text: &str) -> Result<PeerAddress, String> {
    let address = PeerAddress::try_from(text.to_owned());
    let is_good = |address: &PeerAddress| match address {
        PeerAddress::Inet(address) => address.port() != 0 && is_of_a_host(address.ip()),
        PeerAddress::Unix(path) => path.is_absolute(),
    };
    match address {
        Ok(address) if is_good(&address) => Ok(address),
        Ok(_) | Err(_) => Err(
            "expected an address such as 10.0.0.1:80, [fd00::1]:80 or unix:/run/app.sock"
                .to_owned(),
        ),
    }
}

pub(super) fn upstream(config: &Path, name: String, command: Option<UpstreamCommand>) -> Outcome {
    let order = command.and_then(order);
    match control::ask(config, Request::Upstream { name, order })? {
        Reply::Upstream(report) => {
            print!("{}", status::peers_text(&report));
            Ok(())
        }
        other => Err(control::unexpected(other)),
    }
}

/// The order; `None`: nothing is to change.
fn order(command: UpstreamCommand) -> Option<PeerOrder> {
    Some(match command {
        UpstreamCommand::List => return None,
        UpstreamCommand::Add {
            peer: address,
            weight,
            backup,
        } => PeerOrder::Add {
            address,
            weight,
            backup,
        },
        UpstreamCommand::Remove { peer } => PeerOrder::Remove(peer),
        UpstreamCommand::Drain { peer } => PeerOrder::Drain(peer),
        UpstreamCommand::Down { peer } => PeerOrder::Down(peer),
        UpstreamCommand::Up {
            peer: address,
            force,
        } => PeerOrder::Up { address, force },
        UpstreamCommand::Weight {
            peer: address,
            weight: Weight(weight),
        } => PeerOrder::Weight { address, weight },
    })
}
