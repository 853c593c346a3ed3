//! Claims of requests about the client's side, and who is believed: `X-Forwarded-*`, `Forwarded`, `X-Real-IP` and `X-Request-Id`
//! of proxies in front that the operator trusts. Claims of anybody else are removed.

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use super::forwarded::Marks;
use super::{Headers, KnownHeader, RequestHead, Scheme, request_id};
use crate::config::{self, ClientFrom, ForwardedFor, Networks, RequestId};
use crate::transport::address::{AddressText, ClientAddress};

/// Claims that a listener believes.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// `None`: nobody is believed.
    proxies: Option<Box<TrustedProxies>>,
    /// Whether the `X-Forwarded-For` of others than the proxies is removed.
    replaces_forwarded_for: bool,
    /// `None`: `X-Request-Id` goes on as it came.
    request_id: Option<KeepsId>,
}

#[derive(Clone, Debug)]
struct TrustedProxies {
    networks: Networks,
    client_from: ClientFrom,
}

/// Whether the id that a trusted proxy has given is kept.
#[derive(Clone, Copy, Debug)]
struct KeepsId(bool);

/// Fields in which a client could tell a peer who it is, and which the gateway does not write itself: a peer that trusts
/// the gateway would believe them (RFC 7239 §8.1).
const CLAIMS: [KnownHeader; 3] = [
    KnownHeader::Forwarded,
    KnownHeader::XForwardedPort,
    KnownHeader::XRealIp,
];

/// Longest id that is kept.
const MAX_ID_BYTES: usize = 128;

impl Claims {
    pub fn new(config: &config::HttpSettings) -> Self {
        let is_any = config.trusted_proxies != Networks::default();
        let proxies = is_any.then(|| {
            Box::new(TrustedProxies {
                networks: config.trusted_proxies.clone(),
                client_from: config.client_from,
            })
        });
        Self {
            proxies,
            replaces_forwarded_for: config.x_forwarded_for == ForwardedFor::Replace,
            request_id: match config.request_id {
                RequestId::None => None,
                RequestId::Make => Some(KeepsId(false)),
                RequestId::Keep => Some(KeepsId(true)),
            },
        }
    }

    /// Puts what is known of the client's side in the place of what is claimed, and returns the client. `connection`: the other
    /// end of the connection. Called before the first plugin, and not for sub-requests: fields that a plugin sets go on to the
    /// peer.
    pub fn settle(
        &self,
        request: &mut RequestHead,
        connection: ClientAddress,
        marks: &Marks,
    ) -> ClientAddress {
        let proxies = self.proxies.as_deref();
        let proxies = proxies.filter(|proxies| proxies.networks.contain(connection.ip()));
        if let Some(KeepsId(keeps)) = self.request_id {
            set_request_id(&mut request.headers, keeps && proxies.is_some());
        }
        match proxies {
            Some(proxies) => proxies.believe(request, connection, marks),
            None => {
                if self.replaces_forwarded_for {
                    request.headers.remove(KnownHeader::XForwardedFor);
                }
                remove_claims(&mut request.headers);
                marks.note_client_side(request);
                connection
            }
        }
    }

    /// Tells a peer in `X-Forwarded-For`, and in `Forwarded` where that is what the gateway reads, whose request it is. One of a
    /// Unix socket is not told in the first: nginx's `unix:` is no address, and peers that read a list of them would stumble.
    /// Nobody is told in neither.
    #[inline]
    pub fn tell(&self, headers: &mut Headers, client: &ClientAddress) {
        if client.is_nobody() {
            return;
        }
        if let Some(proxies) = &self.proxies {
            return proxies.tell(headers, client);
        }
        if let Some(ip) = client.ip() {
            headers.append_to_list(KnownHeader::XForwardedFor, AddressText::new(ip).bytes());
        }
    }
}

