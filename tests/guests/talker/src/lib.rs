//! Does on connections to the upstream `x-to` what `x-do` says: `talk` writes `x-data` and reads to the end, `wait` reads only, `many` connects as
//! often as it may, `leave` forgets a connection that it has made.

use std::io::{Read, Write};

use castling_sdk::prelude::*;
use castling_sdk::tcp;

#[derive(Default)]
struct Talker;

#[plugin]
impl Talker {
    fn content(&self, request: &mut Request) -> Result<Verdict> {
        let answer = match done(request) {
            Ok(said) => Response::status(200).body(said),
            Err(error) => Response::status(502).body(error.to_string()),
        };
        Ok(answer.into())
    }
}

fn done(request: &Request) -> Result<String> {
    let [to, what, data] = ["x-to", "x-do", "x-data"].map(|name| text(request, name));
    let timeout = Duration::from_millis(text(request, "x-ms").parse().unwrap_or(5_000));
    let mut connection = tcp::connect(&to, timeout)?;
    match what.as_str() {
        "talk" => {
            connection.write_all(format!("{data}\n").as_bytes())?;
            let mut said = Vec::new();
            connection.read_to_end(&mut said)?;
            Ok(format!("{} {}", said.len(), String::from_utf8_lossy(&said[..said.len().min(100)])))
        }
        "wait" => {
            let read = connection.read(&mut [0; 100])?;
            Ok(format!("{read} bytes"))
        }
        "many" => {
            let mut all = vec![connection];
            loop {
                match tcp::connect(&to, timeout) {
                    Ok(one) => all.push(one),
                    Err(error) => return Ok(format!("{} {error}", all.len())),
                }
            }
        }
        _ => {
            connection.write_all(format!("{data}\n").as_bytes())?;
            std::mem::forget(connection);
            Ok("left".to_owned())
        }
    }
}

fn text(request: &Request, name: &str) -> String {
    let value = request.header(name);
    value.as_ref().and_then(|value| value.as_str()).unwrap_or_default().to_owned()
}
