//! Runs one show at full size: what the gateway promises, with counts. `docs/SHOWS.md` says what each does.
//!
//! ```sh
//! cargo xtask show reload-storm --seconds 60
//! ```

use std::process::ExitCode;
use std::time::Duration;

use castling_tests::show::{
    Progress, Report, cache_suite, chaos, coalesce, greedy, idle, protocols, reload_storm,
    reload_time, states, upgrades, upstreams,
};

const USAGE: &str = "\
usage: show NAME [OPTIONS]

  reload-storm   10 reloads a second under load, two configs in turn  [--seconds 60] [--requests 1000000]
  upgrades       binary upgrades under the same load                  [--upgrades 10]
  chaos          a worker killed every second, traps and resets       [--seconds 60]
  idle           idle connections on one worker: memory, reload       [--connections 50000]
  greedy         how long others wait beside clients that read nothing  [--clients 300]
  reload-time    how long a reload takes with 10 plugins              [--reloads 20]
  states         event streams with a plugin's state on one worker    [--streams 9000]
  coalesce       misses of one page at once, whose fetcher is killed  [--clients 1000]
  cache-suite    the public suite of tests for HTTP caches
  protocols      clients of other hands: curl, browsers, gRPC, scanners of TLS ...
  upstreams      peers that die, share out, are overloaded, change names, are probed  [--part N] [--seconds 60]
";

fn main() -> ExitCode {
    match Arguments::parse().and_then(|arguments| show(&arguments)) {
        Ok(report) => {
            println!("{report}");
            match report.passed() {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            eprintln!("show: {error}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn show(arguments: &Arguments) -> Result<Report, String> {
    let mut progress = Progress::shown();
    let seconds = |default: Duration| arguments.number("--seconds", default.as_secs());
    let report = match arguments.name.as_str() {
        "reload-storm" => {
            arguments.know(&["--seconds", "--requests"])?;
            let default = reload_storm::Options::default();
            let options = reload_storm::Options {
                lasts: Duration::from_secs(seconds(default.lasts)?),
                requests: arguments.number("--requests", default.requests)?,
                ..default
            };
            reload_storm::run(&options, &mut progress)
        }
        "upgrades" => {
            arguments.know(&["--upgrades"])?;
            let default = upgrades::Options::default();
            let upgrades = arguments.number("--upgrades", default.upgrades as u64)?;
            let options = upgrades::Options {
                upgrades: usize::try_from(upgrades).unwrap_or(usize::MAX),
                ..default
            };
            upgrades::run(&options, &mut progress)
        }
        "chaos" => {
            arguments.know(&["--seconds"])?;
            let default = chaos::Options::default();
            let options = chaos::Options {
                lasts: Duration::from_secs(seconds(default.lasts)?),
                ..default
            };
            chaos::run(&options, &mut progress)?
        }
        "idle" => {
            arguments.know(&["--connections"])?;
            let default = idle::Options::default();
            let connections = arguments.number("--connections", default.connections as u64)?;
            let options = idle::Options {
                connections: usize::try_from(connections).unwrap_or(usize::MAX),
                ..default
            };
            idle::run(&options, &mut progress)
        }
        "greedy" => {
            arguments.know(&["--clients"])?;
            let default = greedy::Options::default();
            let clients = arguments.number("--clients", default.clients as u64)?;
            let options = greedy::Options {
                clients: usize::try_from(clients).unwrap_or(usize::MAX),
                ..default
            };
            greedy::run(&options, &mut progress)
        }
        "reload-time" => {
            arguments.know(&["--reloads"])?;
            let default = reload_time::Options::default();
            let reloads = arguments.number("--reloads", default.reloads as u64)?;
            let options = reload_time::Options {
                reloads: usize::try_from(reloads).unwrap_or(usize::MAX).max(1),
                ..default
            };
            reload_time::run(&options, &mut progress)
        }
        "states" => {
            arguments.know(&["--streams"])?;
            let default = states::Options::default();
            let streams = arguments.number("--streams", default.streams as u64)?;
            let options = states::Options {
                streams: usize::try_from(streams).unwrap_or(usize::MAX),
                ..default
            };
            states::run(&options, &mut progress)
        }
        "coalesce" => {
            arguments.know(&["--clients"])?;
            let default = coalesce::Options::default();
            let clients = arguments.number("--clients", default.clients as u64)?;
            let options = coalesce::Options {
                clients: usize::try_from(clients).unwrap_or(usize::MAX).max(2),
                ..default
            };
            coalesce::run(&options, &mut progress)
        }
        "cache-suite" => {
            arguments.know(&[])?;
            cache_suite::run(&mut progress)
        }
        "protocols" => {
            arguments.know(&[])?;
            protocols::run(&mut progress)
        }
        "upstreams" => {
            arguments.know(&["--part", "--seconds"])?;
            let default = upstreams::Options::default();
            let part = arguments.number("--part", 0)?;
            let options = upstreams::Options {
                part: (part != 0).then_some(part),
                lasts: Duration::from_secs(seconds(default.lasts)?),
                ..default
            };
            upstreams::run(&options, &mut progress)
        }
        other => return Err(format!("there is no show {other}")),
    };
    Ok(report)
}

/// A name, then options with a number each.
struct Arguments {
    name: String,
    options: Vec<(String, u64)>,
}

impl Arguments {
    fn parse() -> Result<Self, String> {
        let mut arguments = std::env::args().skip(1);
        let name = arguments.next().ok_or("which one?")?;
        let mut options = Vec::new();
        while let Some(option) = arguments.next() {
            let value = arguments
                .next()
                .ok_or(format!("{option}: expected a number"))?;
            let number = value.parse();
            let number = number.map_err(|_| format!("{option}: got {value}: expected a number"))?;
            options.push((option, number));
        }
        Ok(Self { name, options })
    }

    fn know(&self, known: &[&str]) -> Result<(), String> {
        match self
            .options
            .iter()
            .find(|(name, _)| !known.contains(&name.as_str()))
        {
            Some((name, _)) => Err(format!(
                "{}: expected {}, got {name}",
                self.name,
                known.join(" or ")
            )),
            None => Ok(()),
        }
    }

    fn number(&self, option: &str, default: u64) -> Result<u64, String> {
        let found = self.options.iter().rev().find(|(name, _)| name == option);
        Ok(found.map_or(default, |(_, number)| *number))
    }
}
