//! Fields that tell a peer about the client and the way: `X-Forwarded-For`, `-Proto`, `-Host`, `CDN-Loop` and `Via`.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::config::{HttpSettings, ServerField};
use crate::message::claims::Claims;
use crate::message::{FieldName, Headers, KnownHeader, Protocol, RequestHead, Scheme};
use crate::transport::address::ClientAddress;

/// RFC 9110 §7.6.3, with a pseudonym for the host.
const VIA: &[u8] = b"1.1 castling";

/// `Via` of a request that has come by HTTP/1.0.
const VIA_10: &[u8] = b"1.0 castling";

/// `Via` of a request that has come by HTTP/2.
const VIA_2: &[u8] = b"2.0 castling";

/// Fields that a listener adds to the heads that pass it.
pub struct Marks {
    pub claims: Claims,
    /// Whether `Via` is added.
    via: bool,
    server: ServerField,
    alt_svc: Option<String>,
    /// The listener of this gateway in `CDN-Loop` (RFC 8586 §2): a pseudonym.
    loop_id: String,
    /// Member of `CDN-Loop` for calls of plugins.
    call_loop_id: String,
    /// Field for a request that has no `X-Forwarded-Proto` and came without TLS.
    of_http: Headers,
    /// Field for one that came by TLS.
    of_https: Headers,
    /// Fields for a request that has neither `CDN-Loop` nor `Via`.
    of_request: Headers,
    /// Fields for one that came by HTTP/2.
    of_http2_request: Headers,
    /// Field for a response that has no `Via`.
    of_response: Headers,
}

/// Calls that plugins may have made on the way of a request, one for the other, back to the listener where they began. A
/// request that was proxied there is a loop at once.
const MAX_NESTED_CALLS: usize = 4;

impl Marks {
    /// `gateway_id` is the same for all workers of a gateway, and no other gateway's.
    pub fn new(listener: &str, via: bool, server: ServerField, gateway_id: u64) -> Self {
        let mut hasher = DefaultHasher::new();
        (gateway_id, listener).hash(&mut hasher);
        let loop_id = format!("castling-{:016x}", hasher.finish());
        let of_scheme = |scheme: Scheme| {
            let mut fields = Headers::new();
            fields.add(KnownHeader::XForwardedProto, scheme.as_str().as_bytes());
            fields
        };
        let of_request = |own_via: &[u8]| {
            let mut fields = Headers::new();
            fields.add(KnownHeader::CdnLoop, loop_id.as_bytes());
            if via {
                fields.add(KnownHeader::Via, own_via);
            }
            fields
        };
        let (of_http2_request, of_request) = (of_request(VIA_2), of_request(VIA));
        let mut of_response = Headers::new();
        of_response.add(KnownHeader::Via, VIA);
        Self {
            claims: Claims::default(),
            via,
            server,
            alt_svc: None,
            call_loop_id: format!("{loop_id};by=call"),
            loop_id,
            of_http: of_scheme(Scheme::Http),
            of_https: of_scheme(Scheme::Https),
            of_request,
            of_http2_request,
            of_response,
        }
    }

    /// Marks of a listener with these settings.
    pub fn of(listener: &str, config: &HttpSettings, gateway_id: u64) -> Self {
        Self {
            claims: Claims::new(config),
            alt_svc: config.alt_svc.clone(),
            ..Self::new(listener, config.via, config.server.clone(), gateway_id)
        }
    }

    /// Says in `X-Forwarded-Proto` and `-Host` what we know of the client's side. Before the first plugin, which may know
    /// better.
    pub fn note_client_side(&self, request: &mut RequestHead) {
        let RequestHead {
            headers, scheme, ..
        } = request;
        match (headers.contains(KnownHeader::XForwardedProto), scheme) {
            (true, scheme) => {
                headers.set(KnownHeader::XForwardedProto, scheme.as_str().as_bytes());
            }
            (false, Scheme::Http) => headers.add_all(&self.of_http),
            (false, Scheme::Https) => headers.add_all(&self.of_https),
        }
        if headers.contains(KnownHeader::Host) {
            headers.copy(KnownHeader::Host, KnownHeader::XForwardedHost);
        } else {
            headers.remove(KnownHeader::XForwardedHost);
        }
    }

