//! Circles of files that use one another: the strongly connected components of the arrows between them.

use std::collections::{BTreeMap, BTreeSet};

use crate::arrows::modules::Arrow;

/// Circles of two files and more, largest first. The files of each are sorted.
pub(super) fn find(arrows: &BTreeSet<Arrow>) -> Vec<Vec<String>> {
    let mut graph: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for arrow in arrows {
        graph.entry(&arrow.from).or_default().insert(&arrow.to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> = graph
        .keys()
        .map(|&file| (file, reached_from(file, &graph)))
        .collect();
    let mut circles: Vec<Vec<String>> = Vec::new();
    for (file, reach) in &reached {
        let is_known = circles
            .iter()
            .any(|circle| circle.iter().any(|known| known == file));
        if is_known || !reach.contains(file) {
            continue;
        }
        let mutual = reach
            .iter()
            .filter(|other| reached.get(*other).is_some_and(|back| back.contains(file)));
        circles.push(mutual.map(|file| (*file).to_owned()).collect());
    }
    circles.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    circles
}

fn reached_from<'a>(file: &str, graph: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&str> = graph.get(file).into_iter().flatten().copied().collect();
    while let Some(file) = next.pop() {
        if reached.insert(file) {
            next.extend(graph.get(file).into_iter().flatten());
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_are_found_largest_first() {
        let arrows = "ab bc ca cd de ed ef fg".split(' ').map(|pair| Arrow {
            from: pair[..1].to_owned(),
            to: pair[1..].to_owned(),
        });
        let circles = find(&arrows.collect());
        assert_eq!(circles, [vec!["a", "b", "c"], vec!["d", "e"]]);
    }
}
