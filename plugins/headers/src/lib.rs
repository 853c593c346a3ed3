//! Sets, adds and removes headers of requests and responses. Values may have variables in them.
//!
//! README.md has the config.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use castling_sdk::prelude::*;
use castling_sdk::serde::de::{self, Deserializer, SeqAccess, Visitor};
use castling_sdk::template::Template;

/// The plugin's config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// On the way to the upstream.
    #[serde(default)]
    request: Changes,
    /// On the way to the client.
    #[serde(default)]
    response: Changes,
}

/// Made in the order of the fields.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Changes {
    remove: Vec<HeaderName>,
    /// In the place of all of that name. An empty value removes them, as nginx's `proxy_set_header` does.
    set: BTreeMap<HeaderName, Template>,
    /// To those of that name. An empty value is not added.
    add: BTreeMap<HeaderName, Values>,
}

/// In the config: one text or a list of them.
struct Values(Vec<Template>);

/// The plugin.
pub struct Headers {
    request: Vec<Change>,
    response: Vec<Change>,
    /// Where values are put together, one after the other.
    room: Cell<Vec<u8>>,
}

enum Change {
    Remove(HeaderName),
    Set(HeaderName, Template),
    Add(HeaderName, Template),
}

#[plugin]
impl Headers {
    fn configure(config: Config) -> Result<Self> {
        config.request.check("config.request")?;
        config.response.check("config.response")?;
        let request = &config.request;
        if request
            .remove
            .iter()
            .chain(request.add.keys())
            .any(|name| *name == HOST)
        {
            bail!("config.request: a request has one `host`: it can be set, not added or removed");
        }
        if let Some(name) = config.request.names_of_response_values().next() {
            bail!(
                "config.request: the value of `{name}` speaks of the response, which is not there yet"
            );
        }
        Ok(Self {
            request: config.request.in_order(),
            response: config.response.in_order(),
            room: Cell::default(),
        })
    }

    fn access(&self, request: &mut Request) {
        let mut room = self.room.take();
        for change in &self.request {
            match change {
                Change::Remove(name) => {
                    request.remove_header(name);
                }
                Change::Set(name, template) => {
                    let value = expand(template, &mut room, request, None);
                    match (*name == HOST, value.is_empty()) {
                        (false, false) => request.set_header(name, value),
                        (false, true) => {
                            request.remove_header(name);
                        }
                        (true, false) => request.set_host(String::from_utf8_lossy(value)),
                        // A request always has one (RFC 9112 §3.2): nothing to put in its place leaves it.
                        (true, true) => {}
                    }
                }
                Change::Add(name, template) => {
                    let value = expand(template, &mut room, request, None);
                    if !value.is_empty() {
                        request.add_header(name, value);
                    }
                }
            }
        }
        self.room.set(room);
    }

    fn response_headers(&self, request: &Request, reply: &mut Reply) {
        let mut room = self.room.take();
        for change in &self.response {
            match change {
                Change::Remove(name) => {
                    reply.remove_header(name);
                }
                Change::Set(name, template) => {
                    let value = expand(template, &mut room, request, Some(reply));
                    match value.is_empty() {
                        false => reply.set_header(name, value),
                        true => {
                            reply.remove_header(name);
                        }
                    }
                }
                Change::Add(name, template) => {
                    let value = expand(template, &mut room, request, Some(reply));
                    if !value.is_empty() {
                        reply.add_header(name, value);
                    }
                }
            }
        }
        self.room.set(room);
    }
}

/// A value, which is in `room` unless it is the same for all.
fn expand<'a>(
    template: &'a Template,
    room: &'a mut Vec<u8>,
    request: &Request,
    reply: Option<&Reply>,
) -> &'a [u8] {
    match template.as_text() {
        Some(text) => text.as_bytes(),
        None => {
            room.clear();
            if !template.expand_into(room, request, reply) {
                // The text around variables that are all empty means nothing.
                room.clear();
            }
            room
        }
    }
}

impl Changes {
    fn in_order(self) -> Vec<Change> {
        let remove = self.remove.into_iter().map(Change::Remove);
        let set = self.set.into_iter();
        let set = set.map(|(name, template)| Change::Set(name, template));
        let add = self.add.into_iter().flat_map(|(name, values)| {
            let values = values.0.into_iter();
            values.map(move |template| Change::Add(name.clone(), template))
        });
        remove.chain(set).chain(add).collect()
    }

    fn added(&self) -> impl Iterator<Item = (&HeaderName, &Template)> {
        self.add
            .iter()
            .flat_map(|(name, values)| values.0.iter().map(move |template| (name, template)))
    }

    fn names_of_response_values(&self) -> impl Iterator<Item = &HeaderName> {
        self.set
            .iter()
            .chain(self.added())
            .filter(|(_, template)| template.needs_response())
            .map(|(name, _)| name)
    }

    /// Framing and hop-by-hop headers are the gateway's business.
    fn check(&self, place: &str) -> Result<()> {
        let mut names = self
            .remove
            .iter()
            .chain(self.set.keys())
            .chain(self.add.keys());
        match names.find(|name| FRAMING.contains(&name.as_str())) {
            Some(name) => bail!("{place}: `{name}` is the gateway's own: it frames the message"),
            None => Ok(()),
        }
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValuesVisitor)
    }
}