    /// Whether the request has been at this listener before, and has come back to it.
    #[inline]
    pub fn is_loop(&self, headers: &Headers) -> bool {
        headers.contains(KnownHeader::CdnLoop) && self.has_come_back(headers)
    }

    #[cold]
    #[inline(never)]
    fn has_come_back(&self, headers: &Headers) -> bool {
        let values = headers.get_all(KnownHeader::CdnLoop);
        let members = values.flat_map(|value| value.split(|&byte| byte == b','));
        let passes = members.map(|member| match member.trim_ascii() {
            member if member == self.loop_id.as_bytes() => MAX_NESTED_CALLS,
            member if member == self.call_loop_id.as_bytes() => 1,
            _ => 0,
        });
        passes.sum::<usize>() >= MAX_NESTED_CALLS
    }

    /// Appends the client to `X-Forwarded-For` (as nginx's `$proxy_add_x_forwarded_for`), and the gateway to `CDN-Loop` and
    /// `Via`. After the last plugin, which may have found out the real client.
    pub fn add_to_request(
        &self,
        headers: &mut Headers,
        client: &ClientAddress,
        protocol: Protocol,
    ) {
        self.claims.tell(headers, client);
        let has_some = headers.contains(KnownHeader::CdnLoop) || headers.contains(KnownHeader::Via);
        match protocol {
            _ if has_some => self.append_to_request(headers, protocol),
            Protocol::Http11 => headers.add_all(&self.of_request),
            Protocol::Http2 => headers.add_all(&self.of_http2_request),
            Protocol::Http10 => self.append_to_request(headers, protocol),
        }
    }

    #[cold]
    #[inline(never)]
    fn append_to_request(&self, headers: &mut Headers, protocol: Protocol) {
        headers.append_to_list(KnownHeader::CdnLoop, self.loop_id.as_bytes());
        if self.via {
            headers.append_to_list(KnownHeader::Via, via(protocol));
        }
    }

    /// Appends the gateway to the `CDN-Loop` of a call that a plugin makes.
    pub fn add_to_call(&self, headers: &mut Headers) {
        headers.append_to_list(KnownHeader::CdnLoop, self.call_loop_id.as_bytes());
    }

    /// Appends to `Via`, and has `Server` and `Alt-Svc` as the listener's config does. `protocol`: by which it came.
    pub fn add_to_response(&self, headers: &mut Headers, protocol: Protocol) {
        self.set_server(headers);
        let is_usual = protocol == Protocol::Http11 && !headers.contains(KnownHeader::Via);
        match is_usual {
            _ if !self.via => {}
            true => headers.add_all(&self.of_response),
            false => headers.append_to_list(KnownHeader::Via, via(protocol)),
        }
    }

    /// Has `Server` and `Alt-Svc` as the listener's config does.
    pub fn set_server(&self, headers: &mut Headers) {
        if let Some(text) = &self.alt_svc
            && let Some(name) = FieldName::new(b"alt-svc")
        {
            headers.set(name, text.as_bytes());
        }
        match &self.server {
            ServerField::Keep => {}
            ServerField::Remove => drop(headers.remove(KnownHeader::Server)),
            ServerField::Fixed(text) => headers.set(KnownHeader::Server, text.as_bytes()),
        }
    }
}

