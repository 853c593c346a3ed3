//! Does in each hook what its path says, by std and crates of others alone.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{Instant, SystemTime};

use castling_sdk::prelude::*;
use uuid::Uuid;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// What `configure` does.
    #[serde(default)]
    does: String,
}

struct Printer {
    drawn: String,
}

#[plugin]
impl Printer {
    fn configure(config: Config) -> Result<Self> {
        let drawn = match config.does.as_str() {
            "" => String::new(),
            "uuid" => Uuid::new_v4().to_string(),
            "time" => format!("{:?}", SystemTime::now()),
            "map" => format!("{:?}", HashMap::from([(1, 2)])),
            "print" => {
                println!("a printer is configured");
                String::new()
            }
            "leave" => std::process::exit(3),
            other => bail!("config.does: got {other}"),
        };
        Ok(Self { drawn })
    }

    fn content(&mut self, request: &mut Request) -> Verdict {
        let body = match &*request.path() {
            "/drawn" => self.drawn.clone(),
            "/print" => print(),
            "/uuid" => Uuid::new_v4().to_string(),
            "/random" => drawn(),
            "/time" => time(),
            "/ambient" => ambient(),
            "/exit" => std::process::exit(7),
            "/panic" => panic!("asked to panic"),
            "/flood" => {
                for _ in 0..1_000_000 {
                    println!("flood");
                }
                String::new()
            }
            "/long" => {
                println!("{}", "long".repeat(100_000));
                String::new()
            }
            _ => return Response::status(404).into(),
        };
        Response::status(200).body(body).into()
    }
}

fn print() -> String {
    println!("one\n\ntwo");
    eprintln!("{} and {}", "three", 4);
    eprint!("begun");
    // Not UTF-8, and what a terminal would obey.
    let _ = io::stdout().write_all(b"\xff\x1b[31m\n");
    "printed".to_owned()
}

fn drawn() -> String {
    let mut bytes = [0_u8; 1000];
    let filled = getrandom::fill(&mut bytes).is_ok();
    let mut much = vec![0_u8; 1 << 20];
    let refused = getrandom::fill(&mut much).is_err();
    let mut counts = HashMap::new();
    for byte in bytes {
        *counts.entry(byte).or_insert(0) += 1;
    }
    format!("{filled} {refused} {}", counts.len() > 100)
}

fn time() -> String {
    let began = Instant::now();
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let same = wall.abs_diff(clock::wall()) < Duration::from_secs(60);
    format!("{same} {}", began.elapsed() < Duration::from_secs(600))
}

fn ambient() -> String {
    format!("{} {}", std::env::args().count(), std::env::vars().count())
}
