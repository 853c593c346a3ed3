//! Lists of peers: what a file has, and what a URL answers.

use std::net::SocketAddr;
use std::path::Path;

use tokio::time::timeout;

use super::http::{self, Fetched};
use super::{Found, ListHost, ListQuestion, Listed, dns};
use crate::config;
use crate::transport::PeerAddress;

/// Peers of one list at most.
const MOST_PEERS: usize = 16_384;

/// Asks for a list. The error is a line for a person.
pub async fn ask(question: &ListQuestion) -> Result<Listed, String> {
    let limit = question.url.timeout;
    let answer = timeout(limit, answer(question)).await;
    answer.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
}

async fn answer(question: &ListQuestion) -> Result<Listed, String> {
    let url = &question.url;
    let addresses = addresses(&question.host).await?;
    let fetched = http::get(url, &addresses, &question.validators).await?;
    match fetched {
        Fetched::NotModified => Ok(Listed::Same),
        Fetched::Body { body, validators } => Ok(Listed::Peers {
            found: at_url(&url.url, body)?,
            validators,
        }),
    }
}

async fn addresses(host: &ListHost) -> Result<Vec<SocketAddr>, String> {
    let question = match host {
        ListHost::Addresses(addresses) => return Ok(addresses.clone()),
        ListHost::Name(question) => question,
    };
    let answer = dns::resolve(question)
        .await
        .map_err(|error| format!("{}: {error}", question.name))?;
    let found = answer.found.iter();
    Ok(found.filter_map(|found| found.address.inet()).collect())
}

/// Peers of a list that came from a URL. A server elsewhere does not say which sockets of this host are connected to.
fn at_url(url: &str, body: Vec<u8>) -> Result<Vec<Found>, String> {
    let text = String::from_utf8(body).map_err(|error| format!("{url}: {error}"))?;
    let found = in_text(Path::new(url), &text)?;
    let unix = found.iter().find(|found| found.address.inet().is_none());
    match unix {
        Some(unix) => Err(format!(
            "{url}: peer {}: expected IP:PORT; sockets of this host are for the config",
            unix.address
        )),
        None => Ok(found),
    }
}

/// Peers of a list. `name`: what errors call it. The error is a line for a person, with the place.
pub fn in_text(name: &Path, text: &str) -> Result<Vec<Found>, String> {
    let peers = config::read_peers(name, text.trim_start_matches('\u{feff}'));
    let peers = peers.map_err(|errors| errors.to_string().replace('\n', "; "))?;
    if peers.len() > MOST_PEERS {
        let (name, count) = (name.display(), peers.len());
        return Err(format!(
            "{name}: {count} peers: expected {MOST_PEERS} at most"
        ));
    }
    let found = peers.into_iter().filter_map(|peer| {
        Some(Found {
            // Checked just now.
            address: PeerAddress::try_from(peer.address.clone()).ok()?,
            host: Some(peer.address),
            weight: Some(peer.weight.get()),
            is_backup: peer.backup,
            max_active: peer.max_active,
            zone: peer.zone,
            route: peer.route,
            tags: peer.tags,
        })
    });
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_all_of_its_peers() {
        let text = r#"{ "peers": ["10.0.0.1:80", { "address": "[::1]:81", "weight": 3, "backup": true, "route": "b" }] }"#;
        let found = at_url("http://a/", text.into()).unwrap();
        let facts = |found: &Found| (found.address.to_string(), found.weight, found.is_backup);
        assert_eq!(facts(&found[0]), ("10.0.0.1:80".to_owned(), Some(1), false));
        assert_eq!(facts(&found[1]), ("[::1]:81".to_owned(), Some(3), true));
        assert_eq!(found[1].route.as_deref(), Some("b"));
    }

    #[test]
    fn a_list_from_elsewhere_that_is_of_no_use_is_refused() {
        let refused = |body: Vec<u8>| at_url("http://a/b", body).unwrap_err();
        let error = refused(br#"peers = ["unix:/run/app.sock"]"#.to_vec());
        assert!(
            error.contains("http://a/b: peer unix:/run/app.sock: expected IP:PORT"),
            "{error}"
        );
        assert!(refused(vec![0xff]).contains("http://a/b: invalid utf-8"));
        assert!(refused(b"<html>".to_vec()).contains("http://a/b:1:"));
        let many: Vec<String> = (0..=MOST_PEERS)
            .map(|number| format!("\"10.0.{}.{}:80\"", number / 250, 1 + number % 250))
            .collect();
        let error = refused(format!("peers = [{}]", many.join(",")).into_bytes());
        assert_eq!(error, "http://a/b: 16385 peers: expected 16384 at most");
    }
}
