//! A metric's definition, as `metric_define` takes it, and lists of texts.

use crate::MetricKind;

/// Bytes of a definition before its texts: four little-endian `u32`: a [`crate::MetricKind`], and the lengths of
/// name, help and label names (a list as [`texts`] reads it); then those, in this order, and to the end the upper
/// bounds of a histogram's buckets, little-endian `f64`, ascending, without the last, infinite one.
pub const DEFINITION_HEAD_BYTES: usize = 4 * 4;

/// Metrics that a plugin may define.
pub const MAX_METRICS: usize = 64;
/// Labels of a metric.
pub const MAX_LABELS: usize = 8;
/// Buckets of a histogram, besides the infinite one.
pub const MAX_BUCKETS: usize = 64;
/// Bytes of a metric's or a label's name.
pub const MAX_NAME_BYTES: usize = 128;
/// Bytes of a help text.
pub const MAX_HELP_BYTES: usize = 512;
/// Bytes of a definition, or of a list of label values.
pub const MAX_BYTES: usize = 16 * 1024;
/// Bytes of a label's value; longer ones are cut.
pub const MAX_VALUE_BYTES: usize = 128;

/// The numbers before a definition's texts; `None` when a length does not fit its field.
pub fn definition_head(
    kind: MetricKind,
    lengths: [usize; 3],
) -> Option<[u8; DEFINITION_HEAD_BYTES]> {
    let mut head = [0; DEFINITION_HEAD_BYTES];
    head[..4].copy_from_slice(&(kind as u32).to_le_bytes());
    for (idx, length) in lengths.into_iter().enumerate() {
        let length = u32::try_from(length).ok()?;
        head[4 + idx * 4..8 + idx * 4].copy_from_slice(&length.to_le_bytes());
    }
    Some(head)
}

/// A definition, borrowed from its bytes. Nothing in it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition<'a> {
    /// A [`crate::MetricKind`], if it is one.
    pub kind: u32,
    /// The metric's name.
    pub name: &'a [u8],
    /// Text for people that says what the metric tells.
    pub help: &'a [u8],
    /// Label names, see [`texts`].
    pub labels: &'a [u8],
    /// Bounds of the buckets, see [`bounds`].
    pub bounds: &'a [u8],
}

/// `None` where the bytes do not follow the layout.
pub fn definition(bytes: &[u8]) -> Option<Definition<'_>> {
    let (head, mut rest) = bytes.split_first_chunk::<DEFINITION_HEAD_BYTES>()?;
    let word = |idx: usize| {
        u32::from_le_bytes([
            head[idx * 4],
            head[idx * 4 + 1],
            head[idx * 4 + 2],
            head[idx * 4 + 3],
        ])
    };
    let mut parts = [&[][..]; 3];
    for (idx, part) in parts.iter_mut().enumerate() {
        let length = usize::try_from(word(idx + 1)).ok()?;
        (*part, rest) = rest.split_at_checked(length)?;
    }
    let [name, help, labels] = parts;
    Some(Definition {
        kind: word(0),
        name,
        help,
        labels,
        bounds: rest,
    })
}

/// The bounds of a definition; bytes that are no whole number at the end are left out.
pub fn bounds(bytes: &[u8]) -> impl Iterator<Item = f64> {
    bytes.chunks_exact(8).map(|bytes| {
        let mut word = [0; 8];
        word.copy_from_slice(bytes);
        f64::from_le_bytes(word)
    })
}

/// Head of a text in a list: its length, `u16`, little-endian. `None` when it is too long for that.
pub fn text_head(text: &[u8]) -> Option<[u8; 2]> {
    Some(u16::try_from(text.len()).ok()?.to_le_bytes())
}

/// Walks a list of texts. Ends with `Some(Err(()))` where the bytes do not follow the layout.
#[derive(Clone, Debug)]
pub struct Texts<'a>(&'a [u8]);

/// The texts in `list`.
pub fn texts(list: &[u8]) -> Texts<'_> {
    Texts(list)
}

impl<'a> Iterator for Texts<'a> {
    type Item = Result<&'a [u8], ()>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let split = self
            .0
            .split_first_chunk::<2>()
            .and_then(|(head, rest)| rest.split_at_checked(usize::from(u16::from_le_bytes(*head))));
        let (text, rest) = match split {
            Some((text, rest)) => (Ok(text), rest),
            None => (Err(()), &[][..]),
        };
        self.0 = rest;
        Some(text)
    }
}

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`, at most [`MAX_NAME_BYTES`].
pub fn is_metric_name(name: &[u8]) -> bool {
    is_name(name, |byte| byte == b':')
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`, at most [`MAX_NAME_BYTES`], and not beginning with `__`.
pub fn is_label_name(name: &[u8]) -> bool {
    is_name(name, |_| false) && !name.starts_with(b"__")
}

fn is_name(name: &[u8], also: impl Fn(u8) -> bool) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || also(byte);
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && letter(name[0])
        && name
            .iter()
            .all(|&byte| letter(byte) || byte.is_ascii_digit())
}

/// Why these bounds are none of a histogram's: not finite, not ascending, none or too many.
pub fn check_bounds(mut bounds: impl Iterator<Item = f64>) -> Result<(), &'static str> {
    let mut last = f64::NEG_INFINITY;
    let mut count = 0;
    let ascend = bounds.all(|bound| {
        count += 1;
        let above = bound.is_finite() && bound > last;
        last = bound;
        above && count <= MAX_BUCKETS
    });
    match (ascend, count) {
        (true, 0) => Err("expected at least one"),
        (true, _) => Ok(()),
        (false, _) if count > MAX_BUCKETS => Err("expected at most 64"),
        (false, _) => Err("expected finite numbers in ascending order"),
    }
}

/// Whether a metric may be defined so: names, labels, help and bounds are valid for its kind.
pub fn is_valid_definition(bytes: &[u8]) -> bool {
    let Some(definition) = definition(bytes) else {
        return false;
    };
    let Some(kind) = MetricKind::from_raw(definition.kind) else {
        return false;
    };
    let bounds_fit = match kind {
        MetricKind::Histogram => {
            let whole = definition.bounds.len().is_multiple_of(8);
            whole && check_bounds(bounds(definition.bounds)).is_ok()
        }
        MetricKind::Counter | MetricKind::Gauge | MetricKind::GaugeMax => {
            definition.bounds.is_empty()
        }
    };
    is_metric_name(definition.name)
        && are_labels(definition.labels)
        && definition.help.len() <= MAX_HELP_BYTES
        && core::str::from_utf8(definition.help).is_ok()
        && bounds_fit
}

/// `plugin` is the gateway's label, `le` a histogram's.
fn are_labels(list: &[u8]) -> bool {
    for (count, label) in texts(list).enumerate() {
        let Ok(label) = label else { return false };
        let mut before = texts(list).take(count);
        let is_taken = matches!(label, b"plugin" | b"le") || before.any(|one| one == Ok(label));
        if is_taken || !is_label_name(label) || count == MAX_LABELS {
            return false;
        }
    }
    true
}

/// Whether these are values of so many labels.
pub fn are_label_values(list: &[u8], count: usize) -> bool {
    let is_text = |text: Result<&[u8], ()>| text.is_ok_and(|it| core::str::from_utf8(it).is_ok());
    texts(list).all(is_text) && texts(list).count() == count
}
