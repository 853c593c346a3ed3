//! The header fields of a head, in order.

mod hop_by_hop;
mod single;

use std::fmt;

use tracing::debug;

use super::field_name::{FieldName, KnownHeader, NameKind};
use super::swar::{self, is_lower_of, make_lower};

/// Header fields in the order they came, names in lower case.
///
/// The text of all fields is in one buffer, mostly as it came, and a list says where each name and value is: so a head is
/// taken over by one copy, fields that nobody has changed are written by one copy, and neither allocates. A list, not a map: a
/// request has some ten fields, and of those that the gateway itself asks for, a bit says whether they are there.
#[derive(Clone, Default)]
pub struct Headers {
    text: Vec<u8>,
    fields: Vec<Field>,
    /// The [`KnownHeader::bit`]s of those that are there.
    known: u32,
    /// When the text has grown to this, what no field has any more is taken out.
    compact_at_bytes: usize,
}

/// Where a field is in the text.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name_at: usize,
    pub value_at: usize,
    pub value_len: usize,
    pub name_len: u16,
    pub known: Option<KnownHeader>,
    /// The text has its line as it is to be written: name, `: `, value, CR LF.
    pub is_line: bool,
}

/// Facts of a field that was taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundField {
    pub known: Option<KnownHeader>,
    /// Nothing but `: ` stands before its value, and nothing after it.
    pub is_line: bool,
}

/// A field was left out for its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped;

/// Where the fields of one name are, and what they hold.
#[derive(Clone, Copy, Debug)]
pub struct Occurrences {
    /// The index of the first.
    pub first: usize,
    /// At least one.
    pub count: usize,
    /// Bytes of all their values.
    pub value_bytes: usize,
}

impl Headers {
    pub const fn new() -> Self {
        Self {
            text: Vec::new(),
            fields: Vec::new(),
            known: 0,
            compact_at_bytes: COMPACT_AT_LEAST_BYTES,
        }
    }

    pub fn with_capacity(fields: usize) -> Self {
        Self {
            fields: Vec::with_capacity(fields),
            ..Self::new()
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Removes all, keeps the room unless it is large.
    pub fn clear(&mut self) {
        if self.text.capacity() > KEPT_BYTES {
            self.text = Vec::new();
        }
        self.text.clear();
        self.fields.clear();
        self.known = 0;
        self.compact_at_bytes = COMPACT_AT_LEAST_BYTES;
    }

    /// Begins with text that fields will be in: see [`Self::found`].
    pub fn take_over(&mut self, text: &[u8], fields: usize) {
        self.clear();
        self.text.reserve(text.len() + ADDED_BYTES);
        self.text.extend_from_slice(text);
        self.fields.reserve(fields + ADDED_FIELDS);
        self.compact_at_bytes = text.len() * 2 + COMPACT_AT_LEAST_BYTES;
    }

    /// A field that is in the text. Its name is put in lower case there. With other than letters, digits and hyphens in its
    /// name it is dropped, unless there may be `any_names`.
    ///
    /// Inlined into the loop over a head's fields: entering and leaving it took 20 instructions a field.
    #[inline]
    pub fn found(
        &mut self,
        (name_at, name_len): (usize, u16),
        (value_at, value_len): (usize, usize),
        any_names: bool,
    ) -> Result<FoundField, Dropped> {
        let name_end = name_at + usize::from(name_len);
        let name = &mut self.text[name_at..name_end];
        make_lower(name);
        let known = KnownHeader::of_lower(name);
        // Names that are known have no others.
        if known.is_none() && !any_names && !swar::all(name, swar::are_of_plain_names) {
            note_dropped(&self.text[name_at..name_end]);
            return Err(Dropped);
        }
        self.known |= known.map_or(0, KnownHeader::bit);
        // The name is followed by a colon, the value by spaces, or the end of its line.
        let is_line = value_at == name_end + 2
            && self.text[name_end + 1] == b' '
            && self.text[value_at + value_len..].first_chunk() == Some(b"\r\n");
        self.fields.push(Field {
            name_at,
            value_at,
            value_len,
            name_len,
            known,
            is_line,
        });
        Ok(FoundField { known, is_line })
    }

    /// The first value of that name.
    pub fn get<'n>(&self, name: impl Into<FieldName<'n>>) -> Option<&[u8]> {
        let name = name.into();
        if !self.may_have(name) {
            return None;
        }
        let mut fields = self.fields.iter();
        let field = fields.find(|field| self.is_named(field, name))?;
        Some(self.value(field))
    }

    /// All values of that name, in order.
    pub fn get_all<'a>(&'a self, name: impl Into<FieldName<'a>>) -> impl Iterator<Item = &'a [u8]> {
        let name = name.into();
        let fields = match self.may_have(name) {
            true => &self.fields[..],
            false => &[],
        };
        let named = fields
            .iter()
            .filter(move |field| self.is_named(field, name));
        named.map(|field| self.value(field))
    }

    pub fn contains<'n>(&self, name: impl Into<FieldName<'n>>) -> bool {
        self.get(name).is_some()
    }

