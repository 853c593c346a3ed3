//! Lets browsers call services of gRPC: gRPC-Web, in bytes or in base64, to gRPC and back.
//!
//! README.md says what it takes.

mod text;

use castling_sdk::prelude::*;
use data_encoding::BASE64;

use crate::text::{Decoder, NotBase64};

/// The plugin. It has no config.
#[derive(Default)]
pub struct GrpcWeb;

/// State of a call; none for requests that are no calls of gRPC-Web.
#[derive(Default, Deserialize, Serialize)]
struct Call(Option<Bridge>);

/// Forms of a call that is bridged.
#[derive(Deserialize, Serialize)]
struct Bridge {
    /// The request's body is base64.
    request_text: Option<Decoder>,
    /// The response's body is to be base64.
    response_is_text: bool,
    /// Behind `application/grpc-web` or `application/grpc-web-text`: `+proto`, or nothing.
    suffix: String,
    /// The response's fields have the status already, and no frame is to have it.
    status_is_told: bool,
}

const WEB: &str = "application/grpc-web";

/// First byte of a frame that has trailers.
const TRAILERS: u8 = 0x80;

#[plugin(state = Call)]
impl GrpcWeb {
    fn rewrite(&self, call: &mut Call, request: &mut Request) -> Verdict {
        *call = Call(None);
        let Some((is_text, suffix)) = form(request.header("content-type")) else {
            return Verdict::Continue;
        };
        if request.method() != "POST" {
            return Response::status(405)
                .header("allow", "POST")
                .body("calls of gRPC-Web are POSTs\n")
                .into();
        }
        let response_is_text = match form(request.header("accept")) {
            Some((is_text, _)) => is_text,
            None => is_text,
        };
        request.set_header("content-type", format!("application/grpc{suffix}"));
        // Peers answer by gRPC, whatever the browser could read.
        request.remove_header("accept");
        // It is made before the body is decoded.
        request.remove_header("content-md5");
        *call = Call(Some(Bridge {
            request_text: is_text.then(Decoder::default),
            response_is_text,
            suffix,
            status_is_told: false,
        }));
        Verdict::Continue
    }

    fn request_body(&self, call: &mut Call, _request: &Request, chunk: &mut Chunk) -> Verdict {
        let bridge = call.0.as_mut();
        let Some(decoder) = bridge.and_then(|bridge| bridge.request_text.as_mut()) else {
            return Verdict::Continue;
        };
        let mut bytes = Vec::with_capacity(chunk.len());
        match decoder.push(chunk.data(), chunk.is_last(), &mut bytes) {
            Ok(()) => {
                chunk.replace(bytes);
                Verdict::Continue
            }
            Err(NotBase64) => Response::status(400)
                .body("the body is not base64\n")
                .into(),
        }
    }

    fn response_headers(&self, call: &mut Call, request: &Request, reply: &mut Reply) -> Verdict {
        let Some(bridge) = &mut call.0 else {
            reply.skip_body();
            return Verdict::Continue;
        };
        let text = if bridge.response_is_text { "-text" } else { "" };
        let content_type = format!("{WEB}{text}{}", bridge.suffix);
        bridge.status_is_told = reply.header("grpc-status").is_some();
        if is_grpc(reply) {
            reply.set_header("content-type", content_type);
            if bridge.status_is_told {
                reply.skip_body();
            }
            return Verdict::Continue;
        }
        // An error of the gateway, of another plugin, or of a peer that is no service of gRPC.
        bridge.status_is_told = true;
        let code = match reply.status() {
            504 if request.header("grpc-timeout").is_some() => DEADLINE_EXCEEDED,
            other => status(other),
        };
        Response::status(200)
            .header("content-type", content_type)
            .header("grpc-status", code.to_string())
            .header("grpc-message", format!("HTTP status {}", reply.status()))
            .into()
    }

    fn response_body(&self, call: &mut Call, _request: &Request, chunk: &mut Chunk) {
        let Some(bridge) = call.0.as_ref().filter(|bridge| !bridge.status_is_told) else {
            return;
        };
        let trailers = match chunk.is_last() {
            true => frame(&chunk.trailers()),
            false => Vec::new(),
        };
        match bridge.response_is_text {
            false if trailers.is_empty() => {}
            false => chunk.replace([chunk.data(), &trailers].concat()),
            true => {
                let mut text = BASE64.encode(chunk.data());
                BASE64.encode_append(&trailers, &mut text);
                chunk.replace(text);
            }
        }
    }
}

/// Form that a content type of gRPC-Web stands for: whether it is base64, and what is behind its name.
fn form(content_type: Option<HeaderValue>) -> Option<(bool, String)> {
    let content_type = content_type?;
    let name = content_type.as_str()?.split([';', ',']).next()?.trim();
    let rest = name.to_ascii_lowercase().strip_prefix(WEB)?.to_owned();
    let (is_text, suffix) = match rest.strip_prefix("-text") {
        Some(suffix) => (true, suffix),
        None => (false, rest.as_str()),
    };
    (suffix.is_empty() || suffix.starts_with('+')).then(|| (is_text, suffix.to_owned()))
}

fn is_grpc(reply: &Reply) -> bool {
    let content_type = reply.header("content-type");
    let name = content_type.as_ref().and_then(|value| value.as_str());
    name.is_some_and(|name| name.to_ascii_lowercase().starts_with("application/grpc"))
}

