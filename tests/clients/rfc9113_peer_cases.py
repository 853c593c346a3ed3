"""Cases of RFC 9113 and RFC 7541 by section, with the gateway as the client: what a peer does upon its request, and what must become
of the connection and of the gateway's own client."""

from frames import *  # noqa: F403  the words of the cases

#: Each: section, what the peer does, answers that the gateway's client may get, outcomes that the RFC allows, the request, the part
#: of the peer.
CASES = []

#: As those of `rfc9113_cases.py`. An outcome is the answer and what became of the connection.
DEVIATIONS = [
    (
        "the code of the h2 crate for frames and field blocks that it cannot read; the connection ends all the same",
        "502, GOAWAY PROTOCOL_ERROR",
        [
            ("4.3", "a field block that cannot be decoded"),
            ("6.4", "RST_STREAM of another length than 4"),
            ("6.5", "SETTINGS that acknowledges and is not empty"),
            ("6.5", "SETTINGS whose length is no multiple of 6"),
            ("6.5.2", "SETTINGS_INITIAL_WINDOW_SIZE above 2^31-1"),
            ("6.7", "PING of another length than 8"),
            ("6.9", "WINDOW_UPDATE of another length than 4"),
            ("HPACK 2.3.3", "an index beyond the tables"),
            ("HPACK 4.2", "an update of the table's size behind a field"),
            ("HPACK 5.1", "an integer that does not end"),
            ("HPACK 5.2", "a string longer than the block"),
            ("HPACK 5.2", "Huffman padding of more than 7 bits"),
            ("HPACK 5.2", "Huffman padding that is not of ones"),
            ("HPACK 5.2", "Huffman with the end of string"),
            ("HPACK 6.1", "index 0"),
            ("HPACK 6.3", "an update of the table's size above SETTINGS_HEADER_TABLE_SIZE"),
        ],
    ),
    ("the h2 crate takes no notice, and refuses pushes", "200, PING", [("6.5.2", "SETTINGS_ENABLE_PUSH of 1, of a server")]),
    ("the h2 crate drops it, so that nobody sees it", "200, PING", [("8.3", "a pseudo field of requests")]),
]

#: Deviations that depend on whether the stream is forgotten by then.
SOMETIMES = [
    (
        "the h2 crate skips frames of streams that it has forgotten",
        "200, PING",
        [("5.1", "DATA behind the end"), ("5.1", "HEADERS behind the end"), ("8.1", "DATA behind trailers")],
    )
]

#: A client gets no part of what is wrong: an answer of the gateway's own, or one that is seen to be cut.
NO_ANSWER = {"502", "cut"}
OK = {"200"}
LIVES = {"PING"}

GET_ROOT = b"GET /frames HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n"
HEAD_ROOT = GET_ROOT.replace(b"GET", b"HEAD", 1)
POST_ROOT = b"POST /frames HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\nContent-Length: 10\r\n\r\n0123456789"

RESPONSE = [(":status", "200")]


def connection(*codes):
    """A connection error (§5.4.1)."""
    return NO_ANSWER, {f"GOAWAY {it}" for it in codes}


def stream(*codes):
    """A stream error (§5.4.2), which may be treated as one of the connection. A stream that has ended needs no reset."""
    return NO_ANSWER, {f"RST_STREAM {it}" for it in codes} | {f"GOAWAY {it}" for it in codes} | LIVES


MALFORMED = stream("PROTOCOL_ERROR")
TAKEN = (OK, LIVES)


def case(section, what, allowed, request=GET_ROOT):
    def add(act):
        CASES.append((section, what, allowed[0], allowed[1], request, act))

    return add


def sends(section, what, allowed, *frames, request=GET_ROOT):
    def act(peer):
        for it in frames:
            peer.write(it)
        peer.ping()

    CASES.append((section, what, allowed[0], allowed[1], request, act))


def head(*more, flags=WHOLE, number=1, fields=RESPONSE):
    return frame(HEADERS, flags, number, block([*fields, *more]))


def begun(*more):
    """Head of a response that has a body."""
    return head(*more, flags=END_HEADERS)


def data(payload=b"text", flags=END_STREAM, number=1):
    return frame(DATA, flags, number, payload)