    /// Whether any of these is there.
    #[inline]
    pub fn contains_any_of(&self, names: &[KnownHeader]) -> bool {
        self.contains_any(names.iter().fold(0, |bits, name| bits | name.bit()))
    }

    /// Whether any of those is there.
    pub fn contains_any(&self, bits: u32) -> bool {
        self.known & bits != 0
    }

    /// This value in the place of all of that name: where the first of them stood, else at the end. The value must be
    /// valid, see [`super::is_valid_value`].
    pub fn set<'n>(&mut self, name: impl Into<FieldName<'n>>, value: &[u8]) {
        let name = name.into();
        let there = match self.may_have(name) {
            true => self.find(name.text),
            false => None,
        };
        match there {
            Some(there) => self.replace(there, value),
            None => self.add(name, value),
        }
    }

    /// All fields of that name, in any case.
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<Occurrences> {
        let first = self.first(name)?;
        Some(self.found_from(first, name))
    }

    /// The index of the first.
    fn first(&self, name: &[u8]) -> Option<usize> {
        let mut fields = self.fields.iter();
        fields.position(|field| self.is_named_any_case(field, name))
    }

    /// Apart from [`Self::first`], which mostly finds none where a plugin sets a field.
    fn found_from(&self, first: usize, name: &[u8]) -> Occurrences {
        let mut found = Occurrences {
            first,
            count: 1,
            value_bytes: self.fields[first].value_len,
        };
        let others = &self.fields[first + 1..];
        for same in others.iter().filter(|it| self.is_named_any_case(it, name)) {
            found.count += 1;
            found.value_bytes += same.value_len;
        }
        found
    }

    /// The first value of that name, in any case.
    pub fn find_value(&self, name: &[u8]) -> Option<&[u8]> {
        let mut fields = self.fields.iter();
        let field = fields.find(|field| self.is_named_any_case(field, name))?;
        Some(self.value(field))
    }

    /// The fields that [`Self::find`] has found, in order. They must not have changed since.
    pub fn of(&self, found: Occurrences) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        let fields = self.fields[found.first..].iter();
        let name = self.name(&self.fields[found.first]);
        let named = fields.filter(move |field| self.name(field) == name);
        named
            .take(found.count)
            .map(move |field| (name, self.value(field)))
    }

    /// Name and value of the field with this index.
    pub fn field_at(&self, idx: usize) -> (&[u8], &[u8]) {
        let field = &self.fields[idx];
        (self.name(field), self.value(field))
    }

    /// Known name of the field with this index.
    pub fn known_at(&self, idx: usize) -> Option<KnownHeader> {
        self.fields[idx].known
    }

    /// This value in the place of those that [`Self::find`] has found, where the first of them stood. The fields must not have
    /// changed since.
    pub fn replace(&mut self, found: Occurrences, value: &[u8]) {
        self.compact_when_due();
        let old = self.fields[found.first];
        if found.count > 1 {
            let Self { text, fields, .. } = self;
            let name = name_in(text, &old);
            let mut idx = 0;
            fields.retain(|field| {
                let keep = idx <= found.first || name_in(text, field) != name;
                idx += 1;
                keep
            });
        }
        self.fields[found.first] = self.line_like(old, value);
    }

    /// Adds a value, at the end, of the name that [`Self::find`] has found. The fields must not have changed since.
    pub fn add_like(&mut self, found: Occurrences, value: &[u8]) {
        self.compact_when_due();
        let line = self.line_like(self.fields[found.first], value);
        self.fields.push(line);
    }

    /// Adds a client's field, which must be valid, at the end. With other than letters, digits and hyphens in its name, which is
    /// in lower case, it is dropped, unless there may be `any_names`.
    pub fn add_of_client(
        &mut self,
        name: FieldName<'_>,
        value: &[u8],
        any_names: bool,
    ) -> Result<(), Dropped> {
        let is_plain = name.known().is_some() || swar::all(name.text, swar::are_of_plain_names);
        if !is_plain && !any_names {
            note_dropped(name.text);
            return Err(Dropped);
        }
        self.add(name, value);
        Ok(())
    }

    /// Adds a value, at the end. It must be valid, see [`super::is_valid_value`].
    #[inline]
    pub fn add<'n>(&mut self, name: impl Into<FieldName<'n>>, value: &[u8]) {
        let FieldName { text, kind } = name.into();
        self.add_line(text, kind, value);
    }

    fn add_line(&mut self, name: &[u8], kind: NameKind, value: &[u8]) {
        self.compact_when_due();
        let name_at = self.text.len();
        self.text
            .reserve(name.len() + value.len() + LINE_MARKS_BYTES);
        self.text.extend_from_slice(name);
        if kind == NameKind::Other {
            self.make_lower_from(name_at);
        }
        // A name is at most that long.
        let name_len = u16::try_from(name.len()).unwrap_or(u16::MAX);
        let known = kind.known();
        let field = self.end_line(name_at, name_len, known, value);
        self.fields.push(field);
        self.known |= known.map_or(0, KnownHeader::bit);
    }

    /// Not inlined: few names are in another case, and this is long.
    #[inline(never)]
    fn make_lower_from(&mut self, at: usize) {
        make_lower(&mut self.text[at..]);
    }

    /// All fields of another head, at the end: with one copy, where they are made at load.
    #[inline(never)]
    pub fn add_all(&mut self, other: &Self) {
        self.compact_when_due();
        let at = self.text.len();
        self.text.extend_from_slice(&other.text);
        self.fields.extend(other.fields.iter().map(|field| Field {
            name_at: field.name_at + at,
            value_at: field.value_at + at,
            ..*field
        }));
        self.known |= other.known;
    }

    /// The first value of one name in the place of all of another, if it has one.
    pub fn copy(&mut self, from: KnownHeader, to: KnownHeader) {
        let Some(idx) = self.fields.iter().position(|it| it.known == Some(from)) else {
            return;
        };
        if self.contains(to) || self.text.len() >= self.compact_at_bytes {
            let value = self.value(&self.fields[idx]).to_vec();
            return self.set(to, &value);
        }
        let value_at = self.fields[idx].value_at;
        let name_at = self.text.len();
        self.text.extend_from_slice(to.text());
        self.text.extend_from_slice(b": ");
        let field = Field {
            name_at,
            value_at: self.text.len(),
            name_len: to.text().len() as u16,
            known: Some(to),
            is_line: true,
            ..self.fields[idx]
        };
        self.text
            .extend_from_within(value_at..value_at + field.value_len);
        self.text.extend_from_slice(b"\r\n");
        self.fields.push(field);
        self.known |= to.bit();
    }

    /// Puts one field in the place of all of that name: their values in their order, and this one, as a list
    /// (RFC 9110 §5.3).
    pub fn append_to_list(&mut self, name: KnownHeader, value: &[u8]) {
        if !self.contains(name) {
            self.add(name, value);
            return;
        }
        let mut list = Vec::with_capacity(64);
        for earlier in self.get_all(name) {
            list.extend_from_slice(earlier);
            list.extend_from_slice(b", ");
        }
        list.extend_from_slice(value);
        self.set(name, &list);
    }

    /// A line of the name that another field has.
    fn line_like(&mut self, other: Field, value: &[u8]) -> Field {
        let name_at = self.text.len();
        let name_end = other.name_at + usize::from(other.name_len);
        self.text.extend_from_within(other.name_at..name_end);
        self.end_line(name_at, other.name_len, other.known, value)
    }

    /// The rest of a line whose name is at the end of the text.
    #[inline]
    fn end_line(
        &mut self,
        name_at: usize,
        name_len: u16,
        known: Option<KnownHeader>,
        value: &[u8],
    ) -> Field {
        self.text.extend_from_slice(b": ");
        let value_at = self.text.len();
        self.text.extend_from_slice(value);
        self.text.extend_from_slice(b"\r\n");
        Field {
            name_at,
            value_at,
            value_len: value.len(),
            name_len,
            known,
            is_line: true,
        }
    }

    /// Removes all of that name; says how many there were.
    pub fn remove<'n>(&mut self, name: impl Into<FieldName<'n>>) -> usize {
        let name = name.into();
        if !self.may_have(name) {
            return 0;
        }
        let before = self.fields.len();
        let Self { text, fields, .. } = self;
        fields.retain(|field| !name_in(text, field).eq_ignore_ascii_case(name.text));
        self.known &= !name.known().map_or(0, KnownHeader::bit);
        before - self.fields.len()
    }

    /// Keeps the fields for which `keep` is true. Names are in lower case.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let Self { text, fields, .. } = self;
        fields.retain(|field| keep(name_in(text, field), value_in(text, field)));
        let bits = self.fields.iter().filter_map(|field| field.known);
        self.known = bits.fold(0, |bits, known| bits | known.bit());
    }

    /// Names and values.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> + Clone {
        let fields = self.fields.iter();
        fields.map(|field| (self.name(field), self.value(field)))
    }

    /// Appends the lines of all fields but those that are known by these bits.
    pub fn write_lines(&self, out: &mut Vec<u8>, without: u32) {
        let mut run = 0..0;
        for field in &self.fields {
            if field.known.is_some_and(|known| known.bit() & without != 0) {
                continue;
            }
            let end = field.value_at + field.value_len + b"\r\n".len();
            if field.is_line && field.name_at == run.end {
                run.end = end;
                continue;
            }
            out.extend_from_slice(&self.text[run]);
            run = match field.is_line {
                true => field.name_at..end,
                false => {
                    write_line(out, self.name(field), self.value(field));
                    0..0
                }
            };
        }
        out.extend_from_slice(&self.text[run]);
    }

    fn may_have(&self, name: FieldName<'_>) -> bool {
        name.known()
            .is_none_or(|known| self.known & known.bit() != 0)
    }

    fn is_named(&self, field: &Field, name: FieldName<'_>) -> bool {
        match name.known() {
            Some(known) => field.known == Some(known),
            None => self.is_named_any_case(field, name.text),
        }
    }

    /// Looks at the text only where the length is right.
    #[inline]
    fn is_named_any_case(&self, field: &Field, name: &[u8]) -> bool {
        usize::from(field.name_len) == name.len() && is_lower_of(self.name(field), name)
    }

    fn name(&self, field: &Field) -> &[u8] {
        name_in(&self.text, field)
    }

    fn value(&self, field: &Field) -> &[u8] {
        value_in(&self.text, field)
    }

    /// A plugin may set a field again and again.
    fn compact_when_due(&mut self) {
        if self.text.len() >= self.compact_at_bytes {
            self.compact();
        }
    }

    #[cold]
    fn compact(&mut self) {
        let mut compacted = Vec::new();
        for field in &mut self.fields {
            let name_at = compacted.len();
            write_line(
                &mut compacted,
                name_in(&self.text, field),
                value_in(&self.text, field),
            );
            field.name_at = name_at;
            field.value_at = name_at + usize::from(field.name_len) + b": ".len();
            field.is_line = true;
        }
        self.text = compacted;
        self.compact_at_bytes = self.text.len() * 2 + COMPACT_AT_LEAST_BYTES;
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = self.iter();
        let shown = fields.map(|(name, value)| {
            (
                name.escape_ascii().to_string(),
                value.escape_ascii().to_string(),
            )
        });
        f.debug_map().entries(shown).finish()
    }
}

/// Appends a field's line.
pub fn write_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + LINE_MARKS_BYTES);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cold]
#[inline(never)]
fn note_dropped(name: &[u8]) {
    let shown = name[..name.len().min(SHOWN_NAME_BYTES)].escape_ascii();
    debug!("field \"{shown}\" dropped: its name has other than letters, digits and hyphens");
}

fn name_in<'t>(text: &'t [u8], field: &Field) -> &'t [u8] {
    &text[field.name_at..field.name_at + usize::from(field.name_len)]
}

fn value_in<'t>(text: &'t [u8], field: &Field) -> &'t [u8] {
    &text[field.value_at..field.value_at + field.value_len]
}

/// Bytes of a name that are shown in the log.
const SHOWN_NAME_BYTES: usize = 64;

/// `: ` and CR LF.
const LINE_MARKS_BYTES: usize = 4;

/// Room beside the fields that came, for what the gateway and plugins usually add.
const ADDED_FIELDS: usize = 6;
const ADDED_BYTES: usize = 256;

/// Text without a field is left where it is below this.
const COMPACT_AT_LEAST_BYTES: usize = 16 * 1024;

/// Larger room is given back with its request.
const KEPT_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests;
