//! A page, and the response that is made of it.

use castling_sdk::prelude::*;
use castling_sdk::template::{self, Escape, Template};

use crate::statuses::{StatusConfig, Statuses};
use crate::vary;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageConfig {
    /// `404`, `"5xx"`, `"500-504"`.
    status: Vec<StatusConfig>,
    /// Media type that the client has to name in `Accept`. Default: whatever it takes.
    #[serde(default)]
    accept: Option<String>,
    /// Whether peers' errors are replaced, too. Default: the plugin's.
    #[serde(default)]
    intercept: Option<bool>,
    /// Body, with variables.
    #[serde(default, deserialize_with = "body")]
    body: Option<Template>,
    /// A granted file that is the body.
    #[serde(default)]
    file: Option<String>,
    /// Whether the file has variables in it. Default false.
    #[serde(default)]
    variables: bool,
    /// Path, and maybe a query, of the gateway's own routes, whose response is the page.
    #[serde(default)]
    path: Option<String>,
    /// Path or URL that the client is sent to.
    #[serde(default)]
    redirect: Option<String>,
    /// Type of `body` and `file`. Default `text/html; charset=utf-8`.
    #[serde(default)]
    content_type: Option<String>,
    /// How variables' values are written into the body. Default: as its type has it.
    #[serde(default)]
    escape: Option<Escape>,
    /// Status that is sent: a number, or `"page"`, that of the page at `path`. Default: the error's; for a redirect 302.
    #[serde(default)]
    send_status: Option<SendStatus>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum SendStatus {
    Number(u16),
    Of(OfPage),
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OfPage {
    Page,
}

pub(crate) struct Page {
    statuses: Statuses,
    accept: Option<String>,
    intercepts: bool,
    content: Content,
    /// `None`: the error's.
    send_status: Option<u16>,
}

enum Content {
    Body(Typed, Template),
    File(Typed, files::Followed<Contents>),
    Path {
        target: Template,
        /// Whether the page's status is sent.
        has_status: bool,
    },
    Redirect(Location),
}

/// Path or URL of a redirect.
struct Location {
    /// Everything before the first `?`.
    path: Template,
    /// Everything behind it, in which values are encoded.
    query: Option<Template>,
}

/// Kind of a body.
struct Typed {
    content_type: String,
    escape: Escape,
}

enum Contents {
    Bytes(Vec<u8>),
    Template(Template),
}

/// Fields that are about the body that is replaced (RFC 9110 §8 and §14.4, RFC 9530), or that frame it.
const OF_BODY: [&str; 18] = [
    "accept-ranges",
    "connection",
    "content-digest",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-type",
    "digest",
    "etag",
    "keep-alive",
    "last-modified",
    "repr-digest",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields of the request that the request for a page has, too.
const FORWARDED: [&str; 6] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "authorization",
    "cookie",
    "user-agent",
];

impl Page {
    pub(crate) fn new(config: PageConfig, intercept: bool) -> Result<Self> {
        let statuses = Statuses::new(&config.status)?;
        let send_status = match config.send_status {
            Some(SendStatus::Number(status)) => Some(status),
            Some(SendStatus::Of(OfPage::Page)) | None => None,
        };
        let has_status = send_status.is_none() && config.send_status.is_some();
        if has_status && config.path.is_none() {
            bail!("send_status: \"page\" is for `path`; expected a number");
        }
        check_status(send_status, config.redirect.is_some())?;
        if let Some(accept) = &config.accept
            && !accept.contains('/')
        {
            bail!("accept: `{accept}`: expected a media type such as \"application/json\"");
        }
        let has_type = config.content_type.is_some() || config.escape.is_some();
        if has_type && config.body.is_none() && config.file.is_none() {
            bail!("`content_type` and `escape` are for `body` and `file`");
        }
        if config.variables && config.file.is_none() {
            bail!("`variables` is for `file`: other texts may have them anyway");
        }
        let typed = Typed::new(config.content_type, config.escape)?;
        let content = match (config.body, config.file, config.path, config.redirect) {
            (Some(body), None, None, None) => Content::Body(typed, body),
            (None, Some(file), None, None) => {
                let file = Contents::follow(&file, config.variables);
                Content::File(typed, file.map_err(|error| error.context("file"))?)
            }
            (None, None, Some(target), None) => Content::Path {
                target: path(&target).map_err(|error| error.context("path"))?,
                has_status,
            },
            (None, None, None, Some(to)) => {
                let to = Location::new(&to);
                Content::Redirect(to.map_err(|error| error.context("redirect"))?)
            }
            _ => bail!("expected one of `body`, `file`, `path` and `redirect`"),
        };
        Ok(Self {
            statuses,
            accept: config.accept.map(|accept| accept.to_ascii_lowercase()),
            intercepts: config.intercept.unwrap_or(intercept),
            content,
            send_status,
        })
    }

    pub(crate) fn is_for(&self, status: u16) -> bool {
        self.statuses.has(status)
    }

    pub(crate) fn intercepts(&self) -> bool {
        self.intercepts
    }

    pub(crate) fn goes_by_accept(&self) -> bool {
        self.accept.is_some()
    }

    /// Whether the client names the page's media type, where that matters.
    pub(crate) fn is_taken(&self, request: &Request) -> bool {
        let Some(accept) = &self.accept else {
            return true;
        };
        request.header_all("accept").iter().any(|value| {
            let value = value.to_string_lossy();
            value.split(',').any(|range| {
                let mut parts = range.split(';').map(str::trim);
                let name = parts.next().unwrap_or_default();
                name.eq_ignore_ascii_case(accept) && !parts.any(is_refusal)
            })
        })
    }

    /// `None`: the page cannot be had, and the error stays as it is. `is_by_accept`: what the client takes may have decided.
    pub(crate) fn response(
        &self,
        request: &Request,
        reply: &Reply,
        is_by_accept: bool,
    ) -> Option<Response> {
        let status = self.send_status.unwrap_or(reply.status());
        let mut vary = reply.header_all("vary");
        let response = match &self.content {
            Content::Redirect(to) => {
                let to = to.expand(request, reply)?;
                let response = Response::status(self.send_status.unwrap_or(302));
                // The client does not stay here, where it would have to prove who it is.
                let is_said = |name: &str| matches!(name, "location" | "www-authenticate");
                kept(response.header("location", to), reply, is_said)
            }
            Content::Path { target, has_status } => {
                let target = target.expand_encoded(request, Some(reply));
                let page = page_at(&target, request, *has_status)?;
                vary.extend(page.headers().all("vary"));
                let status = if *has_status { page.status() } else { status };
                of_page(status, page, reply)
            }
            Content::Body(typed, body) => {
                typed.response(status, typed.expand(body, request, reply), reply)
            }
            Content::File(typed, file) => match &*file.get() {
                Contents::Bytes(bytes) => typed.response(status, bytes.clone(), reply),
                Contents::Template(body) => {
                    typed.response(status, typed.expand(body, request, reply), reply)
                }
            },
        };
        Some(match vary::merged(vary, is_by_accept) {
            Some(vary) => response.header("vary", vary),
            None => response,
        })
    }
}

impl Location {
    fn new(text: &str) -> Result<Self> {
        if text.is_empty() {
            bail!("expected a path or a URL");
        }
        let (path, query) = match text.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (text, None),
        };
        Ok(Self {
            path: path.parse()?,
            query: query.map(str::parse).transpose()?,
        })
    }

    /// `None`: its variables are empty, which is told.
    fn expand(&self, request: &Request, reply: &Reply) -> Option<String> {
        let mut to = self.path.expand(request, Some(reply));
        if let Some(query) = &self.query {
            to.push(b'?');
            let encode = |value: &[u8]| http::encode(value).into_bytes();
            to.extend(query.expand_with(request, Some(reply), encode));
        }
        let to = http::on_this_host(&String::from_utf8_lossy(&to));
        if to.is_empty() {
            log::warn!("a redirect leads nowhere: its variables are empty");
            return None;
        }
        Some(to)
    }
}

/// Path and query of the own routes.
fn path(text: &str) -> Result<Template> {
    match text.starts_with('/') {
        true => text.parse(),
        false => bail!("`{text}`: expected a path of this gateway, such as \"/errors/404\""),
    }
}

/// Whether a parameter of a media range says that it is not acceptable (RFC 9110 §12.4.2).
fn is_refusal(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, weight)| {
        name.trim().eq_ignore_ascii_case("q") && weight.trim().parse() == Ok(0.0_f32)
    })
}

