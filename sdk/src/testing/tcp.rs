//! Connections, answered by what a test has scripted.

use std::collections::BTreeMap;

use castling_abi::{MOST_CONNECTIONS, Status};

use super::Exchange;
use super::hook::may_wait;
use super::world::with_facts;

/// Connections of one exchange.
#[derive(Default)]
pub(super) struct Connections {
    /// By upstream; those that are there are granted.
    scripts: BTreeMap<Vec<u8>, Script>,
    open: Vec<Option<Connection>>,
}

type Script = Box<dyn FnMut(&[u8]) -> Vec<u8>>;

struct Connection {
    upstream: Vec<u8>,
    /// Bytes that were answered and not read.
    answered: Vec<u8>,
}

impl Exchange {
    /// Grants an upstream and says what a connection to one of its peers answers to each piece that is written, which may be nothing.
    /// When all that was answered is read, the peer has ended.
    #[must_use]
    pub fn tcp(self, upstream: &str, answer: impl FnMut(&[u8]) -> Vec<u8> + 'static) -> Self {
        let name = upstream.as_bytes().to_vec();
        let mut facts = self.facts.borrow_mut();
        facts.connections.scripts.insert(name, Box::new(answer));
        drop(facts);
        self
    }
}

pub(crate) fn tcp_connect(upstream: &[u8], _milliseconds: u32) -> i32 {
    with_facts(|facts| {
        let all = &mut facts.connections;
        if !all.scripts.contains_key(upstream) {
            return Status::NotGranted as i32;
        }
        if !may_wait() {
            return Status::NotNow as i32;
        }
        if all.open.iter().flatten().count() >= MOST_CONNECTIONS {
            return Status::Full as i32;
        }
        all.open.push(Some(Connection {
            upstream: upstream.to_vec(),
            answered: Vec::new(),
        }));
        i32::try_from(all.open.len() - 1).unwrap_or(i32::MAX)
    })
}

pub(crate) fn tcp_read(connection: u32, out: &mut [u8], _milliseconds: u32) -> i32 {
    with_open(connection, |_, open| {
        let len = open.answered.len().min(out.len());
        out[..len].copy_from_slice(&open.answered[..len]);
        open.answered.drain(..len);
        i32::try_from(len).unwrap_or(i32::MAX)
    })
}

pub(crate) fn tcp_write(connection: u32, bytes: &[u8], _milliseconds: u32) -> i32 {
    with_open(connection, |scripts, open| {
        if let Some(script) = scripts.get_mut(&open.upstream) {
            open.answered.extend(script(bytes));
        }
        0
    })
}

pub(crate) fn tcp_close(connection: u32) -> i32 {
    with_facts(|facts| {
        let mut open = facts.connections.open.iter_mut();
        match open.nth(connection as usize).and_then(Option::take) {
            Some(_) => 0,
            None => Status::BadArgument as i32,
        }
    })
}

/// No connection fails here.
pub(crate) fn tcp_error(_out: &mut [u8]) -> i32 {
    Status::NotFound as i32
}

fn with_open(
    connection: u32,
    use_it: impl FnOnce(&mut BTreeMap<Vec<u8>, Script>, &mut Connection) -> i32,
) -> i32 {
    if !may_wait() {
        return Status::NotNow as i32;
    }
    with_facts(|facts| {
        let Connections { scripts, open } = &mut facts.connections;
        match open.get_mut(connection as usize).and_then(Option::as_mut) {
            Some(open) => use_it(scripts, open),
            None => Status::BadArgument as i32,
        }
    })
}
