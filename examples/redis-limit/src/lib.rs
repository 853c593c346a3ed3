//! So many requests of each client in a window of time, counted in Redis for all gateways.

mod resp;

use castling_sdk::prelude::*;
use castling_sdk::{tcp, units};

use resp::{Redis, Reply};

#[derive(Deserialize)]
struct Config {
    /// Upstream that Redis is.
    redis: String,
    requests: i64,
    #[serde(deserialize_with = "units::duration_above_zero")]
    window: Duration,
    #[serde(deserialize_with = "units::duration_above_zero")]
    timeout: Duration,
}

struct Limit(Config);

#[plugin]
impl Limit {
    fn configure(config: Config) -> Result<Self> {
        http::must_be_granted(&config.redis).map_err(|error| error.context("config.redis"))?;
        Ok(Self(config))
    }

    fn access(&self, request: &mut Request) -> Result<Verdict> {
        let Config {
            redis,
            requests,
            window,
            timeout,
        } = &self.0;
        let mut redis = Redis::new(tcp::connect(redis, *timeout)?);
        let window = window.as_secs().max(1);
        let key = format!("requests:{}", request.client_address());
        let Reply::Integer(count) = redis.command(&[b"INCR", key.as_bytes()])? else {
            bail!("INCR answers no number");
        };
        if count == 1 {
            redis.command(&[b"EXPIRE", key.as_bytes(), window.to_string().as_bytes()])?;
        }
        Ok(match count > *requests {
            true => Response::status(429)
                .header("retry-after", window.to_string())
                .into(),
            false => Verdict::Continue,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use castling_sdk::testing::{self, Exchange};

    fn limit() -> Limit {
        let config = r#"{"redis": "redis", "requests": 2, "window": "10s", "timeout": "1s"}"#;
        Limit::configure(testing::config(config).unwrap()).unwrap()
    }

    #[test]
    fn requests_beyond_the_limit_are_refused() {
        let limit = limit();
        for (count, passes) in [(1, true), (2, true), (3, false)] {
            let mut exchange = Exchange::get("/").tcp("redis", move |sent| match sent {
                b"*2\r\n$4\r\nINCR\r\n$18\r\nrequests:192.0.2.1\r\n" => {
                    format!(":{count}\r\n").into_bytes()
                }
                b"*3\r\n$6\r\nEXPIRE\r\n$18\r\nrequests:192.0.2.1\r\n$2\r\n10\r\n" => {
                    b":1\r\n".to_vec()
                }
                other => panic!("{}", String::from_utf8_lossy(other)),
            });
            let verdict = limit.access(exchange.request()).unwrap();
            assert_eq!(verdict == Verdict::Continue, passes, "{count}");
        }
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        for (answer, why) in [
            (&b"-ERR no\r\n"[..], "Redis: ERR no"),
            (b"", "Redis has ended in a reply"),
            (b"$99999999999\r\n", "Redis answers 99999999999 bytes"),
            (b"$5\r\nab", "failed to fill whole buffer"),
            (b"?\r\n", "Redis answers \"?\""),
            (b"+OK\r\n", "INCR answers no number"),
        ] {
            let mut exchange = Exchange::get("/").tcp("redis", move |_| answer.to_vec());
            let error = limit().access(exchange.request()).unwrap_err().to_string();
            assert_eq!(error, why);
        }
    }
}
