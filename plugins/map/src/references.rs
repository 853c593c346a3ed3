//! Maps that name one another: none may need its own value.

use castling_sdk::prelude::*;
use castling_sdk::template::Template;

use crate::{Lookup, Tables, Variable};

/// Fails where a map's source or values lead to the map itself.
pub(crate) fn check(maps: &[Variable]) -> Result<()> {
    let named: Vec<Vec<usize>> = maps.iter().map(|map| named(map, maps)).collect();
    for idx in 0..maps.len() {
        let mut reached = vec![false; maps.len()];
        let mut next = named[idx].clone();
        while let Some(it) = next.pop() {
            if it == idx {
                let name = &maps[idx].name;
                bail!("config.maps[{idx}]: it needs its own value, `${name}`");
            }
            if !std::mem::replace(&mut reached[it], true) {
                next.extend(&named[it]);
            }
        }
    }
    Ok(())
}

/// Maps that this one names.
fn named(map: &Variable, maps: &[Variable]) -> Vec<usize> {
    let mut named = Vec::new();
    let mut add = |template: &Template| {
        for name in template.variables() {
            named.extend(maps.iter().position(|map| map.name == name));
        }
    };
    add(&map.source);
    map.default.iter().for_each(&mut add);
    match &map.lookup {
        Lookup::Split(split) => split.values().for_each(add),
        Lookup::Tables(tables) => {
            let Tables { inline, file, .. } = &**tables;
            inline.templates().for_each(&mut add);
            if let Some(file) = file {
                file.get().templates().for_each(add);
            }
        }
    }
    named
}
