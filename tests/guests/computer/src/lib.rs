//! Computes variables: one that is another each time, one that it asks an upstream for, and some that have none.

use castling_sdk::prelude::*;

#[derive(Default)]
struct Computer;

#[plugin(variables = ["id", "who", "circle", "nothing", "broken", "pair"])]
impl Computer {
    fn variable(&self, request: &Request, name: &str) -> Result<Option<String>> {
        Ok(match name {
            "id" => Some(format!("{:016x}", random::u64())),
            "who" => {
                let answer = http::send("helper", http::Request::get(request.path()))?;
                Some(String::from_utf8_lossy(answer.body()).into_owned())
            }
            "circle" => Some(format!("{:?}", request.var("circle").is_some())),
            "pair" => request.var("id").map(|id| format!("({id},{id})", id = id.to_string_lossy())),
            "broken" => bail!("it cannot be known"),
            _ => None,
        })
    }
}
