//! Hooks that `castling-bench` calls: each uses one thing that the host keeps for plugins, sixteen times.

use castling_sdk::prelude::*;
use castling_sdk::zones::{Flight, Gauge, Kv};

/// Repetitions in one call.
const TIMES: u32 = 16;

const FOR: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Config {
    permits: Gauge,
    values: Kv,
}

struct Primitives(Config);

#[plugin]
impl Primitives {
    fn configure(config: Config) -> Self {
        Self(config)
    }

    /// Nothing.
    fn post_read(&self, _request: &mut Request) -> Verdict {
        Verdict::Continue
    }

    /// Reads a variable of the gateway's own.
    fn rewrite(&self, request: &mut Request) -> Verdict {
        for _ in 0..TIMES {
            std::hint::black_box(request.var("tries"));
        }
        Verdict::Continue
    }

    /// Takes a permit and gives it back.
    fn preaccess(&self, _request: &mut Request) -> Result<Verdict> {
        for _ in 0..TIMES {
            let Some(permit) = self.0.permits.enter("192.0.2.1", 100)? else {
                bail!("no permit");
            };
            permit.release()?;
        }
        Ok(Verdict::Continue)
    }

    /// Begins a flight that nobody waits for, and gives it up.
    fn access(&self, _request: &mut Request) -> Result<Verdict> {
        for _ in 0..TIMES {
            match self.0.values.single_flight("absent", FOR)? {
                Flight::Fetch(guard) => guard.give_up()?,
                _ => bail!("there is a value"),
            }
        }
        Ok(Verdict::Continue)
    }

    /// Sends on 64 bytes.
    fn response_body(&self, _request: &Request, chunk: &mut Chunk) -> Result<()> {
        for _ in 0..TIMES {
            chunk.emit([b'x'; 64])?;
        }
        Ok(())
    }
}
