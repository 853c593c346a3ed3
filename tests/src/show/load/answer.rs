//! Answers by HTTP/1, as they come.

/// A whole response.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) closes: bool,
    /// `x-late`, or nothing.
    pub(crate) late: &'a str,
    pub(crate) body: &'a [u8],
}

impl<'a> Answer<'a> {
    /// None when more must come. `chunked` is room for a body in chunks.
    pub(super) fn parse(
        received: &'a [u8],
        chunked: &'a mut Vec<u8>,
    ) -> Result<Option<Self>, String> {
        let mut headers = [httparse::EMPTY_HEADER; 24];
        let mut response = httparse::Response::new(&mut headers);
        let head = response
            .parse(received)
            .map_err(|error| format!("a head that is none: {error}"))?;
        let httparse::Status::Complete(head_len) = head else {
            return Ok(None);
        };
        let mut length = None;
        let (mut is_chunked, mut closes, mut late) = (false, false, "");
        for header in response.headers.iter() {
            let value = std::str::from_utf8(header.value).unwrap_or("");
            match header.name.len() {
                6 if header.name.eq_ignore_ascii_case("x-late") => late = value,
                10 if header.name.eq_ignore_ascii_case("connection") => {
                    closes = value.eq_ignore_ascii_case("close");
                }
                14 if header.name.eq_ignore_ascii_case("content-length") => {
                    length = Some(value.parse::<usize>().map_err(|_| "a bad length")?);
                }
                17 if header.name.eq_ignore_ascii_case("transfer-encoding") => {
                    is_chunked = value.eq_ignore_ascii_case("chunked");
                }
                _ => {}
            }
        }
        let rest = &received[head_len..];
        let body = match (is_chunked, length) {
            (true, None) => match dechunked(rest, chunked)? {
                true => &chunked[..],
                false => return Ok(None),
            },
            (false, Some(length)) if rest.len() < length => return Ok(None),
            (false, Some(length)) if rest.len() == length => rest,
            (false, Some(_)) => return Err("more bytes than the response has".to_owned()),
            (_, _) => return Err("a response without a length".to_owned()),
        };
        Ok(Some(Self {
            status: response.code.unwrap_or(0),
            closes,
            late,
            body,
        }))
    }
}

/// Whether the body is whole; then it is in `body`.
fn dechunked(mut rest: &[u8], body: &mut Vec<u8>) -> Result<bool, String> {
    body.clear();
    loop {
        let parsed = httparse::parse_chunk_size(rest).map_err(|_| "a bad chunk size")?;
        let httparse::Status::Complete((line, size)) = parsed else {
            return Ok(false);
        };
        let size = usize::try_from(size).map_err(|_| "a bad chunk size")?;
        let Some(chunk) = rest.get(line..line + size + 2) else {
            return Ok(false);
        };
        let (data, end) = chunk.split_at(size);
        if end != b"\r\n" {
            return Err("a chunk without its end (or trailers that nobody sent)".to_owned());
        }
        body.extend_from_slice(data);
        rest = &rest[line + size + 2..];
        if size == 0 {
            return match rest.is_empty() {
                true => Ok(true),
                false => Err("more bytes than the response has".to_owned()),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Result<Option<Vec<u8>>, String> {
        let mut chunked = Vec::new();
        let answer = Answer::parse(text.as_bytes(), &mut chunked)?;
        Ok(answer.map(|answer| answer.body.to_vec()))
    }

    #[test]
    fn answers_are_whole_or_not_yet_or_wrong() {
        let sized = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
        for whole in [sized, chunked] {
            for end in 1..whole.len() {
                assert_eq!(body(&whole[..end]), Ok(None), "{:?}", &whole[..end]);
            }
            assert_eq!(body(whole), Ok(Some(b"hello".to_vec())));
            assert!(body(&format!("{whole}x")).is_err());
        }
        assert!(body("HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(body("nonsense\r\n\r\n").is_err());
    }
}
