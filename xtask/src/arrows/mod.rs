//! `cargo xtask arrows`: the rooms of `host/src`, floor by floor, and whether a room uses one that lies above it.
//!
//! The floors, what is excepted and what is owed are in [`rooms`].

mod circles;
mod drawing;
mod modules;
mod rooms;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

use crate::arrows::modules::{Arrow, Modules};
use crate::arrows::rooms::{CIRCLES, Circle, DEBTS, Debt, EXCEPTIONS, Exception, FLOORS};
use crate::command::{self, say};
use crate::workspace::Workspace;

/// Prints rooms and circles and what is wrong with them. False when something is.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    let modules = read(workspace)?;
    let rooms = rooms_of(&modules);
    println!("{}", drawing::draw(&rooms));
    let named = modules.named();
    let arrows = between_rooms(&named);
    let circles = circles::find(&modules.used());
    print_sums(&rooms, &arrows, &circles);
    let mut faults = wrong_rooms(&rooms);
    faults.extend(wrong_arrows(&arrows));
    faults.extend(wrong_circles(&circles));
    let page = page(workspace)?;
    if drawing::replaced(&page, &rooms)? != page {
        faults.push(format!(
            "{PAGE}: its drawing of the rooms is not of today: cargo xtask arrows --draw"
        ));
    }
    for fault in &faults {
        say!("arrows: {fault}");
    }
    Ok(faults.is_empty())
}

/// Puts the drawing of the rooms into the docs.
pub(crate) fn draw(workspace: &Workspace) -> Result<()> {
    let rooms = rooms_of(&read(workspace)?);
    let drawn = drawing::replaced(&page(workspace)?, &rooms)?;
    if command::write_if_changed(&workspace.root.join(PAGE), drawn.as_bytes())? {
        say!("{PAGE} has the rooms of today");
    }
    Ok(())
}

/// Where the drawing is, between two marks.
const PAGE: &str = "docs/ARCHITECTURE.md";

fn page(workspace: &Workspace) -> Result<String> {
    fs::read_to_string(workspace.root.join(PAGE)).with_context(|| format!("cannot read {PAGE}"))
}

