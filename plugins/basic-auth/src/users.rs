//! Users of the config and of a file, which is followed.

use std::collections::BTreeMap;

use castling_sdk::prelude::*;

pub(crate) struct Users {
    configured: BTreeMap<String, String>,
    file: Option<files::Followed<BTreeMap<String, String>>>,
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
        let open = |name| files::Followed::open(name, |file| users(&file.read_text()?));
        let file = file.map(open).transpose();
        let file = file.map_err(|error| error.context("config.file"))?;
        if configured.is_empty() && file.is_none() {
            bail!("config: expected `users` or `file`");
        }
        Ok(Self {
            configured: configured.clone(),
            file,
        })
    }

    /// Hash of the user's password; the config's comes before the file's.
    pub(crate) fn hash(&self, user: &str) -> Option<String> {
        if let Some(hash) = self.configured.get(user) {
            return Some(hash.clone());
        }
        self.file.as_ref()?.get().get(user).cloned()
    }

    /// Hash of somebody.
    pub(crate) fn any(&self) -> Option<String> {
        if let Some(hash) = self.configured.values().next() {
            return Some(hash.clone());
        }
        self.file.as_ref()?.get().values().next().cloned()
    }
}

/// Users of a file, with their hashes.
fn users(text: &str) -> Result<BTreeMap<String, String>> {
    let mut users = BTreeMap::new();
    for (number, line) in files::lines(text) {
        // What follows another colon is a comment, as in nginx's files.
        let mut parts = line.split(':');
        let (Some(name), Some(hash)) = (parts.next(), parts.next()) else {
            bail!("line {number}: expected `name:hash`");
        };
        if name.is_empty() {
            bail!("line {number}: expected `name:hash`");
        }
        if !is_known(hash) {
            bail!("line {number}: {name}: {RULE}");
        }
        users.insert(name.to_owned(), hash.to_owned());
    }
    Ok(users)
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