impl TrustedProxies {
    /// Takes over what a proxy says.
    #[cold]
    #[inline(never)]
    fn believe(
        &self,
        request: &mut RequestHead,
        connection: ClientAddress,
        marks: &Marks,
    ) -> ClientAddress {
        let found = self.client(&request.headers);
        let headers = &mut request.headers;
        // A proxy passes on what it does not know: only the one field is its own for sure.
        for claim in CLAIMS {
            if self.client_from.field() != claim {
                headers.remove(claim);
            }
        }
        if self.client_from != ClientFrom::XForwardedFor {
            headers.remove(KnownHeader::XForwardedFor);
        }
        if let Some(scheme) = headers.get(KnownHeader::XForwardedProto).and_then(scheme) {
            request.scheme = scheme;
        }
        let host = headers.get(KnownHeader::XForwardedHost).map(<[u8]>::to_vec);
        marks.note_client_side(request);
        if let Some(host) = host {
            request.headers.set(KnownHeader::XForwardedHost, &host);
        }
        let mut client = connection;
        if let Some(ip) = found {
            client.set_ip(ip);
            client.set_behind(connection.ip());
        }
        client
    }

    /// The last hop that no trusted proxy has vouched for, or the first one of all. `None`: nothing is said, or nothing that can
    /// be read.
    fn client(&self, headers: &Headers) -> Option<IpAddr> {
        let lines: Vec<&[u8]> = headers.get_all(self.client_from.field()).collect();
        match self.client_from {
            ClientFrom::XForwardedFor => {
                let hops = lines.iter().rev();
                let hops = hops.flat_map(|line| line.rsplit(|&byte| byte == b','));
                let hops = hops.filter(|hop| !hop.trim_ascii().is_empty());
                self.walk(hops.map(address))
            }
            ClientFrom::Forwarded => {
                let hops = lines
                    .iter()
                    .rev()
                    .flat_map(|line| match forwarded_hops(line) {
                        Some(mut hops) => {
                            hops.reverse();
                            hops
                        }
                        // Hops cannot be told from one another.
                        None => vec![None],
                    });
                self.walk(hops)
            }
            ClientFrom::XRealIp => match lines[..] {
                [one] => address(one),
                _ => None,
            },
        }
    }

    /// Goes from the last hop to the first. What is no address ends the way.
    fn walk(&self, hops: impl Iterator<Item = Option<IpAddr>>) -> Option<IpAddr> {
        let mut client = None;
        for hop in hops {
            let Some(address) = hop else {
                break;
            };
            client = Some(address);
            if !self.networks.contain(client) {
                break;
            }
        }
        client
    }

    #[cold]
    #[inline(never)]
    fn tell(&self, headers: &mut Headers, client: &ClientAddress) {
        // Without a list, that of a sub-request, nobody would be told of the client by its last hop.
        let has_list = headers.contains(KnownHeader::XForwardedFor);
        let told = match has_list {
            true => client.connection_ip(),
            false => client.ip(),
        };
        if let Some(ip) = told {
            headers.append_to_list(KnownHeader::XForwardedFor, AddressText::new(ip).bytes());
        }
        if self.client_from == ClientFrom::Forwarded {
            let hop = match client.connection_ip() {
                Some(IpAddr::V4(ip)) => format!("for={ip}"),
                Some(IpAddr::V6(ip)) => format!("for=\"[{ip}]\""),
                None => "for=unknown".to_owned(),
            };
            headers.append_to_list(KnownHeader::Forwarded, hop.as_bytes());
        }
    }
}

impl ClientFrom {
    fn field(self) -> KnownHeader {
        match self {
            Self::XForwardedFor => KnownHeader::XForwardedFor,
            Self::Forwarded => KnownHeader::Forwarded,
            Self::XRealIp => KnownHeader::XRealIp,
        }
    }
}

fn remove_claims(headers: &mut Headers) {
    if headers.contains_any_of(&CLAIMS) {
        for claim in CLAIMS {
            headers.remove(claim);
        }
    }
}

#[inline(never)]
fn set_request_id(headers: &mut Headers, keeps: bool) {
    let is_sound =
        |id: &[u8]| (1..=MAX_ID_BYTES).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic);
    let has_one = headers.get(KnownHeader::XRequestId).is_some_and(is_sound);
    if !(keeps && has_one) {
        let id = request_id::new(SystemTime::now());
        headers.set(KnownHeader::XRequestId, &id);
    }
}

fn scheme(text: &[u8]) -> Option<Scheme> {
    [Scheme::Http, Scheme::Https]
        .into_iter()
        .find(|scheme| scheme.as_str().as_bytes().eq_ignore_ascii_case(text))
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text.trim_ascii()).ok()?;
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let ip = match bare {
        Some(ipv6) => IpAddr::V6(ipv6.parse().ok()?),
        None => match text.parse::<IpAddr>() {
            Ok(ip) => ip,
            Err(_) => text.parse::<SocketAddr>().ok()?.ip(),
        },
    };
    Some(ip.to_canonical())
}

