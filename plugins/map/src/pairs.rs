//! Keys and values of the config, put into one text as they are read: a hundred thousand of them would be as many allocations.

use std::fmt;
use std::ops::Range;

use castling_sdk::serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// Keys and values in their order.
#[derive(Default)]
pub(crate) struct Pairs {
    pub(crate) text: String,
    /// Places of each key and its value in the text.
    pub(crate) places: Vec<(Range<u32>, Range<u32>)>,
}

impl Pairs {
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn push(&mut self, text: &str) -> Range<u32> {
        // The config's text has its length in 32 bits, too.
        let start = self.text.len() as u32;
        self.text.push_str(text);
        start..self.text.len() as u32
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of keys and texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
        let mut pairs = Pairs::default();
        while let Some((key, value)) = map.next_entry::<String, String>()? {
            let (key, value) = (pairs.push(&key), pairs.push(&value));
            pairs.places.push((key, value));
        }
        Ok(pairs)
    }
}
