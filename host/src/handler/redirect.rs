//! The answer of a route with `redirect`.

use http::StatusCode;
use http::header::LOCATION;

use crate::config::Redirect;
use crate::error::reply;
use crate::exchange::Answer;
use crate::message::{RequestHead, Target};

/// Sends the client to the same host, path and query by `https`. A request without a host has no place to go to: 400.
pub fn answer(redirect: Redirect, request: &RequestHead) -> Answer {
    let Some(host) = request.host() else {
        return reply::plain(StatusCode::BAD_REQUEST);
    };
    // The status was checked with the config.
    let status = StatusCode::from_u16(redirect.status).unwrap_or(StatusCode::PERMANENT_REDIRECT);
    let mut answer = reply::plain(status);
    let location = location(host, redirect.port.unwrap_or(443), &request.target);
    answer.headers.add(&LOCATION, location.as_bytes());
    answer
}

fn location(host: &str, port: u16, target: &Target) -> String {
    let name = match host.find(']') {
        Some(end) => &host[..=end],
        None => host.split(':').next().unwrap_or_default(),
    };
    let port = match port {
        443 => String::new(),
        port => format!(":{port}"),
    };
    // The target of `OPTIONS *` is the server.
    let path = match target.path() {
        "*" => "/",
        path => path,
    };
    let query = target.query().map(|query| format!("?{query}"));
    format!("https://{name}{port}{path}{}", query.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_path_and_query_stay_and_the_port_is_of_https() {
        let to = |host, port, path, query| location(host, port, &Target::new(path, query));
        assert_eq!(to("a.test", 443, "/", None), "https://a.test/");
        assert_eq!(
            to("a.test:80", 443, "//b?", Some("c=d?")),
            "https://a.test//b??c=d?"
        );
        assert_eq!(
            to("a.test:80", 8443, "/b", Some("")),
            "https://a.test:8443/b?"
        );
        assert_eq!(to("[::1]:80", 443, "*", None), "https://[::1]/");
        assert_eq!(to("[::1]", 8443, "/", None), "https://[::1]:8443/");
    }
}
