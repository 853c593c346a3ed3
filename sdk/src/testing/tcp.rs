//! Connections, answered by what a test has scripted.

use std::collections::BTreeMap;
use std::time::Duration;

use castling_abi::rules::{self, Rule, limits::TCP_READ_BYTES};
use castling_abi::{LONGEST_DELAY_MS, MOST_CONNECTIONS, Status};

use super::hook::may;
use super::host::hand_out;
use super::world::{with_facts, with_world};
use super::{Exchange, advance_clock};

/// Connections of one exchange.
#[derive(Default)]
pub(super) struct Connections {
    /// By upstream; those that are there are granted.
    scripts: BTreeMap<Vec<u8>, Script>,
    open: Vec<Option<Connection>>,
    /// Reason for which the last work has failed.
    pub(super) error: Option<String>,
}

impl Connections {
    /// Whether the upstream is granted.
    pub(super) fn has(&self, upstream: &[u8]) -> bool {
        self.scripts.contains_key(upstream)
    }
}

type Script = Box<dyn FnMut(TcpEvent<'_>) -> TcpAnswer>;

struct Connection {
    upstream: Vec<u8>,
    /// The plugin that has opened it.
    plugin: usize,
    /// Bytes that were answered and not read.
    answered: Vec<u8>,
}

/// Event on a connection that a test answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpEvent<'a> {
    /// The plugin connects.
    Connect,
    /// The plugin has written this.
    Write(&'a [u8]),
    /// The plugin reads, and all that was answered is read.
    Read,
}

/// Answer to a [`TcpEvent`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TcpAnswer {
    /// It is done, and the peer sends this, which may be nothing: to a read, nothing is the peer's end.
    Sends(Vec<u8>),
    /// It fails for this reason.
    Fails(String),
    /// Nothing comes of it in the time that the plugin waits.
    TimesOut,
}

impl Exchange {
    /// Grants an upstream and says what a connection to one of its peers answers to each piece that is written, which may be nothing.
    /// When all that was answered is read, the peer has ended.
    #[must_use]
    pub fn tcp(self, upstream: &str, mut answer: impl FnMut(&[u8]) -> Vec<u8> + 'static) -> Self {
        self.tcp_events(upstream, move |event| {
            TcpAnswer::Sends(match event {
                TcpEvent::Write(bytes) => answer(bytes),
                TcpEvent::Connect | TcpEvent::Read => Vec::new(),
            })
        })
    }

