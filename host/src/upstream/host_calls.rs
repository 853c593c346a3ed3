//! Calls to hosts that plugins are granted by name: the name is resolved, all of its addresses are looked at, and one of these is
//! connected to. So no name leads to where the plugin may not go, whatever it stands for when it is asked for again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use castling_abi::ErrorKind;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::config::{GrantedHosts, Resolve};
use crate::fetch::dns::{self, SystemNames};
use crate::fetch::{HostBody, HostCall, NameKind, NameQuestion};
use crate::message::ReplyHead;
use crate::transport::tls::{ClientTls, PeerTls};
use crate::wasm::{Call, CallFailure, CallResponse, CallResult, HostName};

/// Hosts of one plugin, in one worker.
pub struct HostCalls {
    granted: GrantedHosts,
    tls: ClientTls,
    system: SystemNames,
    /// Addresses of names, and the time until which they are good.
    known: RefCell<BTreeMap<String, (Instant, Vec<IpAddr>)>>,
}

impl HostCalls {
    pub fn new(granted: &GrantedHosts, tls: ClientTls) -> Self {
        Self {
            granted: granted.clone(),
            tls,
            system: SystemNames::default(),
            known: RefCell::default(),
        }
    }

    /// Makes a call. The error is a line for the plugin.
    pub async fn send(&self, to: &HostName, call: &Call) -> CallResult {
        let sent = async {
            let way = self.way(to).await?;
            let request = way.request(call);
            let answer = request.send(&way.addresses, way.tls.as_ref()).await;
            let answer = answer.map_err(connect_failure)?;
            Ok(CallResponse {
                status: answer.status,
                headers: answer.headers,
                body: answer.body,
            })
        };
        let sent = timeout(LONGEST_CALL, sent).await;
        let said = format!("no response in {LONGEST_CALL:?}");
        sent.map_err(|_| CallFailure::new(ErrorKind::Timeout, said))?
    }

    /// Makes a call whose bodies stream, each wait of which is bounded by who waits. The error is a line for the plugin.
    pub async fn stream(
        &self,
        to: &HostName,
        call: &Call,
        body: Option<HostBody>,
        answer: (oneshot::Sender<ReplyHead>, mpsc::Sender<Bytes>),
    ) -> Result<(), CallFailure> {
        let way = timeout(LONGEST_CALL, self.way(to)).await;
        let said = format!("not known where it is in {LONGEST_CALL:?}");
        let way = way.map_err(|_| CallFailure::new(ErrorKind::Timeout, said))??;
        let request = way.request(call);
        let passed = request.stream(&way.addresses, way.tls.as_ref(), body, answer);
        passed.await.map_err(connect_failure)
    }

    /// The way to a host: where it is, as far as it is granted.
    async fn way(&self, to: &HostName) -> Result<Way, CallFailure> {
        let HostName { is_tls, host, port } = to;
        let addresses = self.addresses(host).await.map_err(connect_failure)?;
        if let Some(refused) = addresses.iter().find(|it| !self.granted.admit(**it)) {
            let said = format!(
                "{host} is at {refused}, which is not public; expected `grants.hosts.networks` with it"
            );
            return Err(CallFailure::new(ErrorKind::NotGranted, said));
        }
        let addresses = addresses.into_iter();
        let tls = is_tls.then(|| self.tls.peer(&format!("{}:{port}", bracketed(host))));
        let usual_port = if *is_tls { 443 } else { 80 };
        Ok(Way {
            addresses: addresses.map(|it| SocketAddr::new(it, *port)).collect(),
            tls: tls.transpose().map_err(connect_failure)?,
            authority: match *port == usual_port {
                true => bracketed(host),
                false => format!("{}:{port}", bracketed(host)),
            },
        })
    }

    /// Addresses of a name or an address, at least one.
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let now = Instant::now();
        if let Some((until, addresses)) = self.known.borrow().get(host)
            && *until > now
        {
            return Ok(addresses.clone());
        }
        let Resolve {
            family,
            servers,
            timeout,
            ..
        } = &self.granted.resolve;
        let ip = |found: crate::fetch::Found| Some(found.address.inet()?.ip());
        let in_hosts = self.system.in_hosts(host, 0, *family);
        if !in_hosts.is_empty() {
            return Ok(in_hosts.into_iter().filter_map(ip).collect());
        }
        let system = self.system.resolv_conf();
        let question = NameQuestion {
            // A name of the internet is whole as it is.
            name: format!("{host}."),
            kind: NameKind::Host { port: 0 },
            family: *family,
            servers: match servers.is_empty() {
                true => system.servers,
                false => servers.clone(),
            },
            search: Vec::new(),
            ndots: 1,
            timeout: *timeout,
        };
        let answer = dns::resolve(&question)
            .await
            .map_err(|error| format!("{host}: {error}"))?;
        // Owners of a name may list as many as an answer has room for.
        let addresses = answer.found.into_iter().filter_map(ip);
        let addresses: Vec<_> = addresses.take(MOST_ADDRESSES).collect();
        let mut known = self.known.borrow_mut();
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        let good_for = answer.ttl.clamp(SHORTEST_KNOWN, LONGEST_KNOWN);
        known.insert(host.to_owned(), (now + good_for, addresses.clone()));
        Ok(addresses)
    }
}

/// Way to a host.
struct Way {
    addresses: Vec<SocketAddr>,
    tls: Option<PeerTls>,
    authority: String,
}

impl Way {
    fn request<'a>(&'a self, call: &'a Call) -> HostCall<'a> {
        HostCall {
            method: &call.method,
            target: &call.target,
            authority: &self.authority,
            headers: &call.headers,
            body: &call.body,
            limit_bytes: call.limit_bytes,
        }
    }
}

fn connect_failure(error: String) -> CallFailure {
    CallFailure::new(ErrorKind::Connect, error)
}

/// A host as an authority has it (RFC 3986 §3.2.2).
fn bracketed(host: &str) -> String {
    match host.contains(':') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    }
}

/// Longest call, whatever time-out it has, from the name to the end of the response.
const LONGEST_CALL: Duration = Duration::from_secs(30);

/// Time for which addresses are good, at most.
const LONGEST_KNOWN: Duration = Duration::from_secs(60);

/// Least time for which they are: a name whose addresses are good for no time is not to be asked for with each call.
const SHORTEST_KNOWN: Duration = Duration::from_secs(1);

/// Addresses of a name that are looked at.
const MOST_ADDRESSES: usize = 16;

/// Names whose addresses are kept: a wildcard stands for any number of them.
const MOST_KNOWN: usize = 1000;