/// The page of the own routes; `None`: there is none, which is told.
fn page_at(target: &str, request: &Request, has_status: bool) -> Option<http::Response> {
    let page = http::subrequest(http::Request::get(target).forward(request, FORWARDED));
    // A redirect with the error's status would be an empty page that leads nowhere.
    let is_page = |status: u16| match status {
        304 => false,
        300..400 => has_status,
        status => status < 300,
    };
    match page {
        Ok(page) if is_page(page.status()) => return Some(page),
        Ok(page) => log::warn!("the page {target} has status {}", page.status()),
        Err(error) => log::warn!("the page {target} cannot be had: {error}"),
    }
    None
}

/// Fields of the page, and of the error what the page does not say.
fn of_page(status: u16, page: http::Response, reply: &Reply) -> Response {
    let response = page.headers().iter().fold(
        Response::status(status),
        |response, (name, value)| match name {
            "connection" | "content-length" | "keep-alive" | "trailer" | "transfer-encoding"
            | "upgrade" | "vary" => response,
            name => response.header(name, value),
        },
    );
    let is_said = |name: &str| name != "set-cookie" && page.header(name).is_some();
    kept(response, reply, is_said).body(page.into_body())
}

/// Adds what the error says beside its body: `WWW-Authenticate`, `Retry-After`, `Allow` and the like. Its `Vary` is merged elsewhere.
fn kept(response: Response, reply: &Reply, is_said: impl Fn(&str) -> bool) -> Response {
    let status = reply.status();
    reply
        .headers()
        .iter()
        .fold(response, |response, (name, value)| {
            // RFC 9110 §15.5.17: a 416 tells the length in `Content-Range`.
            let is_of_body = OF_BODY.contains(&name) || (name == "content-range" && status != 416);
            match is_of_body || name == "vary" || is_said(name) {
                true => response,
                false => response.header(name, value),
            }
        })
}

