//! The system's files on names, read when they have changed: the helper that asks has no files.

use std::cell::RefCell;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use super::{Hosts, ResolvConf};
use crate::config::Family;
use crate::fetch::Found;

/// Time of a file's last change, its length and its number: what tells that it is another.
pub type Stamp = (SystemTime, u64, u64);

/// Stamp of a file; `None` where there is none.
pub fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    Some((file.modified().ok()?, file.len(), file.ino()))
}

/// Both files, as they were when they were looked at last.
#[derive(Default)]
pub struct SystemNames {
    hosts: RefCell<Kept<Hosts>>,
    resolv_conf: RefCell<Kept<ResolvConf>>,
}

#[derive(Default)]
struct Kept<T> {
    value: T,
    /// `None` where the file cannot be read.
    stamp: Option<Stamp>,
}

impl SystemNames {
    /// Addresses of a name by the system's own list.
    pub fn in_hosts(&self, name: &str, port: u16, family: Family) -> Vec<Found> {
        let mut hosts = self.hosts.borrow_mut();
        hosts.look_at(HOSTS, Hosts::read);
        let addresses = hosts.value.of(name).into_iter();
        let wanted = addresses.filter(|address| match family {
            Family::Any => true,
            Family::Ipv4 => address.is_ipv4(),
            Family::Ipv6 => address.is_ipv6(),
        });
        let found = wanted.map(|address| Found::at(SocketAddr::new(address, port), None));
        found.collect()
    }

    /// Servers that the system asks, and how.
    pub fn resolv_conf(&self) -> ResolvConf {
        let mut resolv_conf = self.resolv_conf.borrow_mut();
        resolv_conf.look_at(RESOLV_CONF, ResolvConf::read);
        resolv_conf.value.clone()
    }
}

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";

impl<T: Default> Kept<T> {
    /// Reads the file again if it has changed. Without the file, what it would say is the default.
    fn look_at(&mut self, path: &str, read: impl Fn(&str) -> T) {
        let path = Path::new(path);
        let stamp = stamp(path);
        if stamp.is_none() || stamp != self.stamp {
            let bytes = fs::read(path).unwrap_or_default();
            self.value = read(&String::from_utf8_lossy(&bytes));
            self.stamp = stamp;
        }
    }
}
