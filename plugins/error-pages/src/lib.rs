//! Pages in the place of errors, by their status: bodies of the config or of files, pages of the own routes, redirects.
//!
//! README.md has the config.

mod page;
mod statuses;
#[cfg(test)]
mod tests;
mod vary;

use castling_sdk::metrics::Counter;
use castling_sdk::peer_status;
use castling_sdk::prelude::*;

use page::{Page, PageConfig};

/// The plugin's config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The first that is for the status, and for what the client takes, counts.
    pages: Vec<PageConfig>,
    /// Whether peers' errors are replaced, too, where a page does not say otherwise. Default false: those of the gateway and its plugins alone.
    #[serde(default)]
    intercept: bool,
}

/// The plugin.
pub struct ErrorPages {
    pages: Vec<Page>,
    /// Whether what a client takes decides somewhere.
    varies: bool,
    replaced: Counter<1>,
}

#[plugin]
impl ErrorPages {
    fn configure(config: Config) -> Result<Self> {
        if config.pages.is_empty() {
            bail!("config.pages: expected at least one");
        }
        let pages = config.pages.into_iter().enumerate().map(|(idx, page)| {
            let built = Page::new(page, config.intercept);
            built.map_err(|error| error.context(format!("config.pages[{idx}]")))
        });
        let pages = pages.collect::<Result<Vec<_>>>()?;
        Ok(Self {
            varies: pages.iter().any(Page::goes_by_accept),
            pages,
            replaced: Counter::new("replaced_total", "Errors that were replaced.", ["status"])?,
        })
    }

    fn response_headers(&self, request: &Request, reply: &mut Reply) -> Verdict {
        let status = reply.status();
        // Nearly every response goes on here.
        if status < 300 || !self.pages.iter().any(|page| page.is_for(status)) {
            return Verdict::Continue;
        }
        if is_call(request) || request.var("subrequest_of").is_some() {
            return Verdict::Continue;
        }
        let is_peers = peer_status() == Some(status);
        let is_possible = |page: &&Page| page.is_for(status) && (page.intercepts() || !is_peers);
        let mut pages = self.pages.iter().filter(is_possible);
        let page = pages.find(|page| page.is_taken(request));
        let Some(made) = page.and_then(|page| page.response(request, reply, self.varies)) else {
            // Another client may have a page in its place.
            let mut pages = self.pages.iter().filter(is_possible);
            if pages.any(Page::goes_by_accept)
                && let Some(vary) = vary::merged(reply.header_all("vary"), true)
            {
                reply.set_header("vary", vary);
            }
            return Verdict::Continue;
        };
        self.replaced.with([&*status.to_string()]).inc();
        made.into()
    }
}

/// A client of gRPC reads an error from the trailers, never from a page.
fn is_call(request: &Request) -> bool {
    let content_type = request.header("content-type");
    content_type.is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"))
}
