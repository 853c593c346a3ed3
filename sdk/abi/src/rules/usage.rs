//! Account of what a plugin adds to a part of an exchange.

/// Number of fields or variables, and bytes of their names and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Fields or variables.
    pub count: usize,
    /// Bytes of names and values.
    pub bytes: usize,
}

/// Negative where a plugin has taken away more than it has added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Fields or variables.
    pub count: i64,
    /// Bytes of names and values.
    pub bytes: i64,
    /// The plugin has changed something there.
    pub changed: bool,
}

impl Size {
    /// Size of one field or variable.
    pub const fn of(name: &[u8], value: &[u8]) -> Self {
        Self {
            count: 1,
            bytes: name.len() + value.len(),
        }
    }

    /// Whether something of this size alone is within `most`.
    #[inline]
    pub const fn is_within(self, most: Self) -> bool {
        self.count <= most.count && self.bytes <= most.bytes
    }
}

impl core::iter::Sum for Size {
    fn sum<I: Iterator<Item = Self>>(extents: I) -> Self {
        extents.fold(Self::default(), |sum, one| Self {
            count: sum.count + one.count,
            bytes: sum.bytes + one.bytes,
        })
    }
}

impl Usage {
    /// When `comes` is there in the place of `goes`.
    #[must_use]
    pub const fn after(self, comes: Size, goes: Size) -> Self {
        // Both are in memory, far below these types' range.
        Self {
            count: self.count + comes.count as i64 - goes.count as i64,
            bytes: self.bytes + comes.bytes as i64 - goes.bytes as i64,
            changed: true,
        }
    }

    /// Whether no more than `most` is there.
    #[inline]
    pub const fn is_within(self, most: Size) -> bool {
        is_within(self.count, most.count) && is_within(self.bytes, most.bytes)
    }
}

/// Whether so much was added at most.
#[inline]
pub const fn is_within(added: i64, limit: usize) -> bool {
    added <= 0 || added.unsigned_abs() <= limit as u64
}
