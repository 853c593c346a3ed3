//! Values by ranges of numbers.

use castling_sdk::prelude::*;

/// Ranges that have no number in common, by where they begin.
pub(crate) struct Ranges(Vec<(f64, f64, u32)>);

impl Ranges {
    /// Ranges with the numbers of their entries. The error is of the entry with that number.
    pub(crate) fn new(mut ranges: Vec<(f64, f64, u32)>) -> Result<Self, (u32, Error)> {
        ranges.sort_by(|(one, ..), (other, ..)| one.total_cmp(other));
        for pair in ranges.windows(2) {
            if let [(_, end, _), (start, _, entry)] = pair
                && start <= end
            {
                return Err((*entry, Error::msg("another range has numbers of this one")));
            }
        }
        Ok(Self(ranges))
    }

    /// Reads `400..499`, `500..`, `..399` or `404`; both ends belong to it.
    pub(crate) fn parse(text: &str) -> Result<(f64, f64)> {
        let (from, to) = match text.split_once("..") {
            Some((from, to)) => (from.trim(), to.trim()),
            None => (text, text),
        };
        let end = |text: &str, open: f64| match text {
            "" => Some(open),
            text => number(text),
        };
        match (end(from, f64::NEG_INFINITY), end(to, f64::INFINITY)) {
            (Some(start), Some(stop)) if start <= stop && !text.is_empty() => Ok((start, stop)),
            _ => bail!("expected a number, or a range such as `400..499`, `500..` or `..399`"),
        }
    }

    pub(crate) fn find(&self, source: &str) -> Option<u32> {
        let number = number(source.trim())?;
        let after = self.0.partition_point(|(start, ..)| *start <= number);
        let (_, end, entry) = self.0[..after].last()?;
        (number <= *end).then_some(*entry)
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_in_one_range_or_none() {
        let texts = ["400..499", "404.5..404.75", "500..", "..-1", "0.5"];
        let ranges = |texts: &[&str]| {
            let parsed = (0..).zip(texts).map(|(idx, text)| {
                let (start, end) = Ranges::parse(text).unwrap();
                (start, end, idx)
            });
            Ranges::new(parsed.collect())
        };
        let (entry, _) = ranges(&texts).err().unwrap();
        assert_eq!(entry, 1, "it lies in another");
        let ranges = ranges(&[texts[0], texts[2], texts[3], texts[4]])
            .ok()
            .unwrap();
        for (source, expected) in [
            ("400", Some(0)),
            (" 499 ", Some(0)),
            ("499.5", None),
            ("1e9", Some(1)),
            ("-1.0", Some(2)),
            ("0", None),
            ("0.500", Some(3)),
            ("", None),
            ("inf", None),
            ("nan", None),
            ("4OO", None),
        ] {
            assert_eq!(ranges.find(source), expected, "{source}");
        }
        for bad in ["", "5..4", "a", "1..b", "1-2", "nan"] {
            assert!(Ranges::parse(bad).is_err(), "{bad}");
        }
    }
}