def raw(fragment):
    """A response with this behind a good field block."""
    return frame(HEADERS, WHOLE, 1, block(RESPONSE) + fragment)


TRAILER = frame(HEADERS, WHOLE, 1, literal("x-sum", "1"))
BEGINS_BLOCK = head(flags=END_STREAM)
WINDOW_MAX = u32((1 << 31) - 1)

sends("4.1", "frames of unknown types, flags and bits that are reserved", TAKEN, frame(0x16, 0xff, 0, b"x"), frame(0x17, 0, 1, b"x"), frame(PING, 0xfe, 1 << 31, b"x" * 8), head())
sends("4.2", "DATA of 2^14 bytes", TAKEN, begun(), data(b"x" * 16384))
sends("4.2", "DATA of more than SETTINGS_MAX_FRAME_SIZE", stream("FRAME_SIZE_ERROR"), begun(), data(b"x" * 16385))
sends("4.2", "HEADERS of more than SETTINGS_MAX_FRAME_SIZE", connection("FRAME_SIZE_ERROR"), head(*[("x-a", "a" * 5000)] * 4))
sends("4.3", "a field block that cannot be decoded", connection("COMPRESSION_ERROR"), frame(HEADERS, WHOLE, 1, b"\x88\x40"))
for name, it in [("PRIORITY", frame(PRIORITY, 0, 1, u32(0) + b"\xff")), ("DATA", data()), ("PING", frame(PING, 0, 0, b"x" * 8)), ("SETTINGS", frame(SETTINGS, 0, 0)),
                 ("another HEADERS", head()), ("an unknown frame", frame(0x16, 0, 1, b"x")), ("another stream's CONTINUATION", frame(CONTINUATION, END_HEADERS, 3))]:
    sends("4.3", f"{name} within a field block", connection("PROTOCOL_ERROR"), BEGINS_BLOCK, it)
for name, it in [("DATA", data(number=3)), ("HEADERS", head(number=3)), ("RST_STREAM", frame(RST_STREAM, 0, 3, u32(8))), ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 3, u32(1))),
                 ("CONTINUATION", frame(CONTINUATION, END_HEADERS, 3))]:
    sends("5.1", f"{name} on an idle stream", connection("PROTOCOL_ERROR"), it)
sends("5.1", "PRIORITY on an idle stream is allowed", TAKEN, frame(PRIORITY, 0, 5, u32(0) + b"\x10"), head())
sends("5.1", "HEADERS on a stream that the peer would begin", connection("PROTOCOL_ERROR"), head(number=2))
sends("5.1", "DATA behind the end", (OK, stream("STREAM_CLOSED")[1] - LIVES), begun(), data(), data())
sends("5.1", "HEADERS behind the end", (OK, stream("STREAM_CLOSED")[1] - LIVES), begun(), data(), head())
sends("5.1", "WINDOW_UPDATE, PRIORITY, RST_STREAM behind the end are allowed", TAKEN, head(), frame(WINDOW_UPDATE, 0, 1, u32(1)), frame(PRIORITY, 0, 1, u32(0) + b"\x10"), frame(RST_STREAM, 0, 1, u32(0)))
sends("6.1", "DATA on stream 0", connection("PROTOCOL_ERROR"), data(number=0))
sends("6.1", "DATA before HEADERS", stream("PROTOCOL_ERROR"), data())
sends("6.1", "DATA with padding", TAKEN, begun(), frame(DATA, END_STREAM | PADDED, 1, b"\x06text" + b"\0" * 6))
sends("6.1", "DATA with padding longer than it is", connection("PROTOCOL_ERROR"), begun(), frame(DATA, END_STREAM | PADDED, 1, b"\xfftext"))
sends("6.2", "HEADERS on stream 0", connection("PROTOCOL_ERROR"), head(number=0))
sends("6.2", "HEADERS with priority and padding", TAKEN, frame(HEADERS, WHOLE | WITH_PRIORITY | PADDED, 1, b"\x02" + u32(0) + b"\x10" + block(RESPONSE) + b"\0\0"))
sends("6.2", "HEADERS with padding longer than it is", connection("PROTOCOL_ERROR"), frame(HEADERS, WHOLE | PADDED, 1, b"\xff" + block(RESPONSE)))
sends("6.3", "PRIORITY on stream 0", connection("PROTOCOL_ERROR"), frame(PRIORITY, 0, 0, u32(1) + b"\x10"))
sends("6.4", "RST_STREAM on stream 0", connection("PROTOCOL_ERROR"), frame(RST_STREAM, 0, 0, u32(8)))
sends("6.4", "RST_STREAM of another length than 4", connection("FRAME_SIZE_ERROR"), frame(RST_STREAM, 0, 1, b"\0\0\0"))
for name, it in [("CANCEL", 8), ("INTERNAL_ERROR", 2), ("NO_ERROR", 0), ("a code that is not known", 0xff)]:
    sends("6.4", f"RST_STREAM with {name} before the response", (NO_ANSWER, LIVES), frame(RST_STREAM, 0, 1, u32(it)))
    sends("6.4", f"RST_STREAM with {name} within the response", (NO_ANSWER, LIVES), begun(("content-length", "8")), data(flags=0), frame(RST_STREAM, 0, 1, u32(it)))
