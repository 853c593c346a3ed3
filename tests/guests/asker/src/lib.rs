//! Answers with what sub-requests to the paths in `x-ask` have brought.

use castling_sdk::prelude::*;

#[derive(Default)]
struct Asker;

#[plugin]
impl Asker {
    fn content(&self, request: &mut Request) -> Result<Verdict> {
        let asked = text(request, "x-ask");
        let results = http::send_all(asked.split(' ').map(|path| {
            let mut call = http::Request::post(path).header("x-by", "asker").body(path);
            // This path asks itself, again and again.
            if path.starts_with("/again") {
                call = call.header("x-ask", path);
            }
            (http::OWN_ROUTES, call.timeout(Duration::from_secs(5)))
        }));
        let told: Vec<String> = results
            .into_iter()
            .map(|result| match result {
                Ok(response) => format!("{}:{}", response.status(), String::from_utf8_lossy(response.body())),
                Err(error) => format!("failed: {error}"),
            })
            .collect();
        Ok(Response::status(200).body(told.join("|")).into())
    }
}

fn text(request: &Request, name: &str) -> String {
    let value = request.header(name);
    value.as_ref().and_then(|value| value.as_str()).unwrap_or_default().to_owned()
}
