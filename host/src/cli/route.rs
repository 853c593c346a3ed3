//! `castling route`

use std::path::Path;

use tokio::task::LocalSet;

use crate::gateway::{Question, route_text};

use super::{Outcome, check, control};

/// Prints which route a request would take. Exits with 1 where none of the listeners has one for it.
pub(super) fn route(config_path: &Path, question: &Question, json: bool) -> Outcome {
    let asked = async {
        let gateway = check::load(config_path).await?;
        gateway.route(question).map_err(|error| vec![error])
    };
    let answers = control::in_runtime(LocalSet::new().run_until(asked))??;
    match json {
        true => println!(
            "{}",
            serde_json::to_string_pretty(&answers).map_err(control::lines)?
        ),
        false => print!("{}", route_text(question, &answers)),
    }
    match answers.iter().any(|answer| answer.route.is_some()) {
        true => Ok(()),
        false => Err(vec!["no route takes it".to_owned()]),
    }
}