sends("6.5", "SETTINGS that acknowledges and is not empty", connection("FRAME_SIZE_ERROR"), frame(SETTINGS, ACK, 0, settings((MAX_FRAME_SIZE, 16384))))
sends("6.5", "SETTINGS on a stream", connection("PROTOCOL_ERROR"), frame(SETTINGS, 0, 1, b""))
sends("6.5", "SETTINGS whose length is no multiple of 6", connection("FRAME_SIZE_ERROR"), frame(SETTINGS, 0, 0, b"\0\3\0"))
for what, key, value, code in [("SETTINGS_ENABLE_PUSH of 2", ENABLE_PUSH, 2, "PROTOCOL_ERROR"), ("SETTINGS_ENABLE_PUSH of 1, of a server", ENABLE_PUSH, 1, "PROTOCOL_ERROR"),
                               ("SETTINGS_INITIAL_WINDOW_SIZE above 2^31-1", INITIAL_WINDOW_SIZE, 1 << 31, "FLOW_CONTROL_ERROR"),
                               ("SETTINGS_MAX_FRAME_SIZE below 2^14", MAX_FRAME_SIZE, 16383, "PROTOCOL_ERROR"), ("SETTINGS_MAX_FRAME_SIZE above 2^24-1", MAX_FRAME_SIZE, 1 << 24, "PROTOCOL_ERROR")]:
    sends("6.5.2", what, connection(code), frame(SETTINGS, 0, 0, settings((key, value))), head())
sends("6.5.2", "a setting that is not known", TAKEN, frame(SETTINGS, 0, 0, settings((0xff, 1))), head())
sends("6.6", "PUSH_PROMISE where pushes are off", connection("PROTOCOL_ERROR"), frame(PUSH_PROMISE, END_HEADERS, 1, u32(2) + block(GET)))
sends("6.7", "PING on a stream", connection("PROTOCOL_ERROR"), frame(PING, 0, 1, b"x" * 8))
sends("6.7", "PING of another length than 8", connection("FRAME_SIZE_ERROR"), frame(PING, 0, 0, b"x" * 9))
sends("6.8", "GOAWAY on a stream", connection("PROTOCOL_ERROR"), frame(GOAWAY, 0, 1, u32(0) + u32(0)))
sends("6.8", "GOAWAY that has taken the request", (OK, LIVES | {"GOAWAY NO_ERROR", "closed"}), frame(GOAWAY, 0, 0, u32(1) + u32(0)), head())


@case("6.8", "a request that GOAWAY has not taken is sent again, on another connection", (OK, {"sent again"}))
def sent_again(peer):
    peer.send(GOAWAY, 0, 0, u32(0) + u32(0))
    other = peer.next()
    other.write(head())
    other.end()
    return "sent again"


@case("8.7", "a request that is refused is sent again", (OK, {"sent again"}))
def refused(peer):
    peer.send(RST_STREAM, 0, 1, u32(7))
    peer.until(lambda it: it.type == HEADERS and it.stream_id == 3)
    peer.write(head(number=3))
    return "sent again"