/// Trailers as a frame of the body; empty where there are none, since the response has broken off.
fn frame(trailers: &Headers) -> Vec<u8> {
    let mut fields = Vec::new();
    for (name, value) in trailers.iter() {
        fields.extend_from_slice(name.as_bytes());
        fields.extend_from_slice(b": ");
        fields.extend_from_slice(value);
        fields.extend_from_slice(b"\r\n");
    }
    let Ok(len) = u32::try_from(fields.len()) else {
        return Vec::new();
    };
    if fields.is_empty() {
        return fields;
    }
    let head = [&[TRAILERS][..], &len.to_be_bytes()].concat();
    [head, fields].concat()
}

/// Status of a call whose own deadline has passed.
const DEADLINE_EXCEEDED: u8 = 4;

/// Status of gRPC for one of HTTP (`http-grpc-status-mapping.md` of gRPC).
fn status(http: u16) -> u8 {
    match http {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use castling_sdk::testing::Exchange;

    fn posted(content_type: &str) -> Exchange {
        Exchange::new("POST", "/s/m").header("content-type", content_type)
    }

    fn began(exchange: &mut Exchange) -> Call {
        let mut call = Call::default();
        let verdict = GrpcWeb.rewrite(&mut call, exchange.request());
        assert_eq!(verdict, Verdict::Continue);
        call
    }

    /// Fields of a response, and its body in two chunks.
    fn answered(call: &mut Call, exchange: &mut Exchange) -> Vec<u8> {
        let (request, reply) = exchange.request_and_reply();
        assert_eq!(
            GrpcWeb.response_headers(call, request, reply),
            Verdict::Continue
        );
        let mut body = Vec::new();
        for (data, is_last) in [("abcd", false), ("", true)] {
            body.extend(exchange.pass_chunk(data, is_last, |request, chunk| {
                GrpcWeb.response_body(call, request, chunk);
            }));
        }
        body
    }

    #[test]
    fn a_call_becomes_one_of_grpc_and_its_trailers_a_frame() {
        let mut exchange = posted("application/grpc-web+proto")
            .response_header("content-type", "application/grpc+proto")
            .trailer("grpc-status", "0")
            .trailer("grpc-message", "ok");
        let mut call = began(&mut exchange);
        let content_type = exchange.request().header("content-type").unwrap();
        assert_eq!(content_type, "application/grpc+proto");
        let body = answered(&mut call, &mut exchange);
        let fields = b"grpc-status: 0\r\ngrpc-message: ok\r\n";
        assert_eq!(body, [b"abcd\x80\0\0\0\x22", &fields[..]].concat());
        let content_type = exchange.reply().header("content-type").unwrap();
        assert_eq!(content_type, "application/grpc-web+proto");
    }

    #[test]
    fn base64_goes_both_ways() {
        let mut exchange = posted("application/grpc-web-text")
            .response_header("content-type", "application/grpc")
            .trailer("grpc-status", "0");
        let mut call = began(&mut exchange);
        let sent = exchange.pass_chunk("YWJj", true, |request, chunk| {
            let verdict = GrpcWeb.request_body(&mut call, request, chunk);
            assert_eq!(verdict, Verdict::Continue);
        });
        assert_eq!(sent, b"abc");
        let body = answered(&mut call, &mut exchange);
        let mut decoded = Vec::new();
        let mut decoder = Decoder::default();
        assert_eq!(decoder.push(&body, true, &mut decoded), Ok(()));
        assert_eq!(decoded, b"abcd\x80\0\0\0\x10grpc-status: 0\r\n");
    }

    #[test]
    fn a_body_that_is_not_base64_is_refused() {
        let mut exchange = posted("application/grpc-web-text");
        let mut call = began(&mut exchange);
        exchange.pass_chunk("?", true, |request, chunk| {
            let verdict = GrpcWeb.request_body(&mut call, request, chunk);
            assert_ne!(verdict, Verdict::Continue);
        });
    }

    #[test]
    fn a_status_among_the_fields_is_told_once() {
        let mut exchange = posted("application/grpc-web")
            .response_header("content-type", "application/grpc")
            .response_header("grpc-status", "5");
        let mut call = began(&mut exchange);
        assert_eq!(answered(&mut call, &mut exchange), b"abcd");
        assert!(exchange.body_skipped());
    }

    #[test]
    fn errors_of_http_are_told_as_those_of_grpc() {
        let mut exchange = posted("application/grpc-web")
            .response(503)
            .response_header("content-type", "text/plain");
        let mut call = began(&mut exchange);
        let (request, reply) = exchange.request_and_reply();
        let verdict = GrpcWeb.response_headers(&mut call, request, reply);
        let expected = Response::status(200)
            .header("content-type", "application/grpc-web")
            .header("grpc-status", "14")
            .header("grpc-message", "HTTP status 503");
        assert_eq!(verdict, expected.into());
    }

    #[test]
    fn other_requests_are_left_alone() {
        for content_type in ["application/grpc", "application/grpc-webby", "text/plain"] {
            let mut exchange = posted(content_type)
                .response_header("content-type", "application/grpc")
                .trailer("grpc-status", "0");
            let mut call = began(&mut exchange);
            assert_eq!(answered(&mut call, &mut exchange), b"abcd");
            assert!(exchange.body_skipped());
            let kept = exchange.request().header("content-type").unwrap();
            assert_eq!(kept, content_type);
        }
    }

    #[test]
    fn only_posts_are_calls() {
        let mut exchange = Exchange::get("/").header("content-type", "application/grpc-web");
        let verdict = GrpcWeb.rewrite(&mut Call::default(), exchange.request());
        assert_ne!(verdict, Verdict::Continue);
    }
}
