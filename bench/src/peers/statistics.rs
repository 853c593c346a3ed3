//! Medians and how far the rounds lie apart.

/// Summary of the rounds' values: the median and the quartiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Spread {
    /// None where there is no value. Between two values that are nearest, the quantile is interpolated.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        if sorted.is_empty() {
            return None;
        }
        let at = |quantile: f64| {
            let place = quantile * (sorted.len() - 1) as f64;
            let (below, above) = (
                sorted[place.floor() as usize],
                sorted[place.ceil() as usize],
            );
            below + (above - below) * place.fract()
        };
        Some(Self {
            median: at(0.5),
            low: at(0.25),
            high: at(0.75),
        })
    }
}

/// Round by round, as both were in the same conditions. A round in which either is missing is left out.
pub(super) fn ratios(of: &[Option<f64>], to: &[Option<f64>]) -> Vec<f64> {
    of.iter()
        .zip(to)
        .filter_map(|(of, to)| Some((*of)? / (*to)?))
        .filter(|ratio| ratio.is_finite())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_the_quartiles() {
        let spread = Spread::of(&[4.0, 1.0, 100.0, 2.0, 3.0]).unwrap();
        assert_eq!((spread.low, spread.median, spread.high), (2.0, 3.0, 4.0));
        let two = Spread::of(&[1.0, 2.0]).unwrap();
        assert_eq!((two.low, two.median, two.high), (1.25, 1.5, 1.75));
        assert_eq!(Spread::of(&[f64::NAN]), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let of = [Some(3.0), None, Some(8.0), Some(1.0)];
        let to = [Some(2.0), Some(1.0), Some(4.0), Some(0.0)];
        assert_eq!(ratios(&of, &to), [1.5, 2.0]);
    }
}