sends("6.9", "WINDOW_UPDATE by 0 on the connection", connection("PROTOCOL_ERROR"), frame(WINDOW_UPDATE, 0, 0, u32(0)))
sends("6.9", "WINDOW_UPDATE by 0 on a stream", stream("PROTOCOL_ERROR"), frame(WINDOW_UPDATE, 0, 1, u32(0)))
sends("6.9", "WINDOW_UPDATE of another length than 4", connection("FRAME_SIZE_ERROR"), frame(WINDOW_UPDATE, 0, 0, b"\0\0\1"))
sends("6.9.1", "a window of the connection above 2^31-1", connection("FLOW_CONTROL_ERROR"), frame(WINDOW_UPDATE, 0, 0, WINDOW_MAX), frame(WINDOW_UPDATE, 0, 0, WINDOW_MAX))
sends("6.9.1", "a window of the stream above 2^31-1", stream("FLOW_CONTROL_ERROR"), frame(WINDOW_UPDATE, 0, 1, WINDOW_MAX) * 2, request=POST_ROOT)


@case("6.9.1", "no more than the window is sent, then the rest", (OK, {"DATA 1, DATA 9"}), request=POST_ROOT)
def window_of_one(peer):
    first = peer.until(lambda it: it.type == DATA)
    peer.send(WINDOW_UPDATE, 0, 1, u32(100))
    rest = b""
    while len(rest) < 9:
        rest += peer.until(lambda it: it.type == DATA).data
    peer.write(head())
    return f"DATA {len(first.data)}, DATA {len(rest)}"


sends("6.10", "CONTINUATION, several", TAKEN, frame(HEADERS, END_STREAM, 1, block(RESPONSE)[:5]), frame(CONTINUATION, 0, 1, b""), frame(CONTINUATION, END_HEADERS, 1, block(RESPONSE)[5:]))
sends("6.10", "CONTINUATION on stream 0", connection("PROTOCOL_ERROR"), BEGINS_BLOCK, frame(CONTINUATION, END_HEADERS, 0, b""))
sends("6.10", "CONTINUATION behind HEADERS with the end", ({"200"} | NO_ANSWER, {"GOAWAY PROTOCOL_ERROR", "GOAWAY STREAM_CLOSED"}), begun(), frame(CONTINUATION, END_HEADERS, 1, b""))
sends("6.10", "CONTINUATION behind DATA", ({"200"} | NO_ANSWER, {"GOAWAY PROTOCOL_ERROR", "GOAWAY STREAM_CLOSED"}), begun(), data(flags=0), frame(CONTINUATION, END_HEADERS, 1, b""))

# --- §8: responses ---

sends("8.1", "a response with a body and trailers", TAKEN, begun(), data(flags=0), TRAILER)
sends("8.1", "interim responses before it", TAKEN, head(fields=[(":status", "103")], flags=END_HEADERS), head(fields=[(":status", "100")], flags=END_HEADERS), head())
sends("8.1", "an interim response that ends the stream", MALFORMED, head(fields=[(":status", "103")]))
sends("8.1", "trailers without the end of the stream", MALFORMED, begun(), data(flags=0), head(fields=[("x-sum", "1")], flags=END_HEADERS))
sends("8.1", "DATA behind trailers", (OK | NO_ANSWER, stream("STREAM_CLOSED")[1] - LIVES), begun(), data(flags=0), TRAILER, data())
sends("8.1", "a response before the end of the request", (OK, LIVES | {"RST_STREAM NO_ERROR", "RST_STREAM CANCEL"}), head(), request=POST_ROOT)
for what, length, pieces in [("less DATA than content-length", "5", [b"text"]), ("more DATA than content-length", "3", [b"text"]), ("more DATA than content-length, in pieces", "5", [b"text", b"text"]),
                             ("no DATA for a content-length", "4", [])]:
    sends("8.1.1", what, (NO_ANSWER, MALFORMED[1] | {"RST_STREAM CANCEL"}), begun(("content-length", length)), *[data(it, 0) for it in pieces], data(b""))