/// `Via` of a message that came by this protocol (RFC 9110 §7.6.3).
fn via(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Http10 => VIA_10,
        Protocol::Http11 => VIA,
        Protocol::Http2 => VIA_2,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use super::*;

    fn value(headers: &Headers, name: KnownHeader) -> String {
        let all: Vec<&str> = headers
            .get_all(name)
            .filter_map(|value| str::from_utf8(value).ok())
            .collect();
        all.join(" | ")
    }

    const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5000);

    fn add_to_request(headers: &mut Headers, client: ClientAddress) {
        let marks = Marks::new("web", true, ServerField::Keep, 1);
        marks.add_to_request(headers, &client, Protocol::Http11);
    }

    #[test]
    fn the_client_is_appended_to_what_came() {
        let mut headers = Headers::new();
        headers.add(KnownHeader::XForwardedFor, b"10.0.0.1");
        headers.add(KnownHeader::XForwardedFor, b"10.0.0.2");
        add_to_request(&mut headers, LOCAL.into());
        assert_eq!(
            value(&headers, KnownHeader::XForwardedFor),
            "10.0.0.1, 10.0.0.2, 127.0.0.1"
        );
    }

    #[test]
    fn a_client_without_an_address_is_not_told() {
        let mut headers = Headers::new();
        add_to_request(&mut headers, ClientAddress::UNIX);
        assert!(!headers.contains(KnownHeader::XForwardedFor));
        headers.add(KnownHeader::XForwardedFor, b"10.0.0.1");
        add_to_request(&mut headers, ClientAddress::UNIX);
        assert_eq!(value(&headers, KnownHeader::XForwardedFor), "10.0.0.1");
    }

    #[test]
    fn proto_and_host_are_ours() {
        let mut request = RequestHead::default();
        let headers = &mut request.headers;
        headers.add(KnownHeader::XForwardedProto, b"https");
        headers.add(KnownHeader::XForwardedHost, b"evil");
        headers.add(KnownHeader::Host, b"example.com");
        Marks::new("web", true, ServerField::Keep, 1).note_client_side(&mut request);
        let headers = &mut request.headers;
        add_to_request(headers, LOCAL.into());
        assert_eq!(value(headers, KnownHeader::XForwardedProto), "http");
        assert_eq!(value(headers, KnownHeader::XForwardedHost), "example.com");
        assert_eq!(value(headers, KnownHeader::Via), "1.1 castling");
    }

    #[test]
    fn a_request_that_comes_back_is_a_loop() {
        let marks = |listener, gateway| Marks::new(listener, false, ServerField::Keep, gateway);
        let (web, admin, second) = (marks("web", 1), marks("admin", 1), marks("web", 2));
        let mut headers = Headers::new();
        headers.add(KnownHeader::CdnLoop, b"cdn.example;a=b");
        assert!(!web.is_loop(&headers));
        web.add_to_request(&mut headers, &ClientAddress::UNIX, Protocol::Http11);
        assert!(!headers.contains(KnownHeader::Via));
        assert!(web.is_loop(&headers));
        assert!(!admin.is_loop(&headers) && !second.is_loop(&headers));
        second.add_to_request(&mut headers, &ClientAddress::UNIX, Protocol::Http11);
        assert!(second.is_loop(&headers) && web.is_loop(&headers));
        let mut headers = Headers::new();
        for _ in 0..MAX_NESTED_CALLS {
            assert!(!web.is_loop(&headers));
            web.add_to_call(&mut headers);
        }
        assert!(web.is_loop(&headers));
    }

    #[test]
    fn server_is_as_the_config_has_it() {
        for (server, expected) in [
            (ServerField::Keep, "origin"),
            (ServerField::Remove, ""),
            (ServerField::Fixed("mine".to_owned()), "mine"),
        ] {
            let mut headers = Headers::new();
            headers.add(KnownHeader::Server, b"origin");
            Marks::new("web", true, server, 1).add_to_response(&mut headers, Protocol::Http11);
            assert_eq!(value(&headers, KnownHeader::Server), expected);
            assert_eq!(headers.find_value(b"alt-svc"), None);
            assert_eq!(value(&headers, KnownHeader::Via), "1.1 castling");
        }
    }
}
