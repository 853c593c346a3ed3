//! Runs a command to its end, with a deadline.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// None when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Panics with all the command said when it did not exit with 0.
    #[track_caller]
    pub fn expect_success(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    /// Panics with all the command said when it did not exit with 1.
    #[track_caller]
    pub fn expect_refusal(self) -> Self {
        assert_eq!(self.code, Some(1), "{}{}", self.stdout, self.stderr);
        self
    }
}

/// `castling VERB --config FILE REST...`, for at most 30 s.
pub fn castling(verb: &str, config: &Path, rest: &[&str]) -> Outcome {
    let mut command = Command::new(crate::castling_bin());
    command.arg(verb).arg("--config").arg(config).args(rest);
    run(command, Duration::from_secs(30))
}

/// Runs it to its end; kills it and panics after `limit`.
pub fn run(command: Command, limit: Duration) -> Outcome {
    run_with_input(command, "", limit)
}

/// Runs it as [`run`] does, with this text on its standard input.
pub fn run_with_input(mut command: Command, input: &str, limit: Duration) -> Outcome {
    // Files, not pipes: what a grandchild keeps open can hold up a reader of a pipe.
    let dir = tempfile::tempdir().expect("a temporary folder");
    let [out, err, read] = ["stdout", "stderr", "stdin"].map(|name| dir.path().join(name));
    fs::write(&read, input).expect("a file in a new folder");
    let create = |path| File::create(path).expect("a file in a new folder");
    command
        .stdin(File::open(&read).expect("a file of ours"))
        .stdout(create(&out))
        .stderr(create(&err));
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            return Outcome {
                code: status.code(),
                stdout: text(&out),
                stderr: text(&err),
            };
        }
        if start.elapsed() > limit {
            let _ended_meanwhile = child.kill();
            let _status = child.wait();
            panic!(
                "{command:?}: not done within {limit:?}\n{}{}",
                text(&out),
                text(&err)
            );
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
