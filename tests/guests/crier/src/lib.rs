//! Publishes what a request's path says (`/say/TEXT`; `/flood/COUNT`; `/long/BYTES`), and counts what it hears: `/heard/TEXT` is answered by how
//! often, in all workers. A message may ask for a trap or for time.

use castling_sdk::prelude::*;
use castling_sdk::zones::Topic;

#[derive(Deserialize)]
struct Config {
    topic: String,
}

struct Crier {
    topic: Topic,
    heard: zones::Counter,
}

const HOUR: Duration = Duration::from_secs(3600);

#[plugin]
impl Crier {
    fn configure(config: Config) -> Result<Self> {
        let topic = zones::topic(config.topic);
        topic.must_be_granted().map_err(|error| error.context("config.topic"))?;
        Ok(Self { topic, heard: zones::counter("heard") })
    }

    fn content(&self, request: &mut Request) -> Result<Verdict> {
        let path = request.path();
        let (verb, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        let number = || rest.parse::<usize>().unwrap_or(0);
        let done = match verb {
            "say" => self.topic.publish(rest).map(|()| "said".to_owned()),
            "flood" => (0..number()).try_for_each(|_| self.topic.publish("wait")).map(|()| "flooded".to_owned()),
            "long" => self.topic.publish(vec![b'x'; number()]).map(|()| "said".to_owned()),
            "wrong" => zones::topic("heard").publish(rest).map(|()| "said".to_owned()),
            "heard" => self.heard.get(rest).map(|count| count.to_string()),
            _ => return Ok(Verdict::Continue),
        };
        Ok(match done {
            Ok(told) => Response::status(200).body(told).into(),
            Err(error) => Response::status(409).body(error.to_string()).into(),
        })
    }

    fn message(&mut self, topic: &str, message: &[u8]) -> Result<()> {
        match message {
            b"trap" => panic!("it was asked to"),
            b"permit" => {
                let refused = zones::kv("kept").single_flight("a", Duration::ZERO).is_err();
                self.heard.add(format!("refused-{refused}"), 1, HOUR)?;
            }
            b"wait" => delay(Duration::from_millis(20))?,
            _ => {}
        }
        if message.len() > 100 {
            let key = format!("{} bytes on {topic}", message.len());
            self.heard.add(key.replace(' ', "-"), 1, HOUR)?;
        } else {
            self.heard.add(message, 1, HOUR)?;
        }
        Ok(())
    }
}