impl Typed {
    fn new(content_type: Option<String>, escape: Option<Escape>) -> Result<Self> {
        let content_type = content_type.unwrap_or_else(|| "text/html; charset=utf-8".to_owned());
        if HeaderValue::new(&content_type).is_err() || !content_type.contains('/') {
            bail!("content_type: `{content_type}`: expected a media type");
        }
        let escape = escape.unwrap_or_else(|| Escape::of_type(&content_type));
        Ok(Self {
            content_type,
            escape,
        })
    }

    fn response(&self, status: u16, body: Vec<u8>, reply: &Reply) -> Response {
        let response = kept(Response::status(status), reply, |_| false);
        let response = response.header("content-type", &self.content_type);
        response.body(body)
    }

    fn expand(&self, body: &Template, request: &Request, reply: &Reply) -> Vec<u8> {
        body.expand_with(request, Some(reply), |value| self.escape.apply(value))
    }
}

impl Contents {
    fn follow(name: &str, are_variables: bool) -> Result<files::Followed<Self>> {
        files::Followed::open(name, move |file| {
            Ok(match are_variables {
                true => Self::Template(Template::of_body(&file.read_text()?)?),
                false => Self::Bytes(file.read()?),
            })
        })
    }
}

fn check_status(status: Option<u16>, is_redirect: bool) -> Result<()> {
    match (status, is_redirect) {
        (Some(301 | 302 | 303 | 307 | 308) | None, true) => Ok(()),
        (Some(status), true) => {
            bail!("send_status: {status}: expected 301, 302, 303, 307 or 308 for a redirect")
        }
        // Neither may have a body.
        (Some(status @ (204 | 205 | 304)), false) => {
            bail!("send_status: {status}: a response with that status has no body")
        }
        (Some(status), false) if !(200..=599).contains(&status) => {
            bail!("send_status: {status}: expected 200 to 599")
        }
        (Some(_) | None, false) => Ok(()),
    }
}

/// Reads a text that may have line ends.
fn body<'de, D>(text: D) -> std::result::Result<Option<Template>, D::Error>
where
    D: castling_sdk::serde::Deserializer<'de>,
{
    template::body(text).map(Some)
}
