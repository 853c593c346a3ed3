//! Names to addresses: which names are asked for, in both families at once, and services to hosts.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::stream::{self, StreamExt};
use tokio::time::timeout;

use super::client::Servers;
use super::message::{Record, RecordKind, Records, Service};
use crate::config::Family;
use crate::fetch::{Answer, Found, NameKind, NameQuestion, Unknown};
use crate::transport::PeerAddress;

/// Time for the slower family, once the other has come.
const SLOWER_FAMILY: Duration = Duration::from_secs(1);

/// Hosts of a service that are asked for at a time.
const HOSTS_AT_A_TIME: usize = 16;

/// Addresses of one name at most: plugins have tables of that size.
const ADDRESSES_AT_MOST: usize = 4096;

/// Answers a question. The error is a line for a person.
pub async fn resolve(question: &NameQuestion) -> Result<Answer, String> {
    let servers = Servers {
        addresses: &question.servers,
        timeout: question.timeout,
    };
    let mut answer = match question.kind {
        NameKind::Host { port } => {
            let mut error = None;
            for name in names(question) {
                match host(&servers, question.family, &name, port, None).await {
                    Ok(Some(answer)) => return Ok(bounded(answer)),
                    Ok(None) => {}
                    Err(failed) => error = error.or(Some(failed)),
                }
            }
            return Err(error.unwrap_or_else(|| "the name has no address".to_owned()));
        }
        NameKind::Service => service(&servers, question).await?,
    };
    answer.found.sort_by_key(|found| found.is_backup);
    Ok(bounded(answer))
}

/// Names that the question's may stand for, in the order in which they are asked for (resolv.conf(5)).
fn names(question: &NameQuestion) -> Vec<String> {
    if let Some(whole) = question.name.strip_suffix('.') {
        return vec![whole.to_owned()];
    }
    let name = &question.name;
    let searched = question
        .search
        .iter()
        .map(|domain| format!("{name}.{domain}"));
    let mut names: Vec<String> = searched.collect();
    match name.matches('.').count() >= question.ndots {
        true => names.insert(0, name.clone()),
        false => names.push(name.clone()),
    }
    names
}

/// Addresses of a host; `None`: it has none. `as_host`: what the peers are known by.
async fn host(
    servers: &Servers<'_>,
    family: Family,
    name: &str,
    port: u16,
    as_host: Option<&str>,
) -> Result<Option<Answer>, String> {
    let (v4, v6) = match family {
        Family::Ipv4 => (Some(servers.ask(name, RecordKind::A).await), None),
        Family::Ipv6 => (None, Some(servers.ask(name, RecordKind::Aaaa).await)),
        Family::Any => both(servers, name).await,
    };
    let mut answer = Answer {
        found: Vec::new(),
        unknown: Vec::new(),
        ttl: Duration::MAX,
    };
    let mut error = None;
    for (is_ipv4, records) in [(true, v4), (false, v6)] {
        match records {
            Some(Ok(records)) => add(&mut answer, records, port, as_host),
            Some(Err(failed)) => {
                answer.unknown.push(Unknown {
                    host: as_host.map(str::to_owned),
                    is_ipv4,
                });
                error = error.or(Some(failed));
            }
            None => {}
        }
    }
    match (answer.found.is_empty(), error) {
        (false, _) => Ok(Some(answer)),
        (true, Some(error)) => Err(error),
        (true, None) => Ok(None),
    }
}

fn add(answer: &mut Answer, records: Records, port: u16, host: Option<&str>) {
    for record in records.records {
        if let Record::Address(address) = record {
            let address = SocketAddr::new(address, port);
            answer.found.push(Found::at(address, host));
            answer.ttl = answer.ttl.min(Duration::from_secs(records.ttl.into()));
        }
    }
}

type Asked = Option<Result<Records, String>>;

/// Both families at once. One that has addresses does not wait long for the other: a server may not answer to one of them.
async fn both(servers: &Servers<'_>, name: &str) -> (Asked, Asked) {
    let v4 = pin!(servers.ask(name, RecordKind::A));
    let v6 = pin!(servers.ask(name, RecordKind::Aaaa));
    match select(v4, v6).await {
        Either::Left((v4, v6)) => {
            let v6 = slower(&v4, v6).await;
            (Some(v4), Some(v6))
        }
        Either::Right((v6, v4)) => {
            let v4 = slower(&v6, v4).await;
            (Some(v4), Some(v6))
        }
    }
}

