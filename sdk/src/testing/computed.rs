//! Variables that plugins of a chain compute, when something asks for them.

use std::rc::Rc;

use castling_abi::{ErrorKind, Hook};

use super::hook::Running;
use super::trace;
use super::world::{with_facts, with_world};
use crate::error;

/// Variables of a chain's plugins.
#[derive(Default)]
pub(super) struct Computed {
    pub(super) variables: Vec<Variable>,
    /// Failures of their hooks that the chain has not told yet.
    pub(super) failures: Vec<String>,
}

/// A variable that a plugin computes.
pub(super) struct Variable {
    pub(super) name: &'static str,
    /// Index of the plugin.
    pub(super) plugin: usize,
    /// Calls its hook: whether it has come to a value, or to none. `None`: the plugin runs already.
    pub(super) call: Rc<dyn Fn() -> Option<bool>>,
    /// True once somebody has asked for it.
    pub(super) is_computed: bool,
}

/// Whether a plugin computes the variable, and nobody has asked for it yet.
pub(super) fn is_uncomputed(name: &[u8]) -> bool {
    with_facts(|facts| facts.computed.uncomputed(name).is_some())
}

/// Runs the `variable` hook of the plugin whose variable it is, once a request, also when it fails.
pub(super) fn compute(name: &[u8]) {
    let variable = with_facts(|facts| {
        let variable = facts.computed.uncomputed(name)?;
        variable.is_computed = true;
        Some((variable.plugin, Rc::clone(&variable.call)))
    });
    let Some((plugin, call)) = variable else {
        return;
    };
    // A refusal that the asking hook has met stays its own.
    let noted = error::take_noted();
    let asker = with_world(|world| {
        let failure = (world.failure.take(), world.failure_kind);
        world.failure_kind = ErrorKind::Own;
        (std::mem::replace(&mut world.plugin, plugin), failure)
    });
    let running = Running::of(Hook::Variable);
    trace::line("begins");
    let outcome = call();
    let (failure, name) = with_world(|world| {
        let name = world.plugin_names.get(plugin).cloned().unwrap_or_default();
        (world.failure.take().unwrap_or_default(), name)
    });
    let told = match outcome {
        Some(true) => None,
        Some(false) => Some(failure),
        None => Some("it asks for a variable of its own, and has one instance here".to_owned()),
    };
    trace::line(&told.as_ref().map_or_else(
        || "returned continue".to_owned(),
        |failure| format!("failed: {failure}"),
    ));
    drop(running);
    with_world(|world| (world.plugin, (world.failure, world.failure_kind)) = asker);
    if let Some(failure) = told {
        let failure = format!("{name} {}: {failure}", Hook::Variable.name());
        with_facts(|facts| facts.computed.failures.push(failure));
    }
    if let Some(noted) = noted {
        error::note(noted);
    }
}

impl Computed {
    fn uncomputed(&mut self, name: &[u8]) -> Option<&mut Variable> {
        let mut variables = self.variables.iter_mut();
        variables.find(|variable| variable.name.as_bytes() == name && !variable.is_computed)
    }
}
