//! Redis' protocol (RESP2), as far as commands with a simple reply need it.

use std::io::{BufRead, BufReader, Read, Write};

use castling_sdk::prelude::*;

/// A connection to Redis.
pub(crate) struct Redis<C: Read + Write>(BufReader<C>);

/// Reply to a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Status(String),
    Integer(i64),
    /// `None`: there is no such key.
    Bulk(Option<Vec<u8>>),
}

impl<C: Read + Write> Redis<C> {
    pub(crate) fn new(connection: C) -> Self {
        Self(BufReader::new(connection))
    }

    /// Sends one command and reads its reply. An error reply is an error.
    pub(crate) fn command(&mut self, words: &[&[u8]]) -> Result<Reply> {
        let mut text = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            text.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            text.extend_from_slice(word);
            text.extend_from_slice(b"\r\n");
        }
        self.0.get_mut().write_all(&text)?;
        self.reply()
    }

    fn reply(&mut self) -> Result<Reply> {
        let mut line = Vec::new();
        self.0
            .by_ref()
            .take(MOST_LINE)
            .read_until(b'\n', &mut line)?;
        let line = String::from_utf8(line)?;
        let line = line
            .strip_suffix("\r\n")
            .ok_or_else(|| Error::msg("Redis has ended in a reply"))?;
        match line.split_at_checked(1) {
            Some(("+", status)) => Ok(Reply::Status(status.to_owned())),
            Some((":", integer)) => Ok(Reply::Integer(integer.parse()?)),
            Some(("$", "-1")) => Ok(Reply::Bulk(None)),
            Some(("$", length)) => {
                let length: usize = length.parse()?;
                if length > MOST_BULK {
                    bail!("Redis answers {length} bytes");
                }
                let mut bulk = vec![0; length + 2];
                self.0.read_exact(&mut bulk)?;
                bulk.truncate(length);
                Ok(Reply::Bulk(Some(bulk)))
            }
            Some(("-", error)) => bail!("Redis: {error}"),
            _ => bail!("Redis answers {line:?}"),
        }
    }
}

const MOST_LINE: u64 = 64 << 10;
const MOST_BULK: usize = 1 << 20;