    /// Grants an upstream and says what comes of each event on a connection to one of its peers, failures and time-outs among it.
    ///
    /// ```
    /// # use castling_sdk::prelude::*;
    /// # use castling_sdk::tcp;
    /// # use castling_sdk::testing::{Exchange, TcpAnswer, TcpEvent};
    /// let mut exchange = Exchange::get("/").tcp_events("redis", |event| match event {
    ///     TcpEvent::Connect | TcpEvent::Write(_) => TcpAnswer::Sends(Vec::new()),
    ///     TcpEvent::Read => TcpAnswer::TimesOut,
    /// });
    /// exchange.request();
    /// use std::io::Read;
    /// let mut connection = tcp::connect("redis", Duration::from_secs(1))?;
    /// let failed = connection.read(&mut [0; 8]).unwrap_err();
    /// assert!(failed.to_string().contains("1s"), "{failed}");
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn tcp_events(
        self,
        upstream: &str,
        answer: impl FnMut(TcpEvent<'_>) -> TcpAnswer + 'static,
    ) -> Self {
        let name = upstream.as_bytes().to_vec();
        let mut facts = self.facts.borrow_mut();
        facts.connections.scripts.insert(name, Box::new(answer));
        drop(facts);
        self
    }
}

pub(crate) fn tcp_connect(upstream: &[u8], milliseconds: u32) -> i32 {
    if !may(&rules::TCP_CONNECT) {
        return rules::TCP_CONNECT.refused as i32;
    }
    let refused = with_facts(|facts| {
        let all = &facts.connections;
        if !all.scripts.contains_key(upstream) {
            return Some(Status::NotGranted);
        }
        if all.open.iter().flatten().count() >= MOST_CONNECTIONS {
            return Some(Status::Full);
        }
        (!facts.count_calls(1)).then_some(Status::Limit)
    });
    if let Some(refused) = refused {
        return refused as i32;
    }
    let answered = match ask(upstream, TcpEvent::Connect, milliseconds) {
        Ok(answered) => answered,
        Err(status) => return status as i32,
    };
    let opened = Connection {
        upstream: upstream.to_vec(),
        plugin: with_world(|world| world.plugin),
        answered,
    };
    with_facts(|facts| {
        let open = &mut facts.connections.open;
        let idx = match open.iter().position(Option::is_none) {
            Some(free) => {
                open[free] = Some(opened);
                free
            }
            None => {
                open.push(Some(opened));
                open.len() - 1
            }
        };
        i32::try_from(idx).unwrap_or(i32::MAX)
    })
}

pub(crate) fn tcp_read(connection: u32, out: &mut [u8], milliseconds: u32) -> i32 {
    let upstream = match upstream_of(&rules::TCP_READ, connection) {
        Ok(upstream) => upstream,
        Err(status) => return status as i32,
    };
    if with_open(connection, |open| open.answered.is_empty()) {
        match ask(&upstream, TcpEvent::Read, milliseconds) {
            Ok(answered) => with_open(connection, |open| {
                open.answered.extend(answered);
                true
            }),
            Err(status) => return status as i32,
        };
    }
    let mut len = out.len().min(TCP_READ_BYTES);
    with_open(connection, |open| {
        len = len.min(open.answered.len());
        out[..len].copy_from_slice(&open.answered[..len]);
        open.answered.drain(..len);
        true
    });
    i32::try_from(len).unwrap_or(i32::MAX)
}

pub(crate) fn tcp_write(connection: u32, bytes: &[u8], milliseconds: u32) -> i32 {
    if may(&rules::TCP_WRITE) && bytes.len() > with_world(|world| world.limits.body_bytes) {
        return Status::Limit as i32;
    }
    let upstream = match upstream_of(&rules::TCP_WRITE, connection) {
        Ok(upstream) => upstream,
        Err(status) => return status as i32,
    };
    match ask(&upstream, TcpEvent::Write(bytes), milliseconds) {
        Ok(answered) => {
            with_open(connection, |open| {
                open.answered.extend(answered);
                true
            });
            0
        }
        Err(status) => status as i32,
    }
}

pub(crate) fn tcp_close(connection: u32) -> i32 {
    match upstream_of(&rules::TCP_CLOSE, connection) {
        Ok(_) => with_facts(|facts| {
            let mut open = facts.connections.open.iter_mut();
            drop(open.nth(connection as usize).and_then(Option::take));
            0
        }),
        Err(status) => status as i32,
    }
}

pub(crate) fn tcp_error(out: &mut [u8]) -> i32 {
    with_facts(|facts| match &facts.connections.error {
        Some(error) => hand_out(error.as_bytes(), out),
        None => Status::NotFound as i32,
    })
}

/// What comes of the event. The time that a plugin waits in vain passes.
fn ask(upstream: &[u8], event: TcpEvent<'_>, milliseconds: u32) -> Result<Vec<u8>, Status> {
    // Taken out meanwhile: it is the test's own code, which may look at the exchange.
    let script = with_facts(|facts| facts.connections.scripts.remove(upstream));
    let mut script = script.ok_or(Status::NotGranted)?;
    let answer = script(event);
    with_facts(|facts| facts.connections.scripts.insert(upstream.to_vec(), script));
    let error = match answer {
        TcpAnswer::Sends(bytes) => return Ok(bytes),
        TcpAnswer::Fails(reason) => reason,
        TcpAnswer::TimesOut => {
            let milliseconds = match milliseconds {
                0 => LONGEST_DELAY_MS,
                asked => asked.min(LONGEST_DELAY_MS),
            };
            let time = Duration::from_millis(milliseconds.into());
            advance_clock(time);
            format!("nothing in {time:?}")
        }
    };
    with_facts(|facts| facts.connections.error = Some(error));
    Err(Status::NotFound)
}

/// Upstream of a connection that is open, and the plugin's own.
fn upstream_of(rule: &Rule, connection: u32) -> Result<Vec<u8>, Status> {
    if !may(rule) {
        return Err(rule.refused);
    }
    let plugin = with_world(|world| world.plugin);
    with_facts(|facts| {
        let open = facts.connections.open.get(connection as usize);
        match open.and_then(Option::as_ref) {
            Some(open) if open.plugin == plugin => Ok(open.upstream.clone()),
            Some(_) | None => Err(Status::BadArgument),
        }
    })
}

fn with_open(connection: u32, use_it: impl FnOnce(&mut Connection) -> bool) -> bool {
    with_facts(|facts| {
        let open = facts.connections.open.get_mut(connection as usize);
        open.and_then(Option::as_mut).is_some_and(use_it)
    })
}
