//! The command line: one file a command.

mod cert;
mod check;
mod control;
mod plugin;
mod route;
mod run;
mod status;
mod upstream;

use std::net::IpAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::gateway::Question;
use crate::process;

/// Runs the command that the arguments name. Errors go to standard error; the exit code is 0, 1 for a failure, 2 for
/// arguments that make no sense.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(on) => run::run(&on.config),
        Command::Check(on) => check::check(&on.config),
        Command::Route {
            on,
            url,
            method,
            headers,
            client,
            listener,
            json,
        } => {
            let question = Question {
                method,
                url,
                headers,
                client,
                listener,
            };
            route::route(&on.config, &question, json)
        }
        Command::Reload(on) => control::reload(&on.config),
        Command::Upgrade {
            on,
            binary,
            timeout,
        } => control::upgrade(&on.config, binary, timeout),
        Command::Status { on, json } => status::status(&on.config, json),
        Command::Stop { on, fast } => control::stop(&on.config, fast),
        Command::Upstream { on, name, command } => upstream::upstream(&on.config, name, command),
        Command::Reopen(on) => control::reopen(&on.config),
        Command::Drain(on) => control::drain(&on.config),
        Command::Metrics(on) => control::metrics(&on.config),
        Command::Plugin {
            command: PluginCommand::Inspect { file },
        } => plugin::inspect(&file),
        Command::Cert {
            command: CertCommand::SelfSigned { names, out },
        } => cert::self_signed(&names, &out),
        Command::Worker { channel } => process::run_worker(channel).map_err(in_lines),
        Command::TakeOver { on, channel } => process::take_over(channel, &on.config),
        Command::Compile { out, no_seccomp } => {
            process::run_helper(out, !no_seccomp).map_err(in_lines)
        }
        Command::Acme {
            channel,
            no_seccomp,
        } => process::run_acme_helper(channel, !no_seccomp).map_err(in_lines),
        Command::Fetch {
            channel,
            no_seccomp,
        } => process::run_fetch_helper(channel, !no_seccomp).map_err(in_lines),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(errors) => {
            for error in errors {
                eprintln!("castling: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Result of a command. The error is lines for a person.
type Outcome = Result<(), Vec<String>>;

/// A reverse proxy whose behaviour is written as sandboxed WebAssembly plugins.
#[derive(Parser)]
#[command(name = "castling", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  castling check --config conf/site.toml     is it right? what would it run?
  castling run --config conf/site.toml       run it, in the foreground
  castling route URL --config conf/site.toml which route, plugins and upstream would it take, and why?
  castling reload --config conf/site.toml    take over a changed config or plugin, losing no request
  castling upgrade --config conf/site.toml   take over a new castling binary, losing no request
  castling status --config conf/site.toml    workers, connections, plugins
  castling stop --config conf/site.toml      finish what is under way, then end

Signals to the master, as nginx has them:
  HUP reload   QUIT graceful stop   TERM, INT fast stop   USR1 reopen logs   USR2 upgrade   WINCH drain workers
  (reload, stop, stop --fast, reopen, upgrade and drain do the same)";

#[derive(Subcommand)]
enum Command {
    /// Run the gateway in the foreground: one master, one worker for each core
    #[command(after_help = "\
The master binds the listeners, has the plugins compiled and starts the workers. It ends by `castling stop`, Ctrl-C \
or a signal. With a config or a plugin that is not right it says why and exits with 1.

Example:
  castling run --config conf/site.toml")]
    Run(On),

    /// Check a config and its plugins without running them in a gateway
    #[command(after_help = "\
Parses the config, compiles every plugin, instantiates it and has it take its config: what a reload would do, \
without binding a port. Prints what would run, or every error with its place, and then exits with 1.

Example:
  castling check --config conf/site.toml && castling reload --config conf/site.toml")]
    Check(On),

    /// Say which route a request would take, and why, without sending it
    #[command(after_help = "\
Loads the config and its plugins as `check` does; no gateway needs to run, and no peer is asked. For each listener that the \
URL may be for (by its port, else by its scheme) it prints the route with its place in the config, the variables that its \
expressions capture, its plugins hook by hook, the upstream and its peers; the routes that were passed over, each with \
the first condition that does not hold; and those that would take the request, too, but are asked later. Plugins do not run. \
Exits with 1 when no listener has a route for it.

Examples:
  castling route https://shop.example.com/user/42 --config conf/site.toml
  castling route /login --method POST --header 'Host: shop.example.com' --header 'Cookie: beta=1' --client 10.0.0.7
  castling route http://shop.example.com/ --json | jq -r '.[].route.name'")]
    Route {
        /// `http://HOST/PATH`, `https://...`, or `/PATH` alone
        #[arg(value_name = "URL")]
        url: String,
        #[command(flatten)]
        on: On,
        /// Method of the request
        #[arg(long, value_name = "METHOD", default_value = "GET")]
        method: String,
        /// A field of its head; several by several of these
        #[arg(long = "header", value_name = "NAME: VALUE")]
        headers: Vec<String>,
        /// Address that it comes from; a trusted proxy's field is believed as it would be
        #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
        client: IpAddr,
        /// The listener that it comes to. Default: those whose port, or scheme, is the URL's
        #[arg(long, value_name = "NAME")]
        listener: Option<String>,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },

    /// Have the running gateway load its config and plugins again
    #[command(after_help = "\
Waits until the new generation of workers serves. When anything is wrong with it, the running generation goes \
on as it was and this prints the reason and exits with 1. With `workers.max_draining_generations` old generations still \
finishing their requests, it waits until one has ended (or ends the oldest; see `workers.when_draining_full`).

Example:
  $ castling reload --config conf/site.toml
  generation 3 serves (2 workers), 0.08 s")]
    Reload(On),

    /// Have the running gateway replace itself by another binary, without losing a request
    #[command(after_help = "\
Starts the new binary beside the running one and hands it the listening sockets, zones and metrics. Waits until its workers \
serve; the old master then finishes its requests and ends. When the new binary does not start, does not take the config, \
crashes or is not ready in time, the running gateway goes on as it was and this prints the reason and exits with 1.

Example, after a package manager has put a new version in its place:
  $ castling upgrade --config conf/site.toml
  castling 0.2.0 serves: pid 4711, generation 8 (2 workers), 0.31 s")]
    Upgrade {
        #[command(flatten)]
        on: On,
        /// The new binary. Default: the file that the running gateway was started from
        #[arg(long, value_name = "PATH")]
        binary: Option<PathBuf>,
        /// Time within which it must serve, its plugins compiled; `90s`, `5min`. Default: 2 minutes
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        timeout: Option<Duration>,
    },

    /// Show the running gateway: generations, workers, plugins
    #[command(after_help = "\
Text for a person; --json has the same with stable keys: times are in seconds (`..._seconds`), sizes in bytes \
(`..._bytes`), `since` is RFC 3339 in UTC. A worker that does not answer within a second is `silent`; its `core` is the one it \
ran on last. A plugin's numbers are added up over the workers of the newest generation, its state is the worst of theirs.

Examples:
  castling status --config conf/site.toml
  castling status --config conf/site.toml --json | jq '.workers[].pid'")]
    Status {
        #[command(flatten)]
        on: On,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },

    /// Stop the running gateway and wait until it has ended
    #[command(after_help = "\
Without --fast, requests under way are finished first, for at most `workers.drain_timeout`. A stop with --fast \
overtakes one without.

Example:
  castling stop --config conf/site.toml")]
    Stop {
        #[command(flatten)]
        on: On,
        /// Do not wait for requests under way
        #[arg(long)]
        fast: bool,
    },

    /// Show the peers of an upstream of the running gateway, or change them
    #[command(after_help = "\
What is ordered holds over reloads and upgrades until it is taken back, and ends with the gateway. Peers are named by their \
addresses, as the list has them.

Examples:
  castling upstream app                              its peers
  castling upstream app drain 10.0.0.1:80            let it finish, and send it nothing new
  castling upstream app up 10.0.0.1:80               use it again
  castling upstream app add 10.0.0.9:80 --weight 2   one more peer
  castling upstream app weight 10.0.0.1:80 1         send it less")]
    Upstream {
        #[command(flatten)]
        on: On,
        /// The upstream's name in the config
        name: String,
        #[command(subcommand)]
        command: Option<upstream::UpstreamCommand>,
    },

    /// Have the running gateway open its log files again, after they were moved away
    #[command(after_help = "\
Example, for logrotate's postrotate:
  castling reopen --config /etc/castling/castling.toml")]
    Reopen(On),

    /// Have all workers finish their requests and end; new connections wait until a reload
    #[command(after_help = "\
The listening sockets stay open. What SIGWINCH does.

Example:
  castling drain --config conf/site.toml && castling reload --config conf/site.toml")]
    Drain(On),

    /// Print the running gateway's metrics, its plugins' included, in Prometheus' text format
    #[command(after_help = "\
The same that a route with `metrics = true` answers.

Example:
  castling metrics --config conf/site.toml | grep castling_requests_total")]
    Metrics(On),

    /// Look at plugins
    #[command(arg_required_else_help = true)]
    Plugin {
        #[command(subcommand)]
        command: PluginCommand,
    },

    /// Make certificates
    #[command(arg_required_else_help = true)]
    Cert {
        #[command(subcommand)]
        command: CertCommand,
    },

    /// A worker; started by the master
    #[command(hide = true)]
    Worker {
        #[arg(long)]
        channel: RawFd,
    },

    /// A master that another hands over to; started by that one
    #[command(hide = true)]
    TakeOver {
        #[command(flatten)]
        on: On,
        #[arg(long)]
        channel: RawFd,
    },

    /// Compiles standard input; started by the master
    #[command(hide = true)]
    Compile {
        /// The inherited file that takes the product
        #[arg(long)]
        out: RawFd,
        #[arg(long)]
        no_seccomp: bool,
    },

    /// Orders a certificate; started by the master
    #[command(hide = true)]
    Acme {
        #[arg(long)]
        channel: RawFd,
        #[arg(long)]
        no_seccomp: bool,
    },
    /// Ask the DNS, for a master that runs
    #[command(hide = true)]
    Fetch {
        #[arg(long)]
        channel: RawFd,
        #[arg(long)]
        no_seccomp: bool,
    },
}

#[derive(Subcommand)]
enum PluginCommand {
    /// Print what a module says about itself: manifest, imports, exports, size
    #[command(after_help = "\
Does not run the module. Exits with 1 when this gateway would refuse it.

Example:
  castling plugin inspect plugins/token_auth.wasm")]
    Inspect {
        /// The module
        #[arg(value_name = "FILE.wasm")]
        file: PathBuf,
    },
}

#[derive(Subcommand)]
enum CertCommand {
    /// Make a key and a certificate that nobody vouches for, for development
    #[command(after_help = "\
Writes cert.pem and key.pem (mode 0600) into the folder, unless they are there; then it exits with 1.

Example:
  castling cert self-signed --name localhost --name 127.0.0.1 --out tls
and in the config:
  [listeners.secure.tls]
  certificates = [{ certificate = \"tls/cert.pem\", key = \"tls/key.pem\" }]")]
    SelfSigned {
        /// A host name or an IP address that it is for; several by several of these
        #[arg(long = "name", value_name = "NAME", default_values_t = cert::LOCAL_NAMES.map(str::to_owned))]
        names: Vec<String>,
        /// The folder
        #[arg(long, value_name = "FOLDER", default_value = "tls")]
        out: PathBuf,
    },
}

/// Gateway that is meant.
#[derive(Args)]
struct On {
    /// The config file; for commands to a running gateway, the one it was started with
    #[arg(
        long,
        short,
        value_name = "FILE",
        default_value = "castling.toml",
        // Behind the words of a command's command, too: `castling upstream app list --config FILE`.
        global = true
    )]
    config: PathBuf,
}

fn in_lines(error: anyhow::Error) -> Vec<String> {
    format!("{error:#}").lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::process::Role;

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_config_is_named_before_or_behind_the_words_of_a_command() {
        for line in [
            "castling upstream app drain 10.0.0.1:80 --config x.toml",
            "castling upstream app add 10.0.0.1:80 -c x.toml --weight 2",
            "castling upstream app --config x.toml list",
            "castling upstream --config x.toml app list",
            "castling upstream app -c x.toml",
            "castling status --json -c x.toml",
        ] {
            let config = match Cli::try_parse_from(line.split(' ')).map(|cli| cli.command) {
                Ok(Command::Upstream { on, .. } | Command::Status { on, .. }) => on.config,
                Ok(_) => panic!("{line}: another command"),
                Err(error) => panic!("{line}: {error}"),
            };
            assert_eq!(config, PathBuf::from("x.toml"), "{line}");
        }
        let by_default = Cli::try_parse_from(["castling", "upstream", "app", "list"]);
        let command = by_default.map(|cli| cli.command);
        let Ok(Command::Upstream { on, name, .. }) = command else {
            panic!("no upstream");
        };
        assert_eq!((on.config, &*name), (PathBuf::from("castling.toml"), "app"));
    }

    #[test]
    fn every_role_has_a_hidden_command() {
        let cli = Cli::command();
        for role in Role::ALL {
            let command = cli.find_subcommand(role.needs().command);
            assert!(
                command.is_some_and(|command| command.is_hide_set()),
                "{role:?}"
            );
        }
    }
}
