//! Variables of an exchange.

use super::Size;

/// Variables that plugins have set, in the order of their first setting. A request has a handful, so a walk beats a
/// hash.
#[derive(Debug, Default)]
pub struct Vars {
    /// Variables of this request, then room that was an earlier one's.
    entries: Vec<Var>,
    len: usize,
}

#[derive(Debug, Default)]
struct Var {
    name_len: usize,
    /// The name, then the value.
    text: Vec<u8>,
}

/// Bounds of the room that is kept for the next request's variables.
const KEPT_VARS: usize = 16;
const KEPT_VAR_BYTES: usize = 256;

impl Vars {
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        let var = &self.entries[self.find(name.as_ref())?];
        Some(&var.text[var.name_len..])
    }

    pub fn set(&mut self, name: impl AsRef<[u8]>, value: &[u8]) {
        let name = name.as_ref();
        match self.find(name) {
            Some(idx) => self.replace(idx, value),
            None => self.add(name, value),
        }
    }

    /// The index of the variable.
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        let mut vars = self.entries[..self.len].iter();
        vars.position(|var| var.name() == name)
    }

    /// Size of name and value of the variable with this index.
    pub fn size(&self, idx: usize) -> Size {
        Size {
            count: 1,
            bytes: self.entries[idx].text.len(),
        }
    }

    /// Another value for the variable with this index.
    pub fn replace(&mut self, idx: usize, value: &[u8]) {
        let var = &mut self.entries[idx];
        var.text.truncate(var.name_len);
        var.text.extend_from_slice(value);
    }

    /// A variable that [`Self::find`] has not found.
    pub fn add(&mut self, name: &[u8], value: &[u8]) {
        let is_expected = self.expects(name);
        if self.len == self.entries.len() {
            self.entries.push(Var::default());
        }
        let var = &mut self.entries[self.len];
        self.len += 1;
        if is_expected {
            var.text.truncate(var.name_len);
        } else {
            var.name_len = name.len();
            var.text.clear();
            var.text.extend_from_slice(name);
        }
        var.text.extend_from_slice(value);
    }

    /// Whether an earlier request had a variable of that name where the next new one goes: mostly so, as one request sets what
    /// the other does. Its name need not be checked or copied again.
    pub fn expects(&self, name: &[u8]) -> bool {
        let next = self.entries.get(self.len);
        !name.is_empty() && next.is_some_and(|var| var.name() == name)
    }

    pub fn clear(&mut self) {
        for var in &mut self.entries[..self.len] {
            if var.text.capacity() > KEPT_VAR_BYTES {
                *var = Var::default();
            }
        }
        self.len = 0;
        self.entries.truncate(KEPT_VARS);
    }
}

impl Var {
    fn name(&self) -> &[u8] {
        &self.text[..self.name_len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_set_twice_has_its_last_value() {
        let mut vars = Vars::default();
        vars.set("user", b"alice");
        vars.set("group", b"");
        vars.set("user", b"bob");
        assert_eq!(vars.get("user"), Some(&b"bob"[..]));
        assert_eq!(vars.get("group"), Some(&b""[..]));
        assert_eq!(vars.get("other"), None);
    }

    #[test]
    fn variables_end_with_their_request() {
        let mut vars = Vars::default();
        vars.set("user", b"alice");
        vars.set("long", &[b'x'; KEPT_VAR_BYTES]);
        vars.clear();
        assert_eq!(vars.get("user"), None);
        assert!(vars.expects(b"user"));
        assert!(!vars.expects(b"long"));
        assert!(!vars.expects(b""));
        vars.set("other", b"1");
        assert_eq!(vars.get("other"), Some(&b"1"[..]));
        assert_eq!(vars.get("long"), None);
        assert!(vars.entries[1].text.capacity() <= KEPT_VAR_BYTES);
    }

    #[test]
    fn a_variable_of_each_request_has_the_value_of_this_one() {
        let mut vars = Vars::default();
        for value in [&b"alice"[..], b"bo", b"", b"carol"] {
            assert_eq!(vars.get("user"), None);
            vars.set("user", value);
            assert_eq!(vars.get("user"), Some(value));
            vars.clear();
        }
    }
}
