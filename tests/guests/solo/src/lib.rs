//! Counts the runs of its timer, which one worker of a generation has.

use castling_sdk::prelude::*;

#[derive(Default)]
struct Solo;

#[plugin(timer = "1h", timer_on = "one_worker")]
impl Solo {
    fn timer(&mut self) -> Result<()> {
        zones::counter("ticks").add("solo", 1, Duration::from_secs(600))?;
        Ok(())
    }
}
