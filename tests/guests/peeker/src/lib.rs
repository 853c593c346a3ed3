//! Tells the peer how the body begins, as `x-peek` asks; and has the request go to the upstream of `x-to`.

use castling_sdk::prelude::*;

#[derive(Default)]
struct Peeker;

#[plugin]
impl Peeker {
    fn access(&self, request: &mut Request) -> Result<Verdict> {
        if let Some(upstream) = wish(request, "x-to") {
            for name in upstream.split(' ') {
                request.set_upstream(name.trim_matches('-'));
            }
        }
        if let Some(wish) = wish(request, "x-peek") {
            let mut told = Vec::new();
            for bytes in wish.split(' ') {
                let (bytes, whole) = request.peek_body(bytes.parse()?)?;
                told.push(format!("{}{}", String::from_utf8_lossy(&bytes), if whole { "." } else { "..." }));
            }
            request.set_header("x-peeked", told.join(" "));
        }
        if wish(request, "x-read").is_some() {
            let body = request.read_body(1 << 20)?;
            request.set_header("x-read", body.len().to_string());
        }
        Ok(match wish(request, "x-answer") {
            Some(body) => Response::status(200).body(body).into(),
            None => Verdict::Continue,
        })
    }

    fn response_headers(&self, request: &Request, reply: &mut Reply) -> Result<Verdict> {
        if wish(request, "x-peek-late").is_some() {
            let error = request.peek_body(1).err().map(|error| error.to_string());
            reply.set_header("x-late", error.unwrap_or_default());
        }
        Ok(Verdict::Continue)
    }
}

fn wish(request: &Request, header: &str) -> Option<String> {
    let wish = request.header(header)?;
    Some(wish.as_str()?.to_owned())
}