async fn slower(
    quicker: &Result<Records, String>,
    other: impl Future<Output = Result<Records, String>>,
) -> Result<Records, String> {
    let has_some = quicker.as_ref().is_ok_and(|it| !it.records.is_empty());
    if !has_some {
        return other.await;
    }
    timeout(SLOWER_FAMILY, other)
        .await
        .unwrap_or_else(|_| Err("one family of addresses is late".to_owned()))
}

/// Addresses of all hosts of a service. Hosts whose addresses cannot be learnt now are left as they were.
async fn service(servers: &Servers<'_>, question: &NameQuestion) -> Result<Answer, String> {
    let (services, ttl) = services(servers, question).await?;
    let first = services.iter().map(|it| it.priority).min();
    let hosts = services.into_iter().map(|service| async move {
        let as_host = format!("{}:{}", service.target, service.port);
        let answer = host(
            servers,
            question.family,
            &service.target,
            service.port,
            Some(&as_host),
        );
        (answer.await, service, as_host)
    });
    let mut hosts = stream::iter(hosts).buffered(HOSTS_AT_A_TIME);
    let mut answer = Answer {
        found: Vec::new(),
        unknown: Vec::new(),
        ttl: Duration::from_secs(ttl.into()),
    };
    let mut error = None;
    while let Some((of_host, service, as_host)) = hosts.next().await {
        match of_host {
            Ok(Some(of_host)) => {
                answer.ttl = answer.ttl.min(of_host.ttl);
                answer.unknown.extend(of_host.unknown);
                answer
                    .found
                    .extend(of_host.found.into_iter().map(|found| Found {
                        // RFC 2782: one of weight 0 is to be chosen seldom, and not never.
                        weight: Some(service.weight.max(1)),
                        is_backup: Some(service.priority) != first,
                        ..found
                    }));
            }
            Ok(None) => {}
            Err(failed) => {
                error = error.or(Some(failed));
                let unknown = [true, false].map(|is_ipv4| Unknown {
                    host: Some(as_host.clone()),
                    is_ipv4,
                });
                answer.unknown.extend(unknown);
            }
        }
    }
    match answer.found.is_empty() {
        true => Err(error.unwrap_or_else(|| "the hosts of the service have no address".to_owned())),
        false => Ok(answer),
    }
}

/// Records of the service, one for each host and port, and the time for which they are good.
async fn services(
    servers: &Servers<'_>,
    question: &NameQuestion,
) -> Result<(Vec<Service>, u32), String> {
    let mut error = None;
    for name in names(question) {
        match servers.ask(&name, RecordKind::Srv).await {
            Ok(found) if found.records.is_empty() => {}
            Ok(found) => {
                let mut seen = BTreeSet::new();
                let services = found.records.into_iter().filter_map(|record| match record {
                    Record::Service(service) => Some(service),
                    Record::Address(_) => None,
                });
                let services = services.filter(|it| {
                    let is_there = !it.target.is_empty() && it.port != 0;
                    is_there && seen.insert((it.target.clone(), it.port))
                });
                let services: Vec<Service> = services.take(ADDRESSES_AT_MOST).collect();
                return match services.is_empty() {
                    true => Err("the name says that there is no such service".to_owned()),
                    false => Ok((services, found.ttl)),
                };
            }
            Err(failed) => error = error.or(Some(failed)),
        }
    }
    Err(error.unwrap_or_else(|| "the name has no SRV record".to_owned()))
}

/// The answer with each address once, and no more than may be.
fn bounded(mut answer: Answer) -> Answer {
    let mut seen: BTreeSet<(Option<String>, PeerAddress)> = BTreeSet::new();
    answer
        .found
        .retain(|found| seen.insert((found.host.clone(), found.address.clone())));
    answer.found.truncate(ADDRESSES_AT_MOST);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_searched_for_as_resolv_conf_says() {
        let question = |name: &str, ndots| NameQuestion {
            name: name.to_owned(),
            kind: NameKind::Service,
            family: Family::Any,
            servers: Vec::new(),
            search: vec!["a.test".to_owned(), "b.test".to_owned()],
            ndots,
            timeout: Duration::from_secs(1),
        };
        assert_eq!(
            names(&question("app", 1)),
            ["app.a.test", "app.b.test", "app"]
        );
        assert_eq!(names(&question("app.", 5)), ["app"]);
        let dotted = names(&question("app.x", 1));
        assert_eq!(dotted, ["app.x", "app.x.a.test", "app.x.b.test"]);
        assert_eq!(names(&question("app.x", 2))[2], "app.x");
    }
}
