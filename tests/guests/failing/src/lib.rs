//! Fails in `access` as `x-do` asks. With `x-told` it answers with the error and its kind instead.

use castling_sdk::prelude::*;

#[derive(Default)]
struct Failing;

#[plugin]
impl Failing {
    fn access(&self, request: &mut Request) -> Result<Verdict> {
        let told = request.header("x-told").is_some();
        match fail(request) {
            Err(error) if told => {
                let text = format!("{:?}|{error}", error.kind());
                Ok(Response::status(200).body(text).into())
            }
            result => result.map(|()| Verdict::Continue),
        }
    }
}

fn fail(request: &mut Request) -> Result<()> {
    let wish = request.header("x-do");
    let wish = wish.as_ref().and_then(|wish| wish.as_str()).unwrap_or_default();
    let (what, whom) = wish.split_once(' ').unwrap_or((wish, ""));
    let call = http::Request::get("/").timeout(Duration::from_millis(50));
    match what {
        "call" => drop(http::send(whom, call.timeout(Duration::from_secs(20)))?),
        "call-briefly" => drop(http::send(whom, call)?),
        "call-badly" => drop(http::send(whom, http::Request::get("no-slash"))?),
        "read-body" => drop(request.read_body(whom.parse()?)?),
        "subrequest" => drop(http::subrequest(call)?),
        "fill" => zones::kv(whom).put("key", vec![b'x'; 1 << 20], None)?,
        "own" => bail!("it was asked to"),
        "parse" => drop("x".parse::<u16>()?),
        _ => {}
    }
    Ok(())
}
