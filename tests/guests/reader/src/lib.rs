//! Answers with a part of the file `list`, and with what it was when the instance was made: `x-file` names another one, `x-at` and `x-len`
//! say which part, `x-wait` for how many milliseconds the hook waits between the first half of the part and the second.

use castling_sdk::prelude::*;

struct Reader {
    list: files::File,
    first_version: u64,
}

#[plugin]
impl Reader {
    fn configure(_: std::collections::BTreeMap<String, String>) -> Result<Self> {
        let list = files::open("list")?;
        Ok(Self { list, first_version: list.version() })
    }

    fn content(&self, request: &mut Request) -> Result<Verdict> {
        let name = text(request, "x-file");
        let file = match name.as_str() {
            "" => self.list,
            name => match files::open(name) {
                Ok(file) => file,
                Err(error) => return Ok(Response::status(403).body(error.to_string()).into()),
            },
        };
        let [at, len, wait] = ["x-at", "x-len", "x-wait"].map(|name| text(request, name).parse::<u64>().ok());
        let (at, len) = (at.unwrap_or(0), len.unwrap_or(file.len()));
        let mut part = vec![0; usize::try_from(len)?];
        let half = part.len() / 2;
        let (first, second) = part.split_at_mut(half);
        let mut read = file.read_at(at, first)?;
        if let Some(wait) = wait {
            delay(Duration::from_millis(wait))?;
        }
        if read == half {
            read += file.read_at(at.saturating_add(half as u64), second)?;
        }
        part.truncate(read);
        let is_first = file == self.list && file.version() == self.first_version;
        let response = Response::status(200).header("x-length", file.len().to_string());
        Ok(response.header("x-first", is_first.to_string()).body(part).into())
    }
}

fn text(request: &Request, name: &str) -> String {
    let value = request.header(name);
    value.as_ref().and_then(|value| value.as_str()).unwrap_or_default().to_owned()
}