fn read(workspace: &Workspace) -> Result<Modules> {
    let folder = workspace.root.join("host/src");
    let source_of = |file: &Path| match fs::read_to_string(folder.join(file)) {
        Ok(source) => Ok(Some(source)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    Modules::read("lib.rs", &source_of)
}

/// The rooms that have files, with how many.
fn rooms_of(modules: &Modules) -> BTreeMap<String, usize> {
    let mut rooms = BTreeMap::new();
    for file in modules.files() {
        *rooms.entry(room_of(&file).to_owned()).or_default() += 1;
    }
    rooms
}

/// A room is a folder of `host/src`, or a file there.
fn room_of(file: &str) -> &str {
    let first = file.split('/').next().unwrap_or(file);
    first.trim_end_matches(".rs")
}

/// The files' arrows that lie behind each arrow between two rooms.
type RoomArrows<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a Arrow>>;

fn between_rooms(arrows: &BTreeSet<Arrow>) -> RoomArrows<'_> {
    let mut between: RoomArrows<'_> = BTreeMap::new();
    for arrow in arrows {
        let (from, to) = (room_of(&arrow.from), room_of(&arrow.to));
        // The root's own lines are its modules; that others use it means a name that a module has, too.
        if from != to && from != "lib" {
            between.entry((from, to)).or_default().push(arrow);
        }
    }
    between
}

/// 0 for the lowest. None for a room that the table does not have.
fn floor_of(room: &str) -> Option<usize> {
    FLOORS
        .iter()
        .rev()
        .position(|floor| floor.rooms.iter().any(|(name, _)| *name == room))
}

fn runs_up(from: &str, to: &str) -> bool {
    floor_of(from)
        .zip(floor_of(to))
        .is_some_and(|(from, to)| from < to)
}

fn print_sums(rooms: &BTreeMap<String, usize>, arrows: &RoomArrows<'_>, circles: &[Vec<String>]) {
    let files: usize = rooms.values().sum();
    let up = arrows
        .iter()
        .filter(|((from, to), _)| runs_up(from, to))
        .count();
    println!(
        "{} rooms, {files} files, {} arrows between rooms, {up} of them up ({} excepted, {} owed)",
        rooms.len(),
        arrows.len(),
        EXCEPTIONS.len(),
        DEBTS.len()
    );
    for Exception { from, to, why } in EXCEPTIONS {
        println!("  excepted: {from} -> {to}: {why}");
    }
    for Debt { from, to, why, .. } in DEBTS {
        println!("  owed: {from} -> {to}: {why}");
    }
    let sizes: Vec<String> = circles
        .iter()
        .map(|circle| circle.len().to_string())
        .collect();
    println!("circles of files: {}", sizes.join(" "));
    for circle in circles {
        let why = CIRCLES.iter().find(|known| known.holds(circle));
        let why = why.map(|known| format!(": {}", known.why));
        println!("  {}{}", circle.join(" "), why.unwrap_or_default());
    }
}

fn wrong_rooms(rooms: &BTreeMap<String, usize>) -> Vec<String> {
    let listed = || FLOORS.iter().flat_map(|floor| floor.rooms);
    let unknown = rooms
        .keys()
        .filter(|room| *room != "lib" && floor_of(room).is_none());
    let unknown = unknown.map(|room| format!("{room} has no floor: {TABLE} wants it"));
    let empty = listed().filter(|(room, _)| !rooms.contains_key(*room));
    let empty = empty.map(|(room, _)| format!("{room} has no files: take it out of {TABLE}"));
    unknown.chain(empty).collect()
}

/// Where floors, exceptions and debts are written.
const TABLE: &str = "xtask/src/arrows/rooms.rs";

fn wrong_arrows(arrows: &RoomArrows<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    for ((from, to), files) in arrows.iter().filter(|((from, to), _)| runs_up(from, to)) {
        let is_excepted = EXCEPTIONS
            .iter()
            .any(|known| (known.from, known.to) == (*from, *to));
        let owed = DEBTS
            .iter()
            .find(|debt| (debt.from, debt.to) == (*from, *to))
            .map_or(0, |debt| debt.arrows);
        if !is_excepted && files.len() > owed {
            let files: Vec<String> = files
                .iter()
                .map(|arrow| format!("{} uses {}", arrow.from, arrow.to))
                .collect();
            faults.push(format!(
                "{from} runs up to {to}, {} times ({owed} owed): {}",
                files.len(),
                files.join(", ")
            ));
        }
    }
    let count = |from, to| match runs_up(from, to) {
        true => arrows.get(&(from, to)).map_or(0, Vec::len),
        false => 0,
    };
    for exception in EXCEPTIONS {
        if count(exception.from, exception.to) == 0 {
            let (from, to) = (exception.from, exception.to);
            faults.push(format!(
                "{from} -> {to} is excepted and not there: take it out of {TABLE}"
            ));
        }
    }
    faults.extend(
        DEBTS
            .iter()
            .filter_map(|debt| paid(debt, count(debt.from, debt.to))),
    );
    faults
}

/// A fault when less is owed than the table says.
fn paid(debt: &Debt, arrows: usize) -> Option<String> {
    let Debt { from, to, .. } = debt;
    match arrows {
        0 => Some(format!(
            "the debt {from} -> {to} is paid: take it out of {TABLE}"
        )),
        less if less < debt.arrows => Some(format!(
            "of the debt {from} -> {to} only {less} are left: say so in {TABLE}"
        )),
        _ => None,
    }
}

fn wrong_circles(circles: &[Vec<String>]) -> Vec<String> {
    let large = circles
        .iter()
        .filter(|circle| circle.len() > LARGEST_UNNAMED_CIRCLE);
    let unknown = large
        .filter(|circle| !CIRCLES.iter().any(|known| known.holds(circle)))
        .map(|circle| format!("a circle of {} files: {}", circle.len(), circle.join(" ")));
    let open = CIRCLES
        .iter()
        .filter(|known| !circles.iter().any(|circle| known.is(circle)))
        .map(|known| {
            let files = known.files.join(" ");
            format!("this circle is open or smaller now, say so in {TABLE}: {files}")
        });
    unknown.chain(open).collect()
}

/// Files that may use one another without a word.
const LARGEST_UNNAMED_CIRCLE: usize = 3;

impl Circle {
    /// Whether the files are of this circle.
    fn holds(&self, files: &[String]) -> bool {
        files.iter().all(|file| self.files.contains(&file.as_str()))
    }

    fn is(&self, files: &[String]) -> bool {
        self.holds(files) && files.len() == self.files.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_a_folder_or_a_file() {
        assert_eq!(room_of("wasm/plugin/instances.rs"), "wasm");
        assert_eq!(room_of("path.rs"), "path");
    }

    #[test]
    fn no_room_has_two_floors() {
        let mut names: Vec<&str> = FLOORS
            .iter()
            .flat_map(|floor| floor.rooms)
            .map(|(name, _)| *name)
            .collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_debt_may_only_shrink() {
        let debt = Debt {
            from: "a",
            to: "b",
            arrows: 2,
            why: "",
        };
        assert_eq!(paid(&debt, 2), None);
        assert!(paid(&debt, 1).is_some_and(|fault| fault.contains("only 1")));
        assert!(paid(&debt, 0).is_some_and(|fault| fault.contains("is paid")));
    }
}
