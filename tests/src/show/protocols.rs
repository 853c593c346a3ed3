//! Clients of other hands, one after the other, with one gateway that all of them share.

use super::{Progress, Report};
use crate::clients::{self, Site, Stopped};

/// Runs all that are installed.
pub fn run(progress: &mut Progress) -> Report {
    let mut site = Site::start();
    let mut report = Report::new("Protocols: clients of other hands, with one gateway");
    for client in clients::ALL {
        progress.step(client.name);
        match client.run(&mut site) {
            Ok(done) => {
                report.claim(format!("{} {}", client.name, done.version), done.did, true);
                report.details(done.notes);
            }
            Err(Stopped::Failed(why)) => {
                let mut lines = why.lines();
                let first = lines.next().unwrap_or_default().to_owned();
                report.claim(client.name, first, false);
                report.details(lines.map(str::to_owned));
            }
            Err(Stopped::Missing(why)) => {
                report.figure(format!("SKIPPED: {}", client.name), why);
            }
        }
    }
    let errors = site.proxy.error_lines();
    let none = errors.is_empty();
    report.claim("no error in the gateway's log", errors.len(), none);
    report.details(errors);
    report
}