/// Addresses of the elements of a `Forwarded` field (RFC 7239 §4), `None` where an element has none that can be read. The outer
/// `None`: it is no such field.
fn forwarded_hops(line: &[u8]) -> Option<Vec<Option<IpAddr>>> {
    let mut hops = Vec::new();
    let mut rest = line;
    loop {
        let (mut hop, mut has_pairs, mut has_for) = (None, false, false);
        loop {
            rest = rest.trim_ascii_start();
            let name_len = rest.iter().take_while(|&&byte| is_token(byte)).count();
            if name_len > 0 {
                let (name, behind) = rest.split_at(name_len);
                let value;
                (value, rest) = forwarded_value(behind.strip_prefix(b"=")?)?;
                has_pairs = true;
                if name.eq_ignore_ascii_case(b"for") {
                    if has_for {
                        return None;
                    }
                    has_for = true;
                    hop = address(&value);
                }
            }
            rest = rest.trim_ascii_start();
            match rest.split_first() {
                Some((b';', behind)) => rest = behind,
                Some((b',', _)) | None => break,
                Some(_) => return None,
            }
        }
        if has_pairs {
            hops.push(hop);
        }
        match rest.split_first() {
            Some((_, behind)) => rest = behind,
            None => return Some(hops),
        }
    }
}

