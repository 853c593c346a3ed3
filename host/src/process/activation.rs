//! Sockets that systemd has bound before it started the gateway (socket activation, sd_listen_fds(3)).
//!
//! systemd holds them, too: whatever the gateway does, they are there when it starts again, and what connected
//! meanwhile waits in them.

use std::os::fd::{AsFd, OwnedFd};

use crate::config::Config;

use super::sockets::{Adopted, address_of};
use super::sys;

/// A descriptor that has come with the process.
pub struct Activated {
    /// `FileDescriptorName=` of the socket unit.
    name: String,
    socket: OwnedFd,
}

/// Takes all sockets that systemd has handed to this process. To be called once, before anything else is opened. The error is
/// for a person.
pub fn descriptors() -> Result<Vec<Activated>, String> {
    let about = |error: std::io::Error| format!("LISTEN_FDS: {error}");
    let named = sd_notify::listen_fds_with_names().map_err(about)?;
    named
        .map(|(fd, name)| {
            let socket = sys::inherited(fd).map_err(about)?;
            Ok(Activated { name, socket })
        })
        .collect()
}

/// Picks the sockets whose address a listener of the config has. The others are closed here, with a warning.
pub fn sockets_for(config: &Config, activated: Vec<Activated>) -> Vec<Adopted> {
    let wanted = |Activated { name, socket }: Activated| {
        let bind = match address_of(socket.as_fd()) {
            Ok(bind) => bind,
            Err(reason) => {
                tracing::warn!(
                    name,
                    reason,
                    "a socket from systemd is of no use: closed here"
                );
                return None;
            }
        };
        if !config
            .listeners
            .values()
            .any(|listener| listener.bind == bind)
        {
            tracing::warn!(name, address = %bind, "no listener has the address of a socket from systemd: closed here");
            return None;
        }
        // The flag belongs to the open socket, which systemd does not read from.
        if let Err(error) = rustix::io::ioctl_fionbio(&socket, true) {
            tracing::warn!(name, address = %bind, %error, "a socket from systemd is of no use: closed here");
            return None;
        }
        tracing::info!(name, address = %bind, "listens on a socket from systemd");
        Some(Adopted {
            bind,
            socket,
            owns_file: false,
        })
    };
    activated.into_iter().filter_map(wanted).collect()
}
