//! Hours and days of a rule, in UTC.

use castling_sdk::prelude::*;

#[derive(Default)]
pub(crate) struct Times {
    /// Minutes of the day; the end may come before the beginning, over midnight.
    hours: Option<(u64, u64)>,
    /// A bit for each day from Monday on; none: all.
    days: u8,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Times {
    pub(crate) fn new(hours: Option<&str>, days: &[String]) -> Result<Self> {
        let mut times = Self::default();
        if let Some(text) = hours {
            let read = text
                .split_once('-')
                .and_then(|(from, to)| Some((minutes(from)?, minutes(to)?)));
            match read {
                Some((from, to)) if from != to => times.hours = Some((from, to)),
                _ => bail!("hours: `{text}`: expected two different times such as `09:00-17:30`"),
            }
        }
        for day in days {
            match DAYS.iter().position(|name| name == day) {
                Some(idx) => times.days |= 1 << idx,
                None => bail!("days: `{day}`: expected one of {}", DAYS.join(", ")),
            }
        }
        Ok(times)
    }

    /// Whether it is such a time. What begins in the evening and ends in the morning is of the day on which it is looked at.
    pub(crate) fn hold(&self) -> bool {
        if self.hours.is_none() && self.days == 0 {
            return true;
        }
        let minutes = clock::wall().as_secs() / 60;
        // The first of January 1970 was a Thursday.
        let (day, minute) = ((minutes / 1440 + 3) % 7, minutes % 1440);
        let in_hours = self.hours.is_none_or(|(from, to)| match from < to {
            true => (from..to).contains(&minute),
            false => minute >= from || minute < to,
        });
        in_hours && (self.days == 0 || self.days & (1 << day) != 0)
    }
}

/// `HH:MM`, up to `24:00`.
fn minutes(text: &str) -> Option<u64> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let two = |text: &str| {
        (text.len() == 2)
            .then(|| text.parse::<u64>().ok())
            .flatten()
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (minutes < 60 && hours * 60 + minutes <= 1440).then_some(hours * 60 + minutes)
}
