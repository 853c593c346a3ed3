//! `castling run`

use std::path::Path;

use crate::process;

use super::Outcome;

pub(super) fn run(config: &Path) -> Outcome {
    process::run_master(config)
}