sends("8.1.1", "more DATA than content-length, with the rest another response", (NO_ANSWER | OK, MALFORMED[1] | {"RST_STREAM CANCEL"}), begun(("content-length", "0")), data(b"HTTP/1.1 200 OK\r\n\r\n"))
sends("8.1.1", "a content-length, and HEADERS with the end", MALFORMED, head(("content-length", "4")))
sends("8.1.1", "a content-length, and HEADERS with the end, of HEAD", TAKEN, head(("content-length", "4")), request=HEAD_ROOT)
sends("8.1.1", "content-length of two values", MALFORMED, begun(("content-length", "4"), ("content-length", "5")), data())
for value in ["x", "-1", "+4", "0x4", "4,5"]:
    sends("8.1.1", f"content-length {value!r}", MALFORMED, begun(("content-length", value)), data())
for what, name in [("in upper case", "X-Test"), ("with a space", "x test"), ("with a colon", "x:test"), ("with CR LF", "x\r\ntest"), ("that is empty", "")]:
    sends("8.2.1", f"a name {what}", (NO_ANSWER, MALFORMED[1] | {"GOAWAY COMPRESSION_ERROR"}), head((name, "a")))
for what, value in [("with NUL", "a\0b"), ("with CR", "a\rb"), ("with LF", "a\nb"), ("with CR LF", "a\r\nx-b: c")]:
    sends("8.2.1", f"a value {what}", (NO_ANSWER, MALFORMED[1] | {"GOAWAY COMPRESSION_ERROR"}), head(("x-test", value)))
for name, value in [("connection", "close"), ("transfer-encoding", "chunked"), ("keep-alive", "1"), ("proxy-connection", "close"), ("upgrade", "h2c")]:
    sends("8.2.2", f"{name}: {value}", MALFORMED, head((name, value)))
sends("8.3", "a pseudo field that is not known", MALFORMED, head((":test", "a")))
sends("8.3", "a pseudo field of requests", MALFORMED, head((":path", "/")))
sends("8.3", "a pseudo field behind others", MALFORMED, head(fields=[("x-a", "b"), *RESPONSE]))
sends("8.3", "a pseudo field in trailers", MALFORMED, begun(("content-length", "8")), data(flags=0), head())
sends("8.3.2", "no :status", MALFORMED, head(fields=[("x-a", "b")]))
sends("8.3.2", ":status twice", MALFORMED, head(*RESPONSE))
for value in ["", "20", "2000", "abc", "-20", "099", "+20", "200 OK", "20\r"]:
    sends("8.3.2", f":status {value!r}", (NO_ANSWER, MALFORMED[1] | {"GOAWAY COMPRESSION_ERROR"}), head(fields=[(":status", value)]))
sends("8.6", "101, which HTTP/2 has not", (NO_ANSWER, LIVES | {"RST_STREAM PROTOCOL_ERROR", "RST_STREAM CANCEL"}), head(fields=[(":status", "101")], flags=END_HEADERS))
sends("8.1", "204 and 304 have no body", ({"304"}, LIVES), head(("content-length", "4"), fields=[(":status", "304")]))

# --- RFC 7541: HPACK ---

BAD_BLOCK = connection("COMPRESSION_ERROR")
for section, what, fragment in [
    ("2.3.3", "an index beyond the tables", b"\xc6"), ("4.2", "an update of the table's size behind a field", b"\x20"), ("5.1", "an integer that does not end", b"\xff" + b"\xff" * 12),
    ("5.2", "a string longer than the block", b"\0\x03x-a\x7f\x00a"), ("5.2", "Huffman padding of more than 7 bits", b"\0" + text("x-a") + b"\x82\x1f\xff"),
    ("5.2", "Huffman padding that is not of ones", b"\0" + text("x-a") + b"\x81\x18"), ("5.2", "Huffman with the end of string", b"\0" + text("x-a") + b"\x84\xff\xff\xff\xff"), ("6.1", "index 0", b"\x80"),
]:
    sends(f"HPACK {section}", what, BAD_BLOCK, raw(fragment))
sends("HPACK 6.3", "an update of the table's size above SETTINGS_HEADER_TABLE_SIZE", BAD_BLOCK, frame(HEADERS, WHOLE, 1, integer(4097, 5, 0x20) + block(RESPONSE)))
sends("HPACK 6.2", "literals of all kinds", TAKEN, raw(b"\x40" + text("x-a") + text("b") + b"\xbe\x10" + text("x-c") + text("d") + b"\x0f\x28" + text("e")))
