//! Computes variables: one that is another each time, one that it asks an upstream for, one that `configure` names, and some that have none.

use castling_sdk::prelude::*;
use castling_sdk::variables;

struct Computer;

#[derive(Deserialize)]
struct Config {}

#[plugin(variables = ["id", "who", "circle", "nothing", "broken", "pair"])]
impl Computer {
    fn configure(_: Config) -> Result<Self> {
        // Beside those of the manifest; none of them, and none of the gateway's own.
        variables::declare("late")?;
        for name in ["late", "id", "host", "Late", ""] {
            if variables::declare(name).is_ok() {
                bail!("`{name}` was taken");
            }
        }
        Ok(Self)
    }

    fn variable(&self, request: &Request, name: &str) -> Result<Option<String>> {
        Ok(match name {
            "id" => Some(format!("{:016x}", random::u64())),
            "who" => {
                let answer = http::send("helper", http::Request::get(request.path()))?;
                Some(String::from_utf8_lossy(answer.body()).into_owned())
            }
            "circle" => Some(format!("{:?}", request.var("circle").is_some())),
            "pair" => request
                .var("id")
                .map(|id| format!("({id},{id})", id = id.to_string_lossy())),
            "late" => Some(match variables::declare("later") {
                Ok(()) => "taken".to_owned(),
                Err(error) => error.to_string(),
            }),
            "broken" => bail!("it cannot be known"),
            _ => None,
        })
    }
}
