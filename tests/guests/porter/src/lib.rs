//! Carries bodies piece by piece: what `x-do` says, with the upstream or host `x-to`, whose target is the request's path. `get` passes its response on,
//! `put` writes `x-bytes` bytes in pieces of `x-piece` (with `x-sized`, of a length that is told) and tells the answer, `many` opens as many
//! calls as it may, `leave` drops one in its middle, `linger` waits with one open.

use castling_sdk::prelude::*;

#[derive(Default)]
struct Porter;

#[plugin]
impl Porter {
    fn content(&self, request: &mut Request) -> Result<Verdict> {
        let to = text(request, "x-to");
        let timeout = Duration::from_millis(text(request, "x-ms").parse().unwrap_or(10_000));
        let call = |method| http::Request::new(method, request.path()).timeout(timeout);
        match text(request, "x-do").as_str() {
            "get" => pass_on(http::stream(to, call("GET"))?),
            "put" => put(request, &to, call("PUT")),
            "many" => {
                let mut open = Vec::new();
                loop {
                    match http::open(&to, call("PUT")) {
                        Ok(one) => open.push(one),
                        Err(error) => return tell(format!("{} {error}", open.len())),
                    }
                }
            }
            "leave" => {
                // More than waits on this side: the peer has some of it.
                http::open(&to, call("PUT"))?.write(vec![b'x'; 1 << 20])?;
                tell("left".to_owned())
            }
            "linger" => {
                let mut open = http::open(&to, call("PUT"))?;
                open.write("some of it")?;
                delay(Duration::from_secs(60))?;
                tell(format!("{:?}", open.finish()?.status()))
            }
            _ => Ok(Verdict::Continue),
        }
    }
}

fn pass_on(mut answer: http::StreamedResponse) -> Result<Verdict> {
    let mut page = Response::status(answer.status()).stream()?;
    while let Some(piece) = answer.read(usize::MAX)? {
        page.write(piece)?;
    }
    page.finish()
}

fn put(request: &Request, to: &str, call: http::Request) -> Result<Verdict> {
    let [bytes, piece] = ["x-bytes", "x-piece"].map(|name| text(request, name).parse::<usize>());
    let (bytes, piece) = (bytes?, piece.unwrap_or(10_000));
    let mut upload = match text(request, "x-sized").parse() {
        Ok(length) => http::open_sized(to, call, length)?,
        Err(_) => http::open(to, call)?,
    };
    let mut left = bytes;
    while left > 0 && upload.is_wanted() {
        let part = left.min(piece);
        upload.write(vec![b'p'; part])?;
        left -= part;
    }
    let is_wanted = upload.is_wanted();
    let mut answer = upload.finish()?;
    let mut body = Vec::new();
    while let Some(piece) = answer.read(100)? {
        body.extend(piece);
    }
    let body = String::from_utf8_lossy(&body);
    tell(format!("{} {body} wanted {is_wanted}", answer.status()))
}

fn tell(told: String) -> Result<Verdict> {
    Ok(Response::status(200).body(told).into())
}

fn text(request: &Request, name: &str) -> String {
    let value = request.header(name);
    value.as_ref().and_then(|value| value.as_str()).unwrap_or_default().to_owned()
}
