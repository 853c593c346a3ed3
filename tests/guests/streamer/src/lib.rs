//! Writes its response piece by piece: `x-script` has the commands, separated by `;`. Its filters do what `x-head` and `x-body` say.

use castling_sdk::prelude::*;

#[derive(Default)]
struct Streamer;

#[plugin]
impl Streamer {
    fn access(&self, request: &mut Request) -> Result<()> {
        if request.header("x-early").is_some() {
            let _body = Response::status(200).stream()?;
        }
        Ok(())
    }

    fn content(&self, request: &mut Request) -> Result<Verdict> {
        let script = text(request, "x-script");
        let mut run = Run { head: Some(Response::status(200)), body: None };
        for command in script.split(';').map(str::trim).filter(|command| !command.is_empty()) {
            if let Some(verdict) = run.command(request, command)? {
                return Ok(verdict);
            }
        }
        Ok(Verdict::Continue)
    }

    fn response_headers(&self, request: &Request, reply: &mut Reply) -> Result<Verdict> {
        if request.header("x-body").is_none() {
            reply.skip_body();
        }
        match text(request, "x-head").as_str() {
            "mark" => reply.set_header("x-marked", reply.status().to_string()),
            "status" => reply.set_status(204),
            "answer" => return Ok(Response::status(203).header("x-by", "filter").body("instead").into()),
            "fail" => bail!("it was asked to"),
            "begin" => drop(Response::status(200).stream()?),
            _ => {}
        }
        Ok(Verdict::Continue)
    }

    fn response_body(&self, request: &Request, chunk: &mut Chunk) -> Result<()> {
        match text(request, "x-body").as_str() {
            "upper" => chunk.replace(chunk.data().to_ascii_uppercase()),
            "tail" if chunk.is_last() => {
                let sum = chunk.trailer("x-sum").map(|sum| sum.to_string_lossy().into_owned());
                chunk.replace([chunk.data(), b"tail ", sum.unwrap_or_default().as_bytes()].concat());
            }
            "end" if chunk.data().contains(&b'!') => chunk.end(),
            "fail" if chunk.data().contains(&b'!') => bail!("it was asked to"),
            _ => {}
        }
        Ok(())
    }
}

struct Run {
    /// Before it has begun.
    head: Option<Response>,
    body: Option<BodyWriter>,
}

impl Run {
    fn command(&mut self, request: &mut Request, command: &str) -> Result<Option<Verdict>> {
        let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
        let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
        match name {
            "head" => self.head = Some(self.take_head()?.header(first, second)),
            "first" => self.head = Some(self.take_head()?.body(rest)),
            "status" => self.head = Some(Response::status(number(first) as u16)),
            "begin" if first.is_empty() => self.body = Some(self.take_head()?.stream()?),
            "begin" => self.body = Some(self.take_head()?.stream_exact(number(first))?),
            "write" => self.body()?.write(rest)?,
            "try" => {
                let written = self.body()?.write(rest).map_or_else(|error| error.to_string(), |()| "done".to_owned());
                log::warn!("write: {written}");
            }
            "fill" => {
                let piece = vec![b'x'; number(second) as usize];
                for _ in 0..number(first) {
                    self.body()?.write(&piece)?;
                    count("pieces")?;
                }
            }
            "gate" => drop(http::send("gate", http::Request::get("/").timeout(Duration::from_secs(60)))?),
            "delay" => delay(Duration::from_millis(number(first)))?,
            "count" => count(first)?,
            "spin" => {
                let end = clock::monotonic() + Duration::from_millis(number(first));
                // Few looks at the clock: each is a host call, of which a hook has so many.
                while clock::monotonic() < end {
                    (0..1000).for_each(|n| {
                        std::hint::black_box(n);
                    });
                }
            }
            "ask" => {
                let asked = http::Request::get(first).header("x-script", second.replace('|', ";"));
                let told = match http::subrequest(asked) {
                    Ok(reply) => format!("{} {}", reply.status(), String::from_utf8_lossy(reply.body())),
                    Err(error) => error.to_string(),
                };
                return Ok(Some(Response::status(200).body(told).into()));
            }
            "tell" => {
                let seen = zones::counter("seen").get(first)?;
                return Ok(Some(Response::status(200).body(seen.to_string()).into()));
            }
            "read" => drop(request.read_body(1000)?),
            "set" => request.set_header(first, second),
            "trailer" => self.body()?.trailer(first, second),
            "finish" => {
                let Some(body) = self.body.take() else { bail!("there is none to finish") };
                return Ok(Some(body.finish()?));
            }
            "answer" => return Ok(Some(Response::status(200).body(rest).into())),
            "continue" => return Ok(Some(Verdict::Continue)),
            "fail" => bail!("it was asked to fail"),
            "panic" => panic!("it was asked to panic"),
            other => bail!("no such command: {other}"),
        }
        Ok(None)
    }

    fn take_head(&mut self) -> Result<Response> {
        self.head.take().ok_or_else(|| Error::msg("it has begun"))
    }

    fn body(&mut self) -> Result<&mut BodyWriter> {
        self.body.as_mut().ok_or_else(|| Error::msg("it has not begun"))
    }
}

fn count(key: &str) -> Result<()> {
    zones::counter("seen").add(key, 1, Duration::from_secs(3600)).map(drop)
}

fn text(request: &Request, name: &str) -> String {
    let value = request.header(name);
    value.as_ref().and_then(|value| value.as_str()).unwrap_or_default().to_owned()
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}