struct ValuesVisitor;

impl<'de> Visitor<'de> for ValuesVisitor {
    type Value = Values;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Values, E> {
        let template = Template::try_from(text.to_owned()).map_err(E::custom)?;
        Ok(Values(vec![template]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Values, A::Error> {
        let mut values = Vec::new();
        while let Some(template) = list.next_element()? {
            values.push(template);
        }
        Ok(Values(values))
    }
}

const HOST: &str = "host";

/// RFC 9110 §7.6.1 and RFC 9112 §6.
const FRAMING: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;
    use castling_sdk::testing::{self, Exchange};

    fn plugin(json: &str) -> Headers {
        Headers::configure(testing::config(json).unwrap()).unwrap()
    }

    fn refusal(json: &str) -> String {
        match testing::config(json).and_then(Headers::configure) {
            Ok(_) => panic!("accepted: {json}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_request_is_changed() {
        let plugin = plugin(
            r#"{"request": {
                "remove": ["X-Debug"],
                "set": {"x-client": "$client_address", "x-user": "$user", "x-old": ""},
                "add": {"x-tag": ["a", "$method"], "x-none": "$user"}
            }}"#,
        );
        let mut exchange = Exchange::get("/")
            .header("x-debug", "1")
            .header("x-client", "forged")
            .header("x-client", "again")
            .header("x-user", "forged")
            .header("x-old", "1")
            .header("x-tag", "0");
        plugin.access(exchange.request());
        let request = exchange.request();
        assert_eq!(request.header("x-debug"), None);
        assert_eq!(
            request.header_all("x-client"),
            [HeaderValue::new("192.0.2.1").unwrap()]
        );
        assert_eq!(
            request.header("x-user"),
            None,
            "a variable that is not set leaves nothing behind"
        );
        assert_eq!(request.header("x-old"), None);
        assert_eq!(request.header("x-none"), None);
        let tags = request.header_all("x-tag");
        assert_eq!(
            tags.iter()
                .map(|tag| tag.as_str().unwrap())
                .collect::<Vec<_>>(),
            ["0", "a", "GET"]
        );
    }

    #[test]
    fn the_host_is_set_where_routing_sees_it() {
        let plugin = plugin(r#"{"request": {"set": {"host": "$route.internal"}}}"#);
        let mut exchange = Exchange::get("/");
        plugin.access(exchange.request());
        assert_eq!(exchange.request().host(), "test.internal");
    }

    #[test]
    fn a_response_is_changed() {
        let plugin = plugin(
            r#"{"response": {"remove": ["server"], "set": {"x-was": "$response_header_etag at $path"}, "add": {"vary": "x"}}}"#,
        );
        let mut exchange = Exchange::get("/p")
            .response(200)
            .response_header("server", "s")
            .response_header("etag", "\"1\"");
        let (request, reply) = exchange.request_and_reply();
        plugin.response_headers(request, reply);
        assert_eq!(reply.header("server"), None);
        assert_eq!(reply.header("x-was").unwrap(), "\"1\" at /p");
        assert_eq!(reply.header("vary").unwrap(), "x");
    }

    #[test]
    fn a_bad_config_says_where() {
        for (json, text) in [
            (
                r#"{"request": {"remove": ["Host"]}}"#,
                "config.request: a request has one `host`",
            ),
            (
                r#"{"request": {"add": {"x": ["a", "$"]}}}"#,
                "config.request.add.x[1]: `$` is no variable's name: expected $name",
            ),
            (
                r#"{"request": {"add": {"x": "$"}}}"#,
                "config.request.add.x: `$` is no variable's name: expected $name",
            ),
            (
                r#"{"request": {"set": {"x": "$"}}}"#,
                "config.request.set.x: `$` is no variable's name: expected $name",
            ),
            (
                r#"{"request": {"add": {"x": 5}}}"#,
                "config.request.add.x: invalid type: integer `5`, expected a text or a list of texts",
            ),
            (
                r#"{"request": {"set": {"x y": "1"}}}"#,
                "config.request.set.x y: `x y` is not a header name",
            ),
            (
                r#"{"request": {"set": {"x": "$status"}}}"#,
                "config.request: the value of `x` speaks of the response",
            ),
            (
                r#"{"response": {"set": {"Content-Length": "1"}}}"#,
                "config.response: `content-length` is the gateway's",
            ),
            (
                r#"{"respons": {}}"#,
                "config.respons: unknown field `respons`",
            ),
        ] {
            let error = refusal(json);
            assert!(error.starts_with(text), "{error}");
        }
    }

    #[test]
    fn a_value_whose_variables_are_all_empty_is_none() {
        let json = r#"{"response": {"set": {"x-served-by": "$upstream/$peer"}, "add": {"x-user": "u=$user"}}}"#;
        let plugin = plugin(json);
        let mut exchange = Exchange::get("/").response(404);
        let (request, reply) = exchange.request_and_reply();
        plugin.response_headers(request, reply);
        assert_eq!(
            (reply.header("x-served-by"), reply.header("x-user")),
            (None, None)
        );

        let mut exchange = Exchange::get("/").upstream("app", "").response(200);
        let (request, reply) = exchange.request_and_reply();
        plugin.response_headers(request, reply);
        assert_eq!(reply.header("x-served-by").unwrap(), "app/");
    }
}
