//! Topics: messages to all workers.

use castling_abi::{Grant, MAX_MESSAGE_BYTES};

use crate::buffer::status;
use crate::error::{self, Result};
use crate::host;

/// The topic of this name. Whether it is there and granted is found out when it is used, or asked by
/// [`Topic::must_be_granted`].
///
/// ```
/// use std::cell::RefCell;
/// use std::collections::BTreeSet;
///
/// use castling_sdk::prelude::*;
/// use castling_sdk::testing::{self, Exchange};
/// use castling_sdk::zones::Topic;
///
/// /// Takes clients out at a word of one worker, in all of them.
/// struct Bans { news: Topic, banned: zones::Counter }
///
/// #[plugin]
/// impl Bans {
///     fn configure(_: std::collections::BTreeMap<String, String>) -> Self {
///         Self { news: zones::topic("bans"), banned: zones::counter("banned") }
///     }
///
///     fn content(&self, request: &mut Request) -> Result<Verdict> {
///         self.news.publish(request.path().trim_start_matches("/ban/"))?;
///         Ok(Response::status(204).into())
///     }
///
///     fn message(&mut self, _topic: &str, address: &[u8]) -> Result<()> {
///         self.banned.add(address, 1, Duration::from_secs(60))?;
///         Ok(())
///     }
/// }
///
/// let mut plugin = Bans { news: zones::topic("bans"), banned: zones::counter("banned") };
/// plugin.content(Exchange::get("/ban/192.0.2.7").request())?;
/// for message in testing::take_published("bans") {
///     plugin.message("bans", &message)?;
/// }
/// assert_eq!(zones::counter("banned").get("192.0.2.7")?, 1);
/// # Ok::<(), Error>(())
/// ```
pub fn topic(name: impl Into<String>) -> Topic {
    Topic { zone: name.into() }
}

/// A topic: [`topic()`].
///
/// A message is published to every plugin that is granted the topic and has a `message` hook, the one that publishes too, in every
/// worker that serves: from when it begins to serve until it drains. Each hears them one after the other, in the order in which they were published, at
/// its own pace, by whichever of its instances is free: what it finds out is for zones, or for metrics.
///
/// **Limits**: a message has up to 4096 bytes ([`Error::is_limit`](crate::Error::is_limit)). The topic holds as many as its size says; a
/// plugin that is slower than that loses the oldest, which `castling_topic_messages_lost_total` counts. Nobody waits for it.
///
/// **What it costs**: publishing suspends no hook and waits for no worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    zone: String,
}

impl Topic {
    /// Fails when the config has no such topic or does not grant it to the plugin: for `configure`, as
    /// [`Counter::must_be_granted`](super::Counter::must_be_granted).
    pub fn must_be_granted(&self) -> Result<()> {
        error::must_be_granted(Grant::Topic, &self.zone)
    }

    /// Publishes a message.
    pub fn publish(&self, message: impl AsRef<[u8]>) -> Result<()> {
        match host::topic_publish(self.zone.as_bytes(), message.as_ref()) {
            0.. => Ok(()),
            refused => Err(error::refusal(
                format_args!(
                    "zone \"{}\": publish of {} bytes, of up to {MAX_MESSAGE_BYTES}",
                    self.zone,
                    message.as_ref().len()
                ),
                status(refused),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ZoneFault, set_zone_fault, take_published};

    #[test]
    fn messages_are_published_in_order_and_refused_where_they_are_too_long() {
        let news = topic("news");
        news.publish("a").unwrap();
        news.publish([7; MAX_MESSAGE_BYTES]).unwrap();
        let refused = news.publish([7; MAX_MESSAGE_BYTES + 1]).unwrap_err();
        assert!(refused.is_limit());
        assert_eq!(
            refused.to_string(),
            "zone \"news\": publish of 4097 bytes, of up to 4096: limit reached"
        );
        assert_eq!(
            take_published("news"),
            [vec![b'a'], vec![7; MAX_MESSAGE_BYTES]]
        );
        assert!(take_published("news").is_empty());
        set_zone_fault("news", Some(ZoneFault::NotGranted));
        assert!(news.publish("a").is_err() && news.must_be_granted().is_err());
    }
}
