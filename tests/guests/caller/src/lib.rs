//! Answers with what a call to `x-to` has brought: `x-method` with the target `x-target` and the request's body.

use castling_sdk::prelude::*;

#[derive(Default)]
struct Caller;

#[plugin]
impl Caller {
    fn content(&self, request: &mut Request) -> Result<Verdict> {
        let [to, method, target] = ["x-to", "x-method", "x-target"].map(|name| text(request, name));
        let body = request.read_body(1 << 20)?;
        let method = if method.is_empty() { "GET".to_owned() } else { method };
        let target = if target.is_empty() { "/".to_owned() } else { target };
        let call = http::Request::new(&method, target).header("x-by", "caller").body(body);
        Ok(match http::send(to, call.timeout(Duration::from_secs(5))) {
            Ok(answer) => Response::status(answer.status()).body(answer.body().to_vec()).into(),
            Err(error) => Response::status(502).body(error.to_string()).into(),
        })
    }
}

fn text(request: &Request, name: &str) -> String {
    let value = request.header(name);
    value.as_ref().and_then(|value| value.as_str()).unwrap_or_default().to_owned()
}
