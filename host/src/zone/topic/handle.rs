//! A topic in the hands of one worker.

use std::sync::Arc;

use super::{TopicZone, ZoneError};
use crate::zone::Bell;

/// A topic as a worker has it open, with the bell of all topics.
#[derive(Debug)]
pub struct Topic {
    zone: TopicZone,
    bell: Arc<Bell>,
}

impl Topic {
    pub fn new(zone: TopicZone, bell: &Arc<Bell>) -> Arc<Self> {
        let bell = Arc::clone(bell);
        Arc::new(Self { zone, bell })
    }

    pub fn zone(&self) -> &TopicZone {
        &self.zone
    }

    /// The bell that is rung when something is published, on whichever topic.
    pub fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Publishes a message to all who read, in all workers. Fails when it is too long.
    pub fn publish(&self, message: &[u8]) -> Result<(), ZoneError> {
        self.zone.publish(message)?;
        self.bell.ring();
        Ok(())
    }
}
