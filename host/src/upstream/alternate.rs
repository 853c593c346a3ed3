//! The other address of a peer whose name has addresses of both families: whichever answers first is taken (RFC 8305).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use super::Peer;
use super::connect::{ConnectError, Options, open_inet};
use crate::runtime::clock;
use crate::transport::{PeerAddress, Socket};

/// Alternate address of a peer, if it has one, and what has come of it. A worker has its own.
#[derive(Debug, Default)]
pub(super) struct Alternate {
    address: Cell<Option<SocketAddr>>,
    /// Goes first until then: it answered when the peer's own did not.
    first_until: Cell<Option<Instant>>,
}

/// Time for which the address that has answered goes first. RFC 8305 §8 has some ten minutes for clients, which move between networks
/// less often than peers restart.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

impl Alternate {
    /// Addresses in the order in which they are tried. `None`: there is just the peer's own.
    pub(super) fn order(&self, own: &PeerAddress) -> Option<[SocketAddr; 2]> {
        let (own, other) = (own.inet()?, self.address.get()?);
        let is_first = self
            .first_until
            .get()
            .is_some_and(|until| clock::now() < until);
        Some(if is_first { [other, own] } else { [own, other] })
    }

    fn note(&self, winner: SocketAddr) {
        let is_other = self.address.get() == Some(winner);
        let until = is_other.then(|| clock::now() + REMEMBERED_FOR);
        self.first_until.set(until);
    }

    /// Connects to the first of these addresses that answers. The second is tried when the first has failed, or has not
    /// answered within the delay (RFC 8305 §5). The error is the first one's.
    pub(super) async fn open(
        &self,
        [first, second]: [SocketAddr; 2],
        options: &Options,
    ) -> Result<Socket, ConnectError> {
        let mut one = pin!(open_inet(first, options));
        let early = tokio::time::timeout(options.attempt_delay, &mut one).await;
        let connected = match early {
            Ok(Ok(socket)) => Ok((first, socket)),
            Ok(Err(error @ ConnectError::Shortage(_))) => return Err(error),
            Ok(Err(error)) => match open_inet(second, options).await {
                Ok(socket) => Ok((second, socket)),
                Err(_) => Err(error),
            },
            Err(_) => {
                let mut other = pin!(open_inet(second, options));
                tokio::select! {
                    connected = &mut one => match connected {
                        Ok(socket) => Ok((first, socket)),
                        Err(error) => match other.await {
                            Ok(socket) => Ok((second, socket)),
                            Err(_) => Err(error),
                        },
                    },
                    connected = &mut other => match connected {
                        Ok(socket) => Ok((second, socket)),
                        Err(_) => one.await.map(|socket| (first, socket)),
                    },
                }
            }
        };
        let (winner, socket) = connected?;
        self.note(winner);
        Ok(socket)
    }
}

/// Peers of a name, those with IPv4 first.
type OfName<'p> = [Vec<(&'p Peer, SocketAddr)>; 2];

/// Tells the peers of each name that has addresses of both families of one another: each has one of the other family.
pub(super) fn pair<'p>(peers: impl Iterator<Item = &'p Peer>) {
    let mut names: BTreeMap<&[u8], OfName<'_>> = BTreeMap::new();
    for peer in peers {
        let Some(address) = peer.address.inet() else {
            continue;
        };
        let of_name = names.entry(peer.host.as_bytes()).or_default();
        of_name[usize::from(address.is_ipv6())].push((peer, address));
    }
    for families in names.values() {
        for (own, other) in [(0, 1), (1, 0)] {
            let others = &families[other];
            for (number, (peer, _)) in families[own].iter().enumerate() {
                let other = (!others.is_empty()).then(|| others[number % others.len()].1);
                if peer.alternate.address.replace(other) != other {
                    peer.alternate.first_until.set(None);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test)
    }

    #[test]
    fn the_address_that_has_answered_goes_first() {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let there = listener.local_addr().unwrap();
            let gone = TcpListener::bind("127.0.0.1:0")
                .await
                .unwrap()
                .local_addr()
                .unwrap();
            let alternate = Alternate::default();
            let own = PeerAddress::from(gone);
            assert_eq!(alternate.order(&own), None);
            alternate.address.set(Some(there));
            assert_eq!(alternate.order(&own), Some([gone, there]));
            let options = Options::delayed(Duration::from_secs(60));
            let opened = alternate.open([gone, there], &options).await;
            assert!(opened.is_ok(), "a refusal is not waited after");
            assert_eq!(alternate.order(&own), Some([there, gone]));
            drop(listener);
            let refused = alternate.open([there, gone], &options).await;
            assert!(matches!(refused, Err(ConnectError::Failed(_))));
            assert_eq!(alternate.order(&own), Some([there, gone]));
        });
    }
}
