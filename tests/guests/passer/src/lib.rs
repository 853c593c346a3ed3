//! Filters bodies as the request's headers ask: `x-up` the request's, `x-down` the response's.

use castling_sdk::prelude::*;

#[derive(Default)]
struct Passer;

#[derive(Default, Deserialize, Serialize)]
struct Held {
    up: Vec<u8>,
    pieces: usize,
    down: usize,
}

#[plugin(state = Held)]
impl Passer {
    fn request_body(&self, held: &mut Held, request: &Request, chunk: &mut Chunk) -> Result<Verdict> {
        held.pieces += 1;
        match text(request, "x-up").as_str() {
            "upper" => chunk.replace(chunk.data().to_ascii_uppercase()),
            "double" => chunk.replace([chunk.data(), chunk.data()].concat()),
            "drop" => chunk.replace(""),
            // Nothing goes on before all is there.
            "hold" => {
                held.up.extend_from_slice(chunk.data());
                match chunk.is_last() {
                    true => chunk.replace([b"[", &held.up[..], b"]"].concat()),
                    false => chunk.replace(""),
                }
            }
            "trailers" if chunk.is_last() => chunk.replace([chunk.data(), &told(chunk)].concat()),
            "refuse" if chunk.data().windows(3).any(|word| word == b"bad") => {
                return Ok(Response::status(422).body("not that").into());
            }
            "end" => {
                chunk.replace([chunk.data(), b"."].concat());
                chunk.end();
            }
            "fail" => bail!("it was asked to"),
            "fail-later" if held.pieces > 1 => bail!("it was asked to, later"),
            "spin" => {
                let end = clock::monotonic() + Duration::from_millis(5);
                // Few looks at the clock: each is a host call, of which a hook has so many.
                while clock::monotonic() < end {
                    (0..1000).for_each(|n| {
                        std::hint::black_box(n);
                    });
                }
            }
            _ => {}
        }
        Ok(Verdict::Continue)
    }

    fn response_headers(&self, request: &Request, reply: &mut Reply) -> Verdict {
        match text(request, "x-down").as_str() {
            "skip" => reply.skip_body(),
            "strip-fail" => drop(reply.remove_header("content-encoding")),
            "paths" => reply.set_header("x-paths", format!("{} {}", request.path(), request.routed_path())),
            _ => {}
        }
        Verdict::Continue
    }

    fn response_body(&self, held: &mut Held, request: &Request, chunk: &mut Chunk) -> Result<()> {
        held.down += 1;
        match text(request, "x-down").as_str() {
            "fail" | "strip-fail" => bail!("it was asked to"),
            "fail-later" if held.down > 1 => bail!("it was asked to, later"),
            _ => {}
        }
        if text(request, "x-down") == "trailers" && chunk.is_last() {
            chunk.replace([chunk.data(), &told(chunk)].concat());
        }
        if text(request, "x-down") == "end" {
            chunk.replace([chunk.data(), b"."].concat());
            chunk.end();
        }
        Ok(())
    }

    fn log(&self, held: &mut Held, request: &Request, _: &Outcome) {
        request.set_var("pieces", held.pieces.to_string());
    }
}

fn told(chunk: &Chunk) -> Vec<u8> {
    let trailers = chunk.trailers();
    let told: Vec<String> =
        trailers.iter().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value))).collect();
    let sum = chunk.trailer("x-sum").map_or_else(|| "none".to_owned(), |sum| sum.to_string_lossy().into_owned());
    format!("<{}; {sum}>", told.join(",")).into_bytes()
}

fn text(request: &Request, name: &str) -> String {
    let value = request.header(name);
    value.as_ref().and_then(|value| value.as_str()).unwrap_or_default().to_owned()
}
