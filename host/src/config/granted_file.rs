//! Files that are granted to plugins: `grants.files`.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use super::GrantedFile;
use super::table::Value;

/// The list of a plugin. A name that is listed twice is refused, and a file that cannot be opened.
pub(super) fn granted_files(list: Value<'_>) -> Option<Vec<GrantedFile>> {
    let files = list.list(|item| Some((item, granted_file(item)?)))?;
    if files.len() > MOST_FILES {
        return list.refuse(format_args!("files: expected at most {MOST_FILES}"));
    }
    let mut names = HashSet::new();
    for (item, file) in &files {
        if !names.insert(&file.name) {
            item.refuse::<()>(format_args!("file {:?} is already in the list", file.name));
        }
    }
    Some(files.into_iter().map(|(_, file)| file).collect())
}

fn granted_file(value: Value<'_>) -> Option<GrantedFile> {
    let name = value.plain_text("the path of a file")?;
    let given = Path::new(name);
    let leads_up = given.components().any(|part| part == Component::ParentDir);
    let (folder, path) = match (given.is_absolute(), given.parent(), given.file_name()) {
        (true, Some(folder), Some(file)) => (folder.to_owned(), PathBuf::from(file)),
        (false, _, Some(_)) if !leads_up => {
            let folder = value.map().resolve_path(value.place(), ".");
            (folder, given.to_owned())
        }
        _ => return value.expected("the path of a file, without `..`"),
    };
    let file = GrantedFile {
        name: name.to_owned(),
        folder,
        path,
        place: value.place_text(),
    };
    match file.open() {
        Ok(_) => Some(file),
        Err(error) => value.refuse(format_args!("file {name} cannot be opened: {error}")),
    }
}

/// Files of one plugin: each is a descriptor in every worker.
const MOST_FILES: usize = 64;
