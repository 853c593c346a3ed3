//! The part of one body that lies in the spill file.

use std::io;
use std::rc::Rc;

use bytes::Bytes;

use super::{BLOCK_BYTES, SpillFile};

/// Bytes of a body, in blocks of the file that are its own until it is dropped.
pub struct SpilledBody {
    file: Rc<SpillFile>,
    blocks: Vec<u32>,
    bytes: usize,
}

impl SpilledBody {
    /// Nothing is written yet.
    pub fn new(file: &Rc<SpillFile>) -> Self {
        Self {
            file: Rc::clone(file),
            blocks: Vec::new(),
            bytes: 0,
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds bytes at the end. False: they are not kept, since the file is full or fails, which is noted there; then the body is
    /// of no use any more.
    #[must_use]
    pub fn push(&mut self, mut data: &[u8]) -> bool {
        while !data.is_empty() {
            let at = self.bytes % BLOCK_BYTES;
            if at == 0 {
                let Some(block) = self.file.take() else {
                    self.file.note_given_up(None);
                    return false;
                };
                if self.blocks.is_empty() {
                    self.file.metrics.bodies.inc();
                }
                self.blocks.push(block);
            }
            let Some(&block) = self.blocks.last() else {
                return false;
            };
            let (now, rest) = data.split_at(data.len().min(BLOCK_BYTES - at));
            if let Err(error) = self.file.write(block, at, now) {
                self.file.note_given_up(Some(&error));
                return false;
            }
            self.bytes += now.len();
            data = rest;
        }
        true
    }

    /// Bytes from this offset on, as far as they lie in one block; `None` at the end.
    pub fn at(&self, offset: usize) -> io::Result<Option<Bytes>> {
        let Some(&block) = self.blocks.get(offset / BLOCK_BYTES) else {
            return Ok(None);
        };
        let at = offset % BLOCK_BYTES;
        match (BLOCK_BYTES - at).min(self.bytes.saturating_sub(offset)) {
            0 => Ok(None),
            bytes => self.file.read(block, at, bytes).map(Some),
        }
    }
}

impl Drop for SpilledBody {
    fn drop(&mut self) {
        if !self.blocks.is_empty() {
            self.file.give(std::mem::take(&mut self.blocks));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::metrics::SpillMetrics;

    const LIMIT_BYTES: u64 = 64 << 20;

    fn spill_file(limit_bytes: u64) -> (Rc<SpillFile>, File) {
        let file = tempfile::tempfile().unwrap();
        let same = file.try_clone().unwrap();
        let metrics = SpillMetrics::default();
        (
            Rc::new(SpillFile::new(file.into(), limit_bytes, metrics)),
            same,
        )
    }

    fn in_use(file: &SpillFile) -> usize {
        file.blocks.borrow().in_use()
    }

    #[test]
    fn bodies_that_grow_by_turns_do_not_meet() {
        let (file, _) = spill_file(LIMIT_BYTES);
        let mut bodies: Vec<_> = (0..3).map(|_| SpilledBody::new(&file)).collect();
        for turn in 0..100_u8 {
            for (idx, body) in bodies.iter_mut().enumerate() {
                assert!(body.push(&vec![turn ^ idx as u8; 5000]));
            }
        }
        assert_eq!(in_use(&file), 3 * 8);
        for (idx, body) in bodies.iter().enumerate() {
            let mut seen = Vec::new();
            while let Some(piece) = body.at(seen.len()).unwrap() {
                seen.extend_from_slice(&piece);
            }
            assert_eq!(seen.len(), 500_000);
            let is_own = |(at, byte): (usize, &u8)| *byte == (at / 5000) as u8 ^ idx as u8;
            assert!(seen.iter().enumerate().all(is_own));
        }
        drop(bodies);
        assert_eq!(in_use(&file), 0);
    }

    #[test]
    fn the_room_of_a_large_body_is_given_back_to_the_disk() {
        let (file, same) = spill_file(LIMIT_BYTES);
        let mut body = SpilledBody::new(&file);
        assert!(body.push(&vec![b'x'; LIMIT_BYTES as usize]));
        assert!(!body.push(b"x"));
        let on_disk = || same.metadata().unwrap().blocks() * 512;
        assert!(on_disk() >= LIMIT_BYTES);
        drop(body);
        assert_eq!(in_use(&file), 0);
        assert!(on_disk() <= 17 << 20, "{}", on_disk());
    }

    #[test]
    fn a_file_that_fails_keeps_nothing_and_tells() {
        let reads_only = File::open("/dev/null").unwrap();
        let file = SpillFile::new(reads_only.into(), LIMIT_BYTES, SpillMetrics::default());
        let file = Rc::new(file);
        let mut body = SpilledBody::new(&file);
        assert!(!body.push(b"x"));
        assert_eq!(body.at(0).unwrap(), None);
        let (file, same) = spill_file(LIMIT_BYTES);
        let mut body = SpilledBody::new(&file);
        assert!(body.push(b"abc"));
        same.set_len(0).unwrap();
        body.at(0).unwrap_err();
    }
}