/// A token or a quoted string, and what is behind it.
fn forwarded_value(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let len = text.iter().take_while(|&&byte| is_token(byte)).count();
        let (token, behind) = text.split_at(len);
        return (len > 0).then(|| (token.to_vec(), behind));
    };
    let mut value = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    while let Some((at, &byte)) = bytes.next() {
        match byte {
            b'"' => return Some((value, &quoted[at + 1..])),
            b'\\' => value.push(*bytes.next()?.1),
            _ => value.push(byte),
        }
    }
    None
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::ServerField;

    fn proxies(client_from: ClientFrom) -> Claims {
        let cidrs = ["10.0.0.0/8", "2001:db8::/32"].map(|text| text.parse().unwrap());
        let networks = Networks {
            cidrs: cidrs.to_vec(),
            unix: true,
        };
        Claims {
            proxies: Some(Box::new(TrustedProxies {
                networks,
                client_from,
            })),
            ..Claims::default()
        }
    }

    fn settled(
        claims: &Claims,
        fields: &[(KnownHeader, &str)],
        connection: ClientAddress,
    ) -> (ClientAddress, RequestHead) {
        let mut request = RequestHead::default();
        request.headers.add(KnownHeader::Host, b"example.com");
        for (name, value) in fields {
            request.headers.add(*name, value.as_bytes());
        }
        let marks = Marks::new("web", true, ServerField::Keep, 1);
        let client = claims.settle(&mut request, connection, &marks);
        (client, request)
    }

    fn connection(ip: &str) -> ClientAddress {
        SocketAddr::new(ip.parse().unwrap(), 5000).into()
    }

    /// Client of a request of the proxy 10.0.0.1 with this field.
    #[track_caller]
    fn client(from: ClientFrom, value: &str) -> String {
        let fields: Vec<_> = value.split('|').map(|line| (from.field(), line)).collect();
        let (client, _) = settled(&proxies(from), &fields, connection("10.0.0.1"));
        client.to_string()
    }

    fn value(headers: &Headers, name: KnownHeader) -> String {
        let all: Vec<&str> = headers
            .get_all(name)
            .filter_map(|value| str::from_utf8(value).ok())
            .collect();
        all.join(" | ")
    }

    #[test]
    fn the_client_is_the_last_hop_that_is_no_trusted_proxy() {
        for (list, expected) in [
            ("192.0.2.1", "192.0.2.1:5000"),
            ("198.51.100.9, 192.0.2.1", "192.0.2.1:5000"),
            (
                "198.51.100.9, 192.0.2.1, 10.9.9.9,10.8.8.8",
                "192.0.2.1:5000",
            ),
            ("198.51.100.9|192.0.2.1|10.9.9.9", "192.0.2.1:5000"),
            ("10.7.7.7, 10.9.9.9", "10.7.7.7:5000"),
            ("192.0.2.1:4711", "192.0.2.1:5000"),
            ("2001:470::7, [2001:db8::9]:80", "[2001:470::7]:5000"),
            ("::ffff:192.0.2.1", "192.0.2.1:5000"),
            ("192.0.2.1, ,", "192.0.2.1:5000"),
            // Garbage ends the way.
            ("192.0.2.1, garbage, 10.9.9.9", "10.9.9.9:5000"),
            ("192.0.2.1, unknown", "10.0.0.1:5000"),
            ("192.0.2.1, 10.9.9.9.9", "10.0.0.1:5000"),
            ("", "10.0.0.1:5000"),
        ] {
            assert_eq!(client(ClientFrom::XForwardedFor, list), expected, "{list}");
        }
    }

    #[test]
    fn forwarded_is_read_as_its_specification_says() {
        for (list, expected) in [
            ("for=192.0.2.1", "192.0.2.1:5000"),
            (
                "For=\"192.0.2.1:4711\";proto=https;by=10.0.0.1",
                "192.0.2.1:5000",
            ),
            (
                "for=198.51.100.9, for=192.0.2.1, for=10.9.9.9",
                "192.0.2.1:5000",
            ),
            (
                "for=\"[2001:470::7]:80\" , for=\"[2001:db8::1]\"",
                "[2001:470::7]:5000",
            ),
            ("for=192.0.2.1;ext=\"a,b;c\\\"d\"", "192.0.2.1:5000"),
            ("for=192.0.2.1, for=_hidden", "10.0.0.1:5000"),
            ("for=192.0.2.1, proto=http", "10.0.0.1:5000"),
            ("for=192.0.2.1, ,", "192.0.2.1:5000"),
            // A client's quote does not swallow what a proxy has appended: nothing is believed.
            ("for=\"198.51.100.9, for=192.0.2.1", "10.0.0.1:5000"),
            ("for=\"198.51.100.9|for=192.0.2.1", "192.0.2.1:5000"),
            ("for=192.0.2.1;for=198.51.100.9", "10.0.0.1:5000"),
            ("for =192.0.2.1", "10.0.0.1:5000"),
            ("for=", "10.0.0.1:5000"),
            ("for=192.0.2.1 x", "10.0.0.1:5000"),
        ] {
            assert_eq!(client(ClientFrom::Forwarded, list), expected, "{list}");
        }
    }

    #[test]
    fn a_real_ip_is_one_address() {
        for (value, expected) in [
            ("192.0.2.1", "192.0.2.1:5000"),
            ("192.0.2.1, 192.0.2.2", "10.0.0.1:5000"),
            ("192.0.2.1|192.0.2.2", "10.0.0.1:5000"),
        ] {
            assert_eq!(client(ClientFrom::XRealIp, value), expected);
        }
    }

    #[test]
    fn a_trusted_proxys_word_goes_on_to_peers_with_its_own_address() {
        let claims = proxies(ClientFrom::XForwardedFor);
        let fields = [
            (KnownHeader::XForwardedFor, "192.0.2.1"),
            (KnownHeader::XForwardedProto, "https"),
            (KnownHeader::XForwardedHost, "shop.example"),
            (KnownHeader::XRealIp, "198.51.100.9"),
            (KnownHeader::Forwarded, "for=198.51.100.9"),
        ];
        let (client, mut request) = settled(&claims, &fields, connection("10.0.0.1"));
        assert_eq!(request.scheme, Scheme::Https);
        claims.tell(&mut request.headers, &client);
        let headers = &request.headers;
        assert_eq!(
            value(headers, KnownHeader::XForwardedFor),
            "192.0.2.1, 10.0.0.1"
        );
        assert_eq!(value(headers, KnownHeader::XForwardedProto), "https");
        assert_eq!(value(headers, KnownHeader::XForwardedHost), "shop.example");
        assert!(
            !headers.contains(KnownHeader::XRealIp) && !headers.contains(KnownHeader::Forwarded)
        );
        // A proxy that comes over a Unix socket has no address to add.
        let (client, mut request) = settled(&claims, &fields, ClientAddress::UNIX);
        assert_eq!(client.to_string(), "192.0.2.1");
        claims.tell(&mut request.headers, &client);
        assert_eq!(
            value(&request.headers, KnownHeader::XForwardedFor),
            "192.0.2.1"
        );
    }

    #[test]
    fn with_forwarded_peers_are_told_by_it_too() {
        let claims = proxies(ClientFrom::Forwarded);
        let fields = [
            (KnownHeader::Forwarded, "for=192.0.2.1"),
            (KnownHeader::XForwardedFor, "198.51.100.9"),
            (KnownHeader::XForwardedProto, "gopher"),
        ];
        let (client, mut request) = settled(&claims, &fields, connection("2001:db8::1"));
        claims.tell(&mut request.headers, &client);
        let headers = &request.headers;
        assert_eq!(value(headers, KnownHeader::XForwardedFor), "192.0.2.1");
        assert_eq!(
            value(headers, KnownHeader::Forwarded),
            "for=192.0.2.1, for=\"[2001:db8::1]\""
        );
        assert_eq!(value(headers, KnownHeader::XForwardedProto), "http");
        assert_eq!(value(headers, KnownHeader::XForwardedHost), "example.com");
    }

    #[test]
    fn claims_that_nobody_answers_for_are_removed() {
        let fields = [
            (KnownHeader::Forwarded, "for=192.0.2.1"),
            (KnownHeader::XForwardedFor, "192.0.2.1"),
            (KnownHeader::XForwardedPort, "1"),
            (KnownHeader::XForwardedProto, "https"),
            (KnownHeader::XForwardedHost, "evil"),
            (KnownHeader::XRealIp, "192.0.2.1"),
            (KnownHeader::Server, "other"),
        ];
        let stranger = connection("198.51.100.7");
        for claims in [Claims::default(), proxies(ClientFrom::XForwardedFor)] {
            let (client, mut request) = settled(&claims, &fields, stranger);
            assert_eq!((client, request.scheme), (stranger, Scheme::Http));
            claims.tell(&mut request.headers, &client);
            let headers = &request.headers;
            assert!(CLAIMS.iter().all(|claim| !headers.contains(*claim)));
            assert!(headers.contains(KnownHeader::Server));
            let list = value(headers, KnownHeader::XForwardedFor);
            assert_eq!(list, "192.0.2.1, 198.51.100.7");
            assert_eq!(value(headers, KnownHeader::XForwardedProto), "http");
            assert_eq!(value(headers, KnownHeader::XForwardedHost), "example.com");
        }
        let replacing = Claims {
            replaces_forwarded_for: true,
            ..Claims::default()
        };
        let (client, mut request) = settled(&replacing, &fields, stranger);
        replacing.tell(&mut request.headers, &client);
        let list = value(&request.headers, KnownHeader::XForwardedFor);
        assert_eq!(list, "198.51.100.7");
    }

    #[test]
    fn nobody_is_told_to_no_peer() {
        for claims in [Claims::default(), proxies(ClientFrom::Forwarded)] {
            let mut headers = Headers::new();
            claims.tell(&mut headers, &ClientAddress::NOBODY);
            assert!(headers.is_empty());
        }
    }

    #[test]
    fn an_id_is_made_or_kept() {
        let id = |keeps: bool, from: &str, id: &str| {
            let claims = Claims {
                request_id: Some(KeepsId(keeps)),
                ..proxies(ClientFrom::XForwardedFor)
            };
            let fields = [(KnownHeader::XRequestId, id)];
            let (_, request) = settled(&claims, &fields, connection(from));
            value(&request.headers, KnownHeader::XRequestId)
        };
        assert_eq!(id(true, "10.0.0.1", "of-the-proxy"), "of-the-proxy");
        for made in [
            id(false, "10.0.0.1", "of-the-proxy"),
            id(true, "192.0.2.1", "of-a-client"),
            id(true, "10.0.0.1", "not one"),
            id(true, "10.0.0.1", ""),
            id(true, "10.0.0.1", &"x".repeat(129)),
        ] {
            assert_eq!(made.len(), 32, "{made}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_ends_the_way(text: String, from in 0..3_usize) {
            let froms = [ClientFrom::XForwardedFor, ClientFrom::Forwarded, ClientFrom::XRealIp];
            let text: String = text.chars().filter(|c| !c.is_control()).collect();
            client(froms[from], &text);
        }
    }
}
