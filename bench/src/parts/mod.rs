//! Costs of a plugin's hooks, part by part, on the real runtime: `cargo xtask bench parts`.
//!
//! Each figure is CPU time of the worker's thread, the median over rounds in which all cases take turns, so that a machine
//! that drifts or is shared is the same to all. What a hook does sixteen times is told for once, without the
//! empty hook around it. docs/COSTS.md has the goals' reasons and what was measured.

mod bare;
mod case;
mod site;

use std::time::Duration;

use crate::Places;
use case::{Case, Measured};
use site::Site;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Measure only what contains this in its name, and wasmtime alone
    filter: Option<String>,
    /// Rounds in which each case takes its turn
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Milliseconds of each turn
    #[arg(long, default_value_t = 20)]
    turn: u64,
}

pub(crate) fn run(places: &Places, arguments: &Arguments) -> Result<(), String> {
    let site = Site::new(&places.guests, &places.plugins)?;
    let mut cases = Case::all(&site, arguments.filter.as_deref().unwrap_or_default())?;
    for case in &mut cases {
        case.warm_up(Duration::from_millis(arguments.turn))?;
    }
    for _ in 0..arguments.rounds {
        for case in &mut cases {
            case.take_turn()?;
        }
    }
    print(&case::figures(&cases));
    Ok(())
}

fn print(figures: &[Measured]) {
    println!(
        "{:<58} {:>9} {:>9} {:>9}",
        "CPU time, ns", "median", "best", "goal"
    );
    for figure in figures {
        if figure.median_ns.is_nan() {
            continue; // a case that it needs was not asked for
        }
        let goal = figure
            .goal_ns
            .map_or(String::new(), |goal| format!("{goal:.0}"));
        let missed = figure.goal_ns.is_some_and(|goal| figure.median_ns > goal);
        println!(
            "{:<58} {:>9.0} {:>9.0} {goal:>9}{}",
            figure.name,
            figure.median_ns,
            figure.best_ns,
            if missed { "  missed" } else { "" },
        );
    }
}
