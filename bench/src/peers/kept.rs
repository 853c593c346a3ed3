//! Figures that earlier runs have measured of the same build: a report need not be of one run, since a machine is seldom quiet for as
//! long as all cases take.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::case::Case;
use super::outcome::{Measured, Outcome, Round};

/// A folder with a file for each case.
pub(super) struct Kept {
    folder: PathBuf,
    /// Tells one build of the gateway from another.
    build: String,
}

#[derive(Serialize, Deserialize)]
struct Record {
    build: String,
    date: String,
    command: String,
    used_by_others: f64,
    peers: Vec<PeerRecord>,
}

#[derive(Serialize, Deserialize)]
struct PeerRecord {
    id: String,
    syscalls: Option<f64>,
    rounds: Vec<Round>,
}

impl Kept {
    pub(super) fn open(folder: PathBuf, gateway: &Path) -> Result<Self, String> {
        fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(Self {
            folder,
            build: build(gateway).map_err(|e| format!("{}: {e}", gateway.display()))?,
        })
    }

    /// Keeps what was measured, unless what is kept of the case was measured with less disturbance in as many rounds; false then.
    /// That decides, never a figure.
    pub(super) fn keep(&self, outcome: &Outcome<'_>) -> Result<bool, String> {
        if let Some(earlier) = self.get(outcome.case)?
            && earlier.used_by_others < outcome.used_by_others
            && rounds(&earlier) >= rounds(outcome)
            && earlier.peers.len() >= outcome.peers.len()
        {
            return Ok(false);
        }
        let peers = outcome.peers.iter().map(|measured| PeerRecord {
            id: measured.peer.id.to_owned(),
            syscalls: measured.syscalls,
            rounds: measured.rounds.clone(),
        });
        let record = Record {
            build: self.build.clone(),
            date: outcome.date.clone(),
            command: outcome.command.clone(),
            used_by_others: outcome.used_by_others,
            peers: peers.collect(),
        };
        let file = self.file(outcome.case);
        let text = serde_json::to_string_pretty(&record).map_err(|e| e.to_string())?;
        fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
        Ok(true)
    }

    /// Kept rounds of the case; `None` where nothing is of this build.
    pub(super) fn get<'a>(&self, case: &'a Case) -> Result<Option<Outcome<'a>>, String> {
        let file = self.file(case);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{}: {error}", file.display())),
        };
        // The file may be of another version of this program.
        let Ok(record) = serde_json::from_str::<Record>(&text) else {
            return Ok(None);
        };
        if record.build != self.build {
            return Ok(None);
        }
        let mut outcome = Outcome::new(case, std::iter::empty());
        for PeerRecord {
            id,
            syscalls,
            rounds,
        } in record.peers
        {
            let Some(peer) = case.peers.iter().find(|peer| peer.id == id) else {
                return Ok(None);
            };
            outcome.peers.push(Measured::again(*peer, rounds, syscalls));
        }
        outcome.used_by_others = record.used_by_others;
        outcome.date = record.date;
        outcome.command = record.command;
        Ok(Some(outcome))
    }

    fn file(&self, case: &Case) -> PathBuf {
        self.folder.join(format!("{}.json", case.name))
    }
}

fn rounds(outcome: &Outcome<'_>) -> usize {
    let rounds = outcome.peers.iter().map(|measured| measured.rounds.len());
    rounds.min().unwrap_or(0)
}

fn build(gateway: &Path) -> std::io::Result<String> {
    let mut file = File::open(gateway)?;
    let mut hasher = DefaultHasher::new();
    let mut bytes = vec![0; 1 << 20];
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(format!("{:016x}", hasher.finish())),
            read => hasher.write(&bytes[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::case;

    fn outcome(case: &Case, used_by_others: f64, rounds: usize, cpu_us: f64) -> Outcome<'_> {
        let figures = [("CPU µs/request".to_owned(), cpu_us)];
        let round = Round {
            figures: figures.into(),
            failed: 1,
            resent: 0,
        };
        let measured = |peer| Measured::again(peer, vec![round.clone(); rounds], Some(4.0));
        let mut outcome = Outcome::new(case, std::iter::empty());
        outcome.peers = case.peers.iter().copied().map(measured).collect();
        outcome.used_by_others = used_by_others;
        outcome.date = "2026-01-31".to_owned();
        outcome
    }

    #[test]
    fn what_is_kept_is_read_again_and_makes_room_for_what_was_less_disturbed() {
        let folder = tempfile::tempdir().unwrap();
        let gateway = folder.path().join("gateway");
        fs::write(&gateway, "one").unwrap();
        let open = || Kept::open(folder.path().join("kept"), &gateway).unwrap();
        let kept = open();
        let cases = case::all();
        let case = &cases[0];
        assert!(kept.get(case).unwrap().is_none());
        assert!(kept.keep(&outcome(case, 5.0, 3, 20.0)).unwrap());
        let again = kept.get(case).unwrap().unwrap();
        assert_eq!(again.date, "2026-01-31");
        assert_eq!(again.peers.len(), case.peers.len());
        assert_eq!(
            again.peers[0].rounds,
            outcome(case, 5.0, 3, 20.0).peers[0].rounds
        );
        assert_eq!(again.peers[0].syscalls, Some(4.0));
        // More disturbed, then fewer rounds but quieter, then more rounds.
        assert!(!kept.keep(&outcome(case, 6.0, 3, 1.0)).unwrap());
        assert!(kept.keep(&outcome(case, 4.0, 2, 20.0)).unwrap());
        assert!(kept.keep(&outcome(case, 6.0, 3, 20.0)).unwrap());
        fs::write(&gateway, "two").unwrap();
        assert!(open().get(case).unwrap().is_none(), "another build");
    }
}
