//! Users of the config and of a file, which is followed.

use std::cell::RefCell;
use std::collections::BTreeMap;

use castling_sdk::prelude::*;

pub(crate) struct Users {
    configured: BTreeMap<String, String>,
    file: Option<files::File>,
    read: RefCell<Read>,
}

#[derive(Default)]
struct Read {
    version: u64,
    users: BTreeMap<String, String>,
}

impl Users {
    pub(crate) fn new(configured: &BTreeMap<String, String>, file: Option<&str>) -> Result<Self> {
        for (name, hash) in configured {
            if name.is_empty() || name.contains(':') {
                bail!("config.users: `{name}`: expected a name without a colon");
            }
            if !is_known(hash) {
                bail!("config.users.{name}: {RULE}");
            }
        }
        let file = file.map(files::open).transpose()?;
        let read = match file {
            Some(file) => Read::new(file).map_err(|error| error.context("config.file"))?,
            None => Read::default(),
        };
        if configured.is_empty() && file.is_none() {
            bail!("config: expected `users` or `file`");
        }
        Ok(Self {
            configured: configured.clone(),
            file,
            read: RefCell::new(read),
        })
    }

    /// Hash of the user's password; the config's comes before the file's.
    pub(crate) fn hash(&self, user: &str) -> Option<String> {
        self.follow();
        let read = self.read.borrow();
        let hash = self.configured.get(user).or_else(|| read.users.get(user));
        hash.cloned()
    }

    /// Hash of somebody.
    pub(crate) fn any(&self) -> Option<String> {
        let read = self.read.borrow();
        let mut all = self.configured.values().chain(read.users.values());
        all.next().cloned()
    }

    /// Reads the file again when it is another. One that is wrong is told, once, and the users of before stay.
    fn follow(&self) {
        let Some(file) = self.file else {
            return;
        };
        let version = file.version();
        if self.read.borrow().version == version {
            return;
        }
        match Read::new(file) {
            Ok(read) => *self.read.borrow_mut() = read,
            Err(error) => {
                log::error!("the users' file is not used as it is now: {error}");
                self.read.borrow_mut().version = version;
            }
        }
    }
}

impl Read {
    fn new(file: files::File) -> Result<Self> {
        let version = file.version();
        let Ok(text) = String::from_utf8(file.read()?) else {
            bail!("expected UTF-8");
        };
        let mut users = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            // What follows another colon is a comment, as in nginx's files.
            let mut parts = line.split(':');
            let (Some(name), Some(hash)) = (parts.next(), parts.next()) else {
                bail!("line {}: expected `name:hash`", number + 1);
            };
            if name.is_empty() {
                bail!("line {}: expected `name:hash`", number + 1);
            }
            if !is_known(hash) {
                bail!("line {}: {name}: {RULE}", number + 1);
            }
            users.insert(name.to_owned(), hash.to_owned());
        }
        Ok(Self { version, users })
    }
}

/// Whether it has the form of one that the gateway verifies, within the costs that it allows.
fn is_known(hash: &str) -> bool {
    let parts: Vec<_> = hash.split('$').collect();
    let is_text = |text: &str| {
        let is_it = |byte: u8| byte.is_ascii_alphanumeric() || b"./+=".contains(&byte);
        !text.is_empty() && text.bytes().all(is_it)
    };
    match parts.as_slice() {
        ["", "2y" | "2b" | "2a", cost, rest] => {
            let cost = cost.parse::<u32>().ok().filter(|_| cost.len() == 2);
            cost.is_some_and(|cost| (4..=14).contains(&cost)) && rest.len() == 53 && is_text(rest)
        }
        ["", "argon2id", "v=19", costs, salt, hash] => {
            costs.starts_with("m=") && is_text(salt) && is_text(hash)
        }
        ["", "pbkdf2-sha256", costs, salt, hash] => {
            costs.starts_with("i=") && is_text(salt) && is_text(hash)
        }
        _ => false,
    }
}

const RULE: &str = "expected a hash by bcrypt (`htpasswd -B`), Argon2id or PBKDF2 (`$pbkdf2-sha256$`); others are too easily tried";
