//! Shares of all sources, by a hash: the same source has the same share, in each worker and in each gateway.

use castling_sdk::prelude::*;
use castling_sdk::template::Template;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Share {
    /// 0.01 to 100. The last share may leave it out: all that is left.
    percent: Option<f64>,
    value: Template,
}

pub(crate) struct Split {
    /// Hashes below which each share's are, in their order; `None`: all.
    shares: Vec<(Option<u64>, Template)>,
}

impl Split {
    /// Shares as nginx's `split_clients` has them, to the last source: whoever moves from there finds each client where it was.
    pub(crate) fn new(config: Vec<Share>) -> Result<Self> {
        let (count, mut sum, mut end) = (config.len(), 0, 0);
        let mut shares = Vec::with_capacity(count);
        for (idx, Share { percent, value }) in config.into_iter().enumerate() {
            let Some(percent) = percent else {
                if idx + 1 < count {
                    bail!("split[{idx}].percent: the last share alone may leave it out");
                }
                shares.push((None, value));
                break;
            };
            let hundredths = (percent * 100.0).round();
            if !(1.0..=10_000.0).contains(&hundredths)
                || (hundredths - percent * 100.0).abs() > 1e-6
            {
                bail!("split[{idx}].percent: {percent}: expected 0.01 to 100, in steps of 0.01");
            }
            sum += hundredths as u64;
            if sum > 10_000 {
                bail!("split[{idx}].percent: together they are more than 100");
            }
            end += hundredths as u64 * u64::from(u32::MAX) / 10_000;
            shares.push((Some(end), value));
        }
        Ok(Self { shares })
    }

    /// `None`: the source is in none of the shares.
    pub(crate) fn value(&self, source: &[u8]) -> Option<&Template> {
        let hash = u64::from(murmur_hash2(source));
        let mut shares = self.shares.iter();
        let (_, value) = shares.find(|(end, _)| end.is_none_or(|end| hash < end))?;
        Some(value)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Template> {
        self.shares.iter().map(|(_, value)| value)
    }
}

/// MurmurHash2 of 32 bits with the seed 0.
fn murmur_hash2(bytes: &[u8]) -> u32 {
    const MULTIPLIER: u32 = 0x5bd1_e995;
    let (words, rest) = bytes.as_chunks::<4>();
    let mut hash = words.iter().fold(bytes.len() as u32, |hash, word| {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        word ^= word >> 24;
        hash.wrapping_mul(MULTIPLIER) ^ word.wrapping_mul(MULTIPLIER)
    });
    if !rest.is_empty() {
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u32::from_le_bytes(last)).wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(shares: &[(Option<f64>, &str)]) -> Result<Split> {
        let shares = shares.iter().map(|(percent, value)| Share {
            percent: *percent,
            value: value.parse().unwrap(),
        });
        Split::new(shares.collect())
    }

    #[test]
    fn shares_are_as_large_as_they_say() {
        let split = split(&[(Some(10.0), "a"), (Some(0.5), "b"), (None, "c")]).unwrap();
        let mut counts = std::collections::BTreeMap::new();
        for client in 0..100_000 {
            let value = split.value(format!("client {client}").as_bytes()).unwrap();
            *counts.entry(value.as_text().unwrap()).or_insert(0) += 1;
        }
        assert!((9_500..10_500).contains(&counts["a"]), "{counts:?}");
        assert!((400..600).contains(&counts["b"]), "{counts:?}");
    }

    #[test]
    fn what_is_in_no_share_has_no_value() {
        let half = split(&[(Some(50.0), "a")]).unwrap();
        let count = (0..1_000).filter(|idx: &u32| half.value(&idx.to_le_bytes()).is_some());
        assert!((400..600).contains(&count.count()));
        assert!(split(&[(Some(100.0), "a")]).unwrap().value(b"x").is_some());
    }

    /// Values of the reference implementation, MurmurHash2 of SMHasher.
    #[test]
    fn the_hash_is_that_of_nginx() {
        for (text, hash) in [("", 0), ("a", 0x9268_5f5e), ("abc", 0x1357_7c9b)] {
            assert_eq!(murmur_hash2(text.as_bytes()), hash, "{text}");
        }
    }

    #[test]
    fn shares_without_sense_are_refused() {
        for (shares, why) in [
            (
                &[(None, "a"), (Some(1.0), "b")][..],
                "split[0].percent: the last",
            ),
            (&[(Some(0.0), "a")], "split[0].percent: 0: expected 0.01"),
            (&[(Some(0.001), "a")], "split[0].percent: 0.001: expected"),
            (
                &[(Some(60.0), "a"), (Some(41.0), "b")],
                "split[1].percent: together",
            ),
        ] {
            let refused = split(shares).err().unwrap().to_string();
            assert!(refused.starts_with(why), "{refused}");
        }
    }
}
