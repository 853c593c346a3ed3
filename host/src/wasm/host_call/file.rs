//! Files that the plugin is granted. What a hook reads of one is of one version, the one that there was when it first asked.

use std::sync::Arc;

use castling_abi::{FileFact, IMPORT_MODULE, Status, imports};
use wasmtime::{Caller, Linker, Result};

use super::refuse;
use crate::wasm::granted_file::FileVersion;
use crate::wasm::guest::{Guest, bytes, bytes_mut, split};

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap(IMPORT_MODULE, imports::FILE_OPEN, file_open)?
        .func_wrap(IMPORT_MODULE, imports::FILE_FACT, file_fact)?
        .func_wrap(IMPORT_MODULE, imports::FILE_READ, file_read)?;
    Ok(())
}

fn file_open(mut caller: Caller<'_, Guest>, ptr: u32, len: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    // Grants are the config's, the same for all instances of a generation.
    guest.note_repeatable();
    let name = bytes(memory, ptr, len)?;
    let found = guest
        .files
        .iter()
        .position(|(granted, _)| granted.as_bytes() == name);
    match found.and_then(|idx| i32::try_from(idx).ok()) {
        Some(idx) => Ok(idx),
        None => refuse(Status::NotGranted),
    }
}

fn file_fact(mut caller: Caller<'_, Guest>, file: u32, fact: u32) -> Result<i64> {
    let (_, guest) = split(&mut caller)?;
    let fact = FileFact::from_raw(fact);
    let (Some(fact), Some(version)) = (fact, guest.file_version(file)) else {
        return Ok(Status::BadArgument as i64);
    };
    let number = match fact {
        FileFact::Length => version.len,
        FileFact::Version => version.number,
    };
    Ok(i64::try_from(number).unwrap_or(i64::MAX))
}

fn file_read(
    mut caller: Caller<'_, Guest>,
    file: u32,
    offset: i64,
    out: u32,
    capacity: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let room = bytes_mut(memory, out, capacity)?;
    let Ok(offset) = u64::try_from(offset) else {
        return refuse(Status::BadArgument);
    };
    let Some(version) = guest.file_version(file) else {
        return refuse(Status::BadArgument);
    };
    match version.read_at(offset, room) {
        // A guest's memory is smaller than what an i32 can count.
        Ok(read) => Ok(i32::try_from(read).unwrap_or(i32::MAX)),
        Err(error) => {
            tracing::error!(plugin = &*guest.plugin, %error, "a granted file cannot be read");
            refuse(Status::HostFailed)
        }
    }
}

impl Guest {
    /// Version of a granted file that this hook reads; `None`: there is no such file.
    fn file_version(&mut self, file: u32) -> Option<Arc<FileVersion>> {
        let idx = usize::try_from(file).ok()?;
        let (_, granted) = self.files.get(idx)?;
        let current = || granted.current();
        let pinned = &mut self.results.get_or_insert_default().files;
        if let Some((_, version)) = pinned.iter().find(|(pinned, _)| *pinned == file) {
            return Some(Arc::clone(version));
        }
        let version = current();
        pinned.push((file, Arc::clone(&version)));
        Some(version)
    }
}
