//! Makes more of each chunk, as a header asks that its config names: one for the request's body, one for the response's.

use castling_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Expander {
    up: String,
    down: String,
}

impl Default for Expander {
    fn default() -> Self {
        let [up, down] = ["x-up", "x-down"].map(String::from);
        Self { up, down }
    }
}

#[plugin]
impl Expander {
    fn configure(config: Self) -> Self {
        config
    }

    fn request_body(&self, request: &Request, chunk: &mut Chunk) -> Result<Verdict> {
        expand(request, &self.up, chunk)?;
        Ok(Verdict::Continue)
    }

    fn response_body(&self, request: &Request, chunk: &mut Chunk) -> Result<()> {
        expand(request, &self.down, chunk)
    }
}

fn expand(request: &Request, header: &str, chunk: &mut Chunk) -> Result<()> {
    let Some(wish) = wish(request, header) else {
        return Ok(());
    };
    let (what, number) = wish.split_once(' ').unwrap_or((&wish, "0"));
    let number: usize = number.parse()?;
    match what {
        // Each piece so often.
        "times" => (0..number).try_for_each(|_| chunk.emit(chunk.data())),
        // KiB, so many for each piece that is not empty.
        "kib" if !chunk.is_empty() => {
            let part = [b'k'; 1024];
            (0..number).try_for_each(|_| chunk.emit(part))
        }
        "around" if !chunk.is_empty() => {
            chunk.emit("<")?;
            chunk.emit(chunk.data())?;
            chunk.replace(">");
            Ok(())
        }
        "one" if !chunk.is_empty() => chunk.emit(vec![b'o'; number]),
        "forever" => loop {
            chunk.emit([b'f'; 16 * 1024])?;
        },
        "drip" => loop {
            chunk.emit("d")?;
        },
        "nothing" => loop {
            chunk.emit("")?;
        },
        // An error that comes when something is out already is not passed over.
        "fail" if !chunk.is_empty() => {
            chunk.emit("begun")?;
            bail!("it was asked to fail")
        }
        "end" if !chunk.is_empty() => {
            chunk.emit("all")?;
            chunk.end();
            Ok(())
        }
        _ => Ok(()),
    }
}

fn wish(request: &Request, header: &str) -> Option<String> {
    let wish = request.header(header)?;
    Some(wish.as_str()?.to_owned())
}
