"""Cases of RFC 9113 and RFC 7541 by section, after those of h2spec: what a peer does, and what must become of it."""

from frames import *  # noqa: F403  the words of the cases

#: Each: section, what the peer does, the outcomes that the RFC allows, the peer's part (which may tell the outcome itself).
CASES = []

#: Deviations of the gateway that are known: why they are left so, the outcome, and the cases by section and text. Each run prints
#: them, and fails when one is none any more.
DEVIATIONS = [
    (
        "the code of the h2 crate for field blocks and states that it cannot go on with; the connection ends all the same",
        "GOAWAY PROTOCOL_ERROR",
        [
            ("4.3", "a field block that cannot be decoded"),
            ("5.1", "half-closed (remote): DATA"),
            ("5.1", "half-closed (remote): HEADERS"),
            ("5.1", "closed by RST_STREAM: HEADERS"),
            ("6.5.2", "SETTINGS_INITIAL_WINDOW_SIZE above 2^31-1"),
            ("8.1", "DATA behind trailers"),
            ("HPACK 2.3.3", "an index beyond the tables"),
            ("HPACK 2.3.3", "a name's index beyond the tables"),
            ("HPACK 4.1", "a field larger than the table empties it"),
            ("HPACK 4.2", "an update of the table's size behind a field"),
            ("HPACK 4.3", "an update to 0 empties the table"),
            ("HPACK 5.1", "an integer that does not end"),
            ("HPACK 5.1", "an integer above 2^32"),
            ("HPACK 5.2", "a string longer than the block"),
            ("HPACK 5.2", "Huffman padding of more than 7 bits"),
            ("HPACK 5.2", "Huffman padding that is not of ones"),
            ("HPACK 5.2", "Huffman with the end of string"),
            ("HPACK 6.1", "index 0"),
            ("HPACK 6.3", "an update of the table's size above SETTINGS_HEADER_TABLE_SIZE"),
        ],
    ),
    ("the h2 crate drops it, so that nobody sees it", "200", [("8.3", "a pseudo field in trailers")]),
    ("the http crate drops the fragment, so that nobody sees it", "404", [("8.3.1", ":path with a fragment")]),
    ("the scheme is the connection's: nobody sees what the client says", "200", [("8.3.1", "an empty :scheme")]),
]


def connection(*codes):
    """A connection error (§5.4.1)."""
    return {f"GOAWAY {it}" for it in codes}


def stream(*codes):
    """A stream error (§5.4.2), which may be treated as one of the connection."""
    return {f"RST_STREAM {it}" for it in codes} | connection(*codes)


#: A malformed request (§8.1.1): a stream error, before which a server may send a response.
MALFORMED = stream("PROTOCOL_ERROR") | {"400"}
OK = {"200"}
ALIVE_STILL = {"PING"}


def case(section, what, allowed):
    def add(act):
        CASES.append((section, what, allowed, act))

    return add


def sends(section, what, allowed, *frames, ping=False):
    """A case that is nothing but frames."""

    def act(peer):
        for it in frames:
            peer.write(it)
        if ping:
            peer.ping()

    CASES.append((section, what, allowed, act))


def get(number=1, flags=WHOLE, fields=GET):
    return frame(HEADERS, flags, number, block(fields))


def post(number=1, *fields):
    return frame(HEADERS, END_HEADERS, number, block(POST + list(fields)))


def slow(number=1):
    """A request whose response never comes."""
    return get(number, fields=replaced(GET, ":path", "/slow"))


def slow_post(number=1):
    return frame(HEADERS, END_HEADERS, number, block(replaced(POST, ":path", "/slow")))


def without(fields, name):
    return [it for it in fields if it[0] != name]


def raw(fragment, number=1, flags=WHOLE):
    """A request with this behind a good field block."""
    return frame(HEADERS, flags, number, block(GET) + fragment)


PING_FRAME = frame(PING, 0, 0, ALIVE)
RESET = frame(RST_STREAM, 0, 1, u32(8))


# --- RFC 9113 §3.4: the preface ---


@case("3.4", "a preface", {"SETTINGS"})
def preface(peer):
    return "SETTINGS"  # The peer has seen them first, or there would be none.


def unbegun(section, what, allowed, data):
    def act(peer):
        other = Peer(peer.socket.getpeername(), begun=False)
        other.write(data)
        first = other.exactly(9)
        if first == b"HTTP/1.1 ":
            return "answer " + other.exactly(3).decode()
        # Of SETTINGS, which may come before the end of the preface.
        other.exactly(int.from_bytes(first[:3], "big"))
        return other.outcome()

    CASES.append((section, what, allowed, act))


REFUSED = connection("PROTOCOL_ERROR") | {"closed", "answer 400", "answer 505"}
unbegun("3.4", "another preface", REFUSED, b"INVALID CONNECTION PREFACE\r\n\r\n")
unbegun("3.4", "a preface that is wrong at its end", REFUSED, b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
unbegun("3.4", "a preface of another version", REFUSED, b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n")


@case("3.4", "a preface that no SETTINGS follow", connection("PROTOCOL_ERROR") | {"closed"})
def no_settings(peer):
    other = Peer(peer.socket.getpeername(), begun=False)
    other.write(PREFACE + PING_FRAME)
    return other.outcome()


# --- §4: frames ---

sends("4.1", "a frame of an unknown type", ALIVE_STILL, frame(0x16, 0xff, 0, b"x" * 8), PING_FRAME)
sends("4.1", "a frame of an unknown type on a stream", OK, frame(0x16, 0, 1, b"x"), get())
sends("4.1", "flags that are not defined", ALIVE_STILL, frame(PING, 0xfe, 0, ALIVE))
sends("4.1", "the reserved bit of a stream's id", ALIVE_STILL, frame(PING, 0, 1 << 31, ALIVE))
sends("4.1", "the reserved bit on a request", OK, get(1 << 31 | 1))
sends("4.2", "DATA of 2^14 bytes", OK, post(), frame(DATA, END_STREAM, 1, b"x" * 16384))
sends("4.2", "DATA of more than SETTINGS_MAX_FRAME_SIZE", stream("FRAME_SIZE_ERROR"), post(), frame(DATA, END_STREAM, 1, b"x" * 16385))
sends("4.2", "HEADERS of more than SETTINGS_MAX_FRAME_SIZE", connection("FRAME_SIZE_ERROR"),
      frame(HEADERS, WHOLE, 1, block(GET + [("x-a", "a" * 5000)] * 4)))
sends("4.2", "SETTINGS of more than SETTINGS_MAX_FRAME_SIZE", connection("FRAME_SIZE_ERROR"), frame(SETTINGS, 0, 0, settings((MAX_CONCURRENT_STREAMS, 1)) * 2731))
sends("4.2", "an unknown frame of more than SETTINGS_MAX_FRAME_SIZE", connection("FRAME_SIZE_ERROR"), frame(0x16, 0, 0, b"x" * 16385))
sends("4.2", "HEADERS of 2^14 bytes", OK | {"431"}, frame(HEADERS, WHOLE, 1, block(GET) + literal("x-a", "a" * (16384 - len(block(GET)) - 8))))
sends("4.3", "a field block that cannot be decoded", connection("COMPRESSION_ERROR"), frame(HEADERS, WHOLE, 1, b"\x82\x86\x84\x40"))
sends("4.3", "PRIORITY within a field block", connection("PROTOCOL_ERROR"), get(flags=END_STREAM), frame(PRIORITY, 0, 1, u32(0) + b"\xff"))
sends("4.3", "DATA within a field block", connection("PROTOCOL_ERROR"), get(flags=0), frame(DATA, END_STREAM, 1, b"x"))
sends("4.3", "PING within a field block", connection("PROTOCOL_ERROR"), get(flags=END_STREAM), PING_FRAME)
sends("4.3", "another stream's HEADERS within a field block", connection("PROTOCOL_ERROR"), get(flags=END_STREAM), get(3))
sends("4.3", "another stream's CONTINUATION within a field block", connection("PROTOCOL_ERROR"), get(flags=END_STREAM), frame(CONTINUATION, END_HEADERS, 3, b""))
sends("4.3", "a field block of a stream that was reset still counts for the table", OK, slow(), RESET,
      frame(HEADERS, WHOLE, 3, block(GET) + b"\x40" + text("x-a") + text("b")), frame(RST_STREAM, 0, 3, u32(8)),
      # The field is the table's first: else this could not be decoded.
      frame(HEADERS, WHOLE, 1 + 4, block(GET) + b"\xbe"))
CASES[-1] = (*CASES[-1][:3], lambda peer, act=CASES[-1][3]: (act(peer), peer.outcome(5))[1])

# --- §5.1: states of streams ---

for kind, name, payload in [(DATA, "DATA", b"x"), (RST_STREAM, "RST_STREAM", u32(8)), (WINDOW_UPDATE, "WINDOW_UPDATE", u32(100)), (CONTINUATION, "CONTINUATION", b"")]:
    sends("5.1", f"idle: {name}", connection("PROTOCOL_ERROR"), frame(kind, 0, 1, payload))
sends("5.1", "idle: PRIORITY is allowed", ALIVE_STILL, frame(PRIORITY, 0, 7, u32(0) + b"\x10"), PING_FRAME)
sends("5.1", "half-closed (remote): DATA", stream("STREAM_CLOSED"), slow(), frame(DATA, END_STREAM, 1, b"x"))
sends("5.1", "half-closed (remote): HEADERS", stream("STREAM_CLOSED"), slow(), slow())
sends("5.1", "half-closed (remote): CONTINUATION", connection("STREAM_CLOSED", "PROTOCOL_ERROR"), slow(), frame(CONTINUATION, END_HEADERS, 1, b""))
sends("5.1", "half-closed (remote): WINDOW_UPDATE, PRIORITY are allowed", ALIVE_STILL, slow(), frame(WINDOW_UPDATE, 0, 1, u32(1)), frame(PRIORITY, 0, 1, u32(0) + b"\x10"), PING_FRAME)
sends("5.1", "half-closed (remote): RST_STREAM is allowed", ALIVE_STILL, slow(), RESET, PING_FRAME)
sends("5.1", "closed by RST_STREAM: DATA", stream("STREAM_CLOSED"), slow_post(), RESET, frame(DATA, END_STREAM, 1, b"x"))
sends("5.1", "closed by RST_STREAM: HEADERS", stream("STREAM_CLOSED"), slow(), RESET, slow())
sends("5.1", "closed by RST_STREAM: CONTINUATION", connection("STREAM_CLOSED", "PROTOCOL_ERROR"), slow(), RESET, frame(CONTINUATION, END_HEADERS, 1, b""))
sends("5.1", "closed by RST_STREAM: PRIORITY is allowed", ALIVE_STILL, slow(), RESET, frame(PRIORITY, 0, 1, u32(0) + b"\x10"), PING_FRAME)
for kind, name, flags, payload, codes in [
    (DATA, "DATA", END_STREAM, b"x", ["STREAM_CLOSED"]),
    (HEADERS, "HEADERS", WHOLE, block(GET), ["STREAM_CLOSED", "PROTOCOL_ERROR"]),
    (CONTINUATION, "CONTINUATION", END_HEADERS, b"", ["STREAM_CLOSED", "PROTOCOL_ERROR"]),
]:

    @case("5.1", f"closed by its end: {name}", stream(*codes))
    def closed(peer, it=(kind, flags, payload)):
        peer.headers()
        if peer.outcome() != "200":
            return "no answer"
        peer.send(it[0], it[1], 1, it[2])
        return peer.outcome()


@case("5.1", "closed by its end: WINDOW_UPDATE, PRIORITY, RST_STREAM are allowed", ALIVE_STILL)
def late(peer):
    peer.headers()
    peer.outcome()
    peer.send(WINDOW_UPDATE, 0, 1, u32(10))
    peer.send(PRIORITY, 0, 1, u32(0) + b"\x10")
    peer.send(RST_STREAM, 0, 1, u32(8))
    peer.ping()


sends("5.1.1", "a stream with an even number", connection("PROTOCOL_ERROR"), get(2))
sends("5.1.1", "a stream with a lower number", connection("PROTOCOL_ERROR", "STREAM_CLOSED"), slow(5), slow(3))
sends("5.1.1", "numbers may be left out", OK, get(1))


@case("5.1.1", "the highest number", OK)
def highest(peer):
    peer.headers((1 << 31) - 1)
    return peer.outcome((1 << 31) - 1)


@case("5.1.2", "more streams than SETTINGS_MAX_CONCURRENT_STREAMS", stream("REFUSED_STREAM", "PROTOCOL_ERROR"))
def concurrency(peer):
    last = peer.theirs[MAX_CONCURRENT_STREAMS] * 2 + 1
    for number in range(1, last + 1, 2):
        peer.write(slow(number))
    return peer.outcome(last)


sends("5.3", "a stream that depends on itself", stream("PROTOCOL_ERROR") | OK, frame(HEADERS, WHOLE | WITH_PRIORITY, 1, u32(1) + b"\xff" + block(GET)))
sends("5.3", "PRIORITY of a stream that depends on itself", stream("PROTOCOL_ERROR") | ALIVE_STILL, slow(), frame(PRIORITY, 0, 1, u32(1) + b"\xff"), PING_FRAME)
sends("5.4.1", "a connection error ends the connection", connection("FRAME_SIZE_ERROR"), frame(PING, 0, 0, b"short"))


@case("5.4.1", "GOAWAY names the last stream that was taken", {"5"})
def last_stream(peer):
    for number in (1, 3, 5):
        peer.write(slow(number))
    peer.send(PING, 0, 1, ALIVE)
    return str(peer.until(lambda it: it.type == GOAWAY).last_stream_id)


@case("5.4.2", "a stream error leaves other streams as they are", OK)
def other_stream(peer):
    peer.headers(1, replaced(GET, ":path", ""))
    peer.headers(3)
    return peer.outcome(3)


sends("5.5", "an unknown frame within a field block", connection("PROTOCOL_ERROR"), get(flags=END_STREAM), frame(0x16, 0, 1, b"x"))
sends("5.5", "many unknown frames", ALIVE_STILL, *[frame(0x20 + it, 0xff, 0, b"x" * it) for it in range(100)], PING_FRAME)

# --- §6: frames by type ---

sends("6.1", "DATA on stream 0", connection("PROTOCOL_ERROR"), frame(DATA, 0, 0, b"x"))
sends("6.1", "DATA with padding", OK, post(), frame(DATA, END_STREAM | PADDED, 1, b"\x06text" + b"\0" * 6))
sends("6.1", "DATA with padding as long as it is", connection("PROTOCOL_ERROR"), post(), frame(DATA, END_STREAM | PADDED, 1, b"\x05text"))
sends("6.1", "DATA with padding longer than it is", connection("PROTOCOL_ERROR"), post(), frame(DATA, END_STREAM | PADDED, 1, b"\xfftext"))
sends("6.1", "DATA that is nothing but padding", OK, post(), frame(DATA, END_STREAM | PADDED, 1, b"\x00"))
sends("6.1", "DATA that says it has padding and is empty", connection("PROTOCOL_ERROR", "FRAME_SIZE_ERROR"), post(), frame(DATA, END_STREAM | PADDED, 1, b""))
sends("6.1", "an empty DATA at the end", OK, post(), frame(DATA, 0, 1, b"text"), frame(DATA, END_STREAM, 1, b""))
sends("6.2", "HEADERS on stream 0", connection("PROTOCOL_ERROR"), get(0))
sends("6.2", "HEADERS with padding", OK, frame(HEADERS, WHOLE | PADDED, 1, b"\x08" + block(GET) + b"\0" * 8))
sends("6.2", "HEADERS with padding longer than it is", connection("PROTOCOL_ERROR"), frame(HEADERS, WHOLE | PADDED, 1, b"\xff" + block(GET)[:20]))
sends("6.2", "HEADERS that says it has padding and is empty", connection("PROTOCOL_ERROR", "FRAME_SIZE_ERROR"), frame(HEADERS, WHOLE | PADDED, 1, b""))
sends("6.2", "HEADERS with a priority", OK, frame(HEADERS, WHOLE | WITH_PRIORITY, 1, u32(0) + b"\x10" + block(GET)))
sends("6.2", "HEADERS with a priority and padding", OK, frame(HEADERS, WHOLE | WITH_PRIORITY | PADDED, 1, b"\x02" + u32(0) + b"\x10" + block(GET) + b"\0\0"))
sends("6.2", "HEADERS too short for its priority", connection("PROTOCOL_ERROR", "FRAME_SIZE_ERROR"), frame(HEADERS, WHOLE | WITH_PRIORITY, 1, b"\0\0\0"))
sends("6.3", "PRIORITY on stream 0", connection("PROTOCOL_ERROR"), frame(PRIORITY, 0, 0, u32(1) + b"\x10"))
sends("6.3", "PRIORITY of another length than 5", stream("FRAME_SIZE_ERROR"), slow(), frame(PRIORITY, 0, 1, u32(0)))
sends("6.4", "RST_STREAM on stream 0", connection("PROTOCOL_ERROR"), frame(RST_STREAM, 0, 0, u32(8)))
sends("6.4", "RST_STREAM on an idle stream", connection("PROTOCOL_ERROR"), frame(RST_STREAM, 0, 1, u32(8)))
sends("6.4", "RST_STREAM of another length than 4", connection("FRAME_SIZE_ERROR"), slow(), frame(RST_STREAM, 0, 1, u32(8)[:3]))
sends("6.4", "RST_STREAM with NO_ERROR", ALIVE_STILL, slow(), frame(RST_STREAM, 0, 1, u32(0)), PING_FRAME)
sends("6.5", "SETTINGS that acknowledges and is not empty", connection("FRAME_SIZE_ERROR"), frame(SETTINGS, ACK, 0, settings((MAX_FRAME_SIZE, 16384))))
sends("6.5", "SETTINGS on a stream", connection("PROTOCOL_ERROR"), frame(SETTINGS, 0, 1, settings((MAX_FRAME_SIZE, 16384))))
sends("6.5", "SETTINGS whose length is no multiple of 6", connection("FRAME_SIZE_ERROR"), frame(SETTINGS, 0, 0, b"\0\3\0"))
sends("6.5", "SETTINGS that are empty", ALIVE_STILL, frame(SETTINGS, 0, 0), PING_FRAME)
sends("6.5.2", "SETTINGS_ENABLE_PUSH of 2", connection("PROTOCOL_ERROR"), frame(SETTINGS, 0, 0, settings((ENABLE_PUSH, 2))))
sends("6.5.2", "SETTINGS_INITIAL_WINDOW_SIZE above 2^31-1", connection("FLOW_CONTROL_ERROR"), frame(SETTINGS, 0, 0, settings((INITIAL_WINDOW_SIZE, 1 << 31))))
sends("6.5.2", "SETTINGS_MAX_FRAME_SIZE below 2^14", connection("PROTOCOL_ERROR"), frame(SETTINGS, 0, 0, settings((MAX_FRAME_SIZE, 16383))))
sends("6.5.2", "SETTINGS_MAX_FRAME_SIZE above 2^24-1", connection("PROTOCOL_ERROR"), frame(SETTINGS, 0, 0, settings((MAX_FRAME_SIZE, 1 << 24))))
sends("6.5.2", "a setting that is not known", ALIVE_STILL, frame(SETTINGS, 0, 0, settings((0xff, 1))), PING_FRAME)
sends("6.5.2", "SETTINGS_MAX_CONCURRENT_STREAMS of 0 concerns pushes alone", OK, frame(SETTINGS, 0, 0, settings((MAX_CONCURRENT_STREAMS, 0))), get())
sends("6.5.2", "SETTINGS_HEADER_TABLE_SIZE of 0", OK, frame(SETTINGS, 0, 0, settings((HEADER_TABLE_SIZE, 0))), get())
sends("6.5.2", "SETTINGS_HEADER_TABLE_SIZE of 2^32-1", OK, frame(SETTINGS, 0, 0, settings((HEADER_TABLE_SIZE, (1 << 32) - 1))), get())


@case("6.5.3", "settings are taken in the order of their frame", {"DATA 1"})
def in_order(peer):
    peer.send(SETTINGS, 0, 0, settings((INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)))
    peer.headers()
    return data_length(peer)


def data_length(peer, number=1):
    it = peer.until(lambda it: it.stream_id == number and it.type == DATA)
    return f"DATA {len(it.data)}"


@case("6.5.3", "settings are acknowledged, each frame", {"2 ACKs"})
def acknowledged(peer):
    for _ in range(2):
        peer.send(SETTINGS, 0, 0, settings((INITIAL_WINDOW_SIZE, 1000)))
    for _ in range(2):
        peer.until(lambda it: it.type == SETTINGS and "ACK" in it.flags)
    return "2 ACKs"


sends("6.6", "PUSH_PROMISE of a client", connection("PROTOCOL_ERROR"), slow(), frame(PUSH_PROMISE, END_HEADERS, 1, u32(2) + block(GET)))
sends("6.7", "PING", ALIVE_STILL, PING_FRAME)


@case("6.7", "PING that acknowledges is not answered", {"PING"})
def ping_ack(peer):
    peer.send(PING, ACK, 0, b"not sent")
    peer.ping()
    first = peer.until(lambda it: it.type == PING)
    return "PING" if first.opaque_data == ALIVE else "answered"


sends("6.7", "PING on a stream", connection("PROTOCOL_ERROR"), frame(PING, 0, 1, ALIVE))
sends("6.7", "PING of another length than 8", connection("FRAME_SIZE_ERROR"), frame(PING, 0, 0, b"\0" * 9))


@case("6.7", "PING of another length than 8, whose head comes in two pieces", connection("FRAME_SIZE_ERROR"))
def ping_in_pieces(peer):
    wrong = frame(PING, 0, 0, b"\0" * 9)
    peer.write(PING_FRAME + wrong[:4])
    peer.outcome()
    peer.write(wrong[4:])


sends("6.8", "GOAWAY on a stream", connection("PROTOCOL_ERROR"), frame(GOAWAY, 0, 1, u32(0) + u32(0)))
sends("6.8", "GOAWAY shorter than 8", connection("FRAME_SIZE_ERROR"), frame(GOAWAY, 0, 0, u32(0)))
sends("6.8", "GOAWAY of a client that waits for its answers", OK, get(), frame(GOAWAY, 0, 0, u32(0) + u32(0) + b"bye"))
sends("6.9", "WINDOW_UPDATE by 0 on the connection", connection("PROTOCOL_ERROR"), frame(WINDOW_UPDATE, 0, 0, u32(0)))
sends("6.9", "WINDOW_UPDATE by 0 on a stream", stream("PROTOCOL_ERROR"), slow(), frame(WINDOW_UPDATE, 0, 1, u32(0)))
sends("6.9", "WINDOW_UPDATE of another length than 4", connection("FRAME_SIZE_ERROR"), frame(WINDOW_UPDATE, 0, 0, u32(1)[:3]))
sends("6.9", "the reserved bit of an increment", ALIVE_STILL, frame(WINDOW_UPDATE, 0, 0, u32(1 << 31 | 1)), PING_FRAME)
sends("6.9.1", "a window of the connection above 2^31-1", connection("FLOW_CONTROL_ERROR"), frame(WINDOW_UPDATE, 0, 0, u32((1 << 31) - 1)), frame(WINDOW_UPDATE, 0, 0, u32((1 << 31) - 1)))
sends("6.9.1", "a window of a stream above 2^31-1", stream("FLOW_CONTROL_ERROR"), slow(), frame(WINDOW_UPDATE, 0, 1, u32((1 << 31) - 1)))


@case("6.9.1", "no more than the window is sent, then the rest", {"DATA 1, DATA 4"})
def window_of_one(peer):
    peer.send(SETTINGS, 0, 0, settings((INITIAL_WINDOW_SIZE, 1)))
    peer.headers()
    first = data_length(peer)
    peer.send(WINDOW_UPDATE, 0, 1, u32(100))
    return first + ", " + data_length(peer)


@case("6.9.1", "more DATA than the stream's window", stream("FLOW_CONTROL_ERROR"))
def over_window(peer):
    window = peer.theirs.get(INITIAL_WINDOW_SIZE, 65535)
    data = frame(DATA, 0, 1, b"x" * 16384)
    # At once: the window opens again as soon as the peer takes what has come.
    peer.write(slow_post() + data * (window // 16384 + 1))


@case("6.9.1", "DATA that is nothing but padding, on and on", stream("FLOW_CONTROL_ERROR", "ENHANCE_YOUR_CALM"))
def padding_window(peer):
    peer.write(slow_post())
    for _ in range(5000):
        peer.send(DATA, PADDED, 1, b"\xff" + b"\0" * 255)


@case("6.9.2", "a larger initial window opens streams that are under way", {"DATA 5"})
def larger(peer):
    peer.send(SETTINGS, 0, 0, settings((INITIAL_WINDOW_SIZE, 0)))
    peer.headers()
    peer.until(lambda it: it.type == HEADERS)
    peer.send(SETTINGS, 0, 0, settings((INITIAL_WINDOW_SIZE, 100)))
    return data_length(peer)


@case("6.9.2", "a window may become negative", {"DATA 3, DATA 1"})
def negative(peer):
    peer.send(SETTINGS, 0, 0, settings((INITIAL_WINDOW_SIZE, 3)))
    peer.headers()
    first = data_length(peer)
    # 3 are sent, so 2 leaves -1; 2 more leave 1.
    peer.send(SETTINGS, 0, 0, settings((INITIAL_WINDOW_SIZE, 2)))
    peer.send(WINDOW_UPDATE, 0, 1, u32(2))
    return first + ", " + data_length(peer)


sends("6.9.2", "an initial window that takes a stream's above 2^31-1", connection("FLOW_CONTROL_ERROR"),
      slow(), frame(WINDOW_UPDATE, 0, 1, u32(1 << 30)), frame(SETTINGS, 0, 0, settings((INITIAL_WINDOW_SIZE, (1 << 31) - 1))))
PARTS = [block(GET)[at:at + 20] for at in range(0, len(block(GET)), 20)]
sends("6.10", "CONTINUATION, several", OK, frame(HEADERS, END_STREAM, 1, PARTS[0]), *[frame(CONTINUATION, 0, 1, it) for it in PARTS[1:]], frame(CONTINUATION, END_HEADERS, 1))
sends("6.10", "CONTINUATION behind HEADERS that are empty", OK, frame(HEADERS, END_STREAM, 1), frame(CONTINUATION, END_HEADERS, 1, block(GET)))
sends("6.10", "CONTINUATION on stream 0", connection("PROTOCOL_ERROR"), get(flags=END_STREAM), frame(CONTINUATION, END_HEADERS, 0, literal("x-a", "b")))
sends("6.10", "CONTINUATION behind HEADERS with the end", connection("PROTOCOL_ERROR", "STREAM_CLOSED"), slow(), frame(CONTINUATION, END_HEADERS, 1, literal("x-a", "b")))
sends("6.10", "CONTINUATION behind CONTINUATION with the end", connection("PROTOCOL_ERROR", "STREAM_CLOSED"),
      frame(HEADERS, END_STREAM, 1, block(replaced(GET, ":path", "/slow"))), frame(CONTINUATION, END_HEADERS, 1, b""), frame(CONTINUATION, END_HEADERS, 1, b""))
sends("6.10", "CONTINUATION behind DATA", connection("PROTOCOL_ERROR", "STREAM_CLOSED"), slow_post(), frame(DATA, 0, 1, b"x"), frame(CONTINUATION, END_HEADERS, 1, b""))
sends("7", "RST_STREAM with a code that is not known", ALIVE_STILL, slow(), frame(RST_STREAM, 0, 1, u32(0xff)), PING_FRAME)
sends("7", "GOAWAY with a code that is not known", OK, get(), frame(GOAWAY, 0, 0, u32(0) + u32(0xff)))

# --- §8: HTTP ---

sends("8.1", "GET", OK, get())
sends("8.1", "HEAD", OK, get(fields=replaced(GET, ":method", "HEAD")))
sends("8.1", "POST with a body", OK, post(), frame(DATA, END_STREAM, 1, b"text"))
sends("8.1", "POST with trailers", OK, post(), frame(DATA, 0, 1, b"text"), frame(HEADERS, WHOLE, 1, literal("x-sum", "1")))
sends("8.1", "trailers without the end of the stream", MALFORMED, post(), frame(DATA, 0, 1, b"text"), frame(HEADERS, END_HEADERS, 1, literal("x-sum", "1")))
sends("8.1", "DATA behind trailers", stream("STREAM_CLOSED"), slow_post(), frame(HEADERS, WHOLE, 1, literal("x-sum", "1")), frame(DATA, END_STREAM, 1, b"x"))
for what, length, pieces in [
    ("less DATA than content-length", "5", [b"text"]),
    ("more DATA than content-length", "3", [b"text"]),
    ("more DATA than content-length, in pieces", "5", [b"text", b"text"]),
    ("no DATA for a content-length", "4", []),
    ("DATA for a content-length of 0", "0", [b"x"]),
]:
    body = [frame(DATA, 0, 1, it) for it in pieces] + [frame(DATA, END_STREAM, 1)]
    # A request of length 0 may have been answered before the DATA comes.
    allowed = MALFORMED | OK if length == "0" else MALFORMED
    sends("8.1.1", what, allowed, post(1, ("content-length", length)), *body)
sends("8.1.1", "a content-length, and HEADERS with the end", MALFORMED, get(fields=POST + [("content-length", "4")]))
sends("8.1.1", "a content-length that is right", OK, post(1, ("content-length", "4")), frame(DATA, END_STREAM, 1, b"text"))
sends("8.1.1", "content-length of two values", MALFORMED, post(1, ("content-length", "4"), ("content-length", "5")), frame(DATA, END_STREAM, 1, b"text"))
for value in ["x", "-1", "+4", "4 ", "0x4", "4,4", ""]:
    sends("8.1.1", f"content-length {value!r}", MALFORMED, post(1, ("content-length", value)), frame(DATA, END_STREAM, 1, b"text"))
sends("8.1.1", "content-length shorter than the body before trailers", MALFORMED, post(1, ("content-length", "3")), frame(DATA, 0, 1, b"text"), frame(HEADERS, WHOLE, 1, literal("x-sum", "1")))
for what, name in [("in upper case", "X-Test"), ("with a space", "x test"), ("with a colon", "x:test"), ("with NUL", "x\0test"), ("with CR", "x\rtest"),
                   ("with LF", "x\ntest"), ("with DEL", "x\x7ftest"), ("beyond ASCII", "x\xe9"), ("that is empty", "")]:
    sends("8.2.1", f"a name {what}", MALFORMED | connection("COMPRESSION_ERROR"), get(fields=GET + [(name, "a")]))
for what, value in [("with NUL", "a\0b"), ("with CR", "a\rb"), ("with LF", "a\nb"), ("with CR LF", "a\r\nx-b: c"), ("that begins with a space", " a"),
                    ("that begins with a tab", "\ta"), ("that ends with a space", "a "), ("that ends with a tab", "a\t")]:
    sends("8.2.1", f"a value {what}", MALFORMED | connection("COMPRESSION_ERROR"), get(fields=GET + [("x-test", value)]))
sends("8.2.1", "a value beyond ASCII", OK, get(fields=GET + [("x-test", "\xe9")]))
for name, value in [("connection", "keep-alive"), ("transfer-encoding", "chunked"), ("keep-alive", "1"), ("proxy-connection", "keep-alive"), ("upgrade", "h2c"),
                    ("te", "gzip"), ("te", "trailers, deflate")]:
    sends("8.2.2", f"{name}: {value}", MALFORMED, get(fields=GET + [(name, value)]))
sends("8.2.2", "te: trailers", OK, get(fields=GET + [("te", "trailers")]))
sends("8.2.2", "transfer-encoding in trailers", MALFORMED, post(), frame(DATA, 0, 1, b"text"), frame(HEADERS, WHOLE, 1, literal("transfer-encoding", "chunked")))
sends("8.2.3", "cookies in crumbs", OK, get(fields=GET + [("cookie", "a=1"), ("cookie", "b=2")]))
sends("8.3", "a pseudo field that is not known", MALFORMED, get(fields=GET + [(":test", "a")]))
sends("8.3", "a pseudo field of responses", MALFORMED, get(fields=GET + [(":status", "200")]))
sends("8.3", "a pseudo field behind others", MALFORMED, get(fields=[("x-test", "a")] + GET))
sends("8.3", "a pseudo field in trailers", MALFORMED, post(), frame(DATA, 0, 1, b"text"), frame(HEADERS, WHOLE, 1, literal(":method", "GET")))
for name, _ in GET:
    again = dict(GET)[name]
    sends("8.3", f"{name} twice", MALFORMED, get(fields=GET + [(name, again)]))
for name in [":method", ":scheme", ":path"]:
    sends("8.3.1", f"no {name}", MALFORMED, get(fields=without(GET, name)))
sends("8.3.1", "neither :authority nor host", MALFORMED, get(fields=without(GET, ":authority")))
sends("8.3.1", "host in the place of :authority", OK, get(fields=without(GET, ":authority") + [("host", "site.test")]))
sends("8.3.1", "host that is :authority", OK, get(fields=GET + [("host", "site.test")]))
sends("8.3.1", "host that is not :authority", MALFORMED, get(fields=GET + [("host", "other.test")]))
for what, name, value in [
    ("an empty :path", ":path", ""), (":path without a slash", ":path", "page"), (":path with a space", ":path", "/a b"), (":path with a fragment", ":path", "/a#b"),
    (":path that is *, of a GET", ":path", "*"), (":path with NUL", ":path", "/\0"), (":path with a line end", ":path", "/ HTTP/1.1\r\nx-a: b"), (":path that is a URL", ":path", "http://a/"),
    ("an empty :method", ":method", ""), (":method with a space", ":method", "GET /"), (":method with a line end", ":method", "GET / HTTP/1.1\r\n"),
    ("user information in :authority", ":authority", "u@site.test"), (":authority with a space", ":authority", "site.test a"), (":authority with a path", ":authority", "site.test/a"),
    (":authority with a line end", ":authority", "a\r\nx-a: b"), (":authority with two hosts", ":authority", "a,b"), ("an empty :scheme", ":scheme", ""),
    (":scheme that is none", ":scheme", "a b"), (":scheme with a URL", ":scheme", "http://a/"),
]:
    sends("8.3.1", what, MALFORMED, get(fields=replaced(GET, name, value)))
sends("8.3.1", "OPTIONS *", OK | {"404", "405"}, get(fields=replaced(replaced(GET, ":method", "OPTIONS"), ":path", "*")))
CONNECT = [(":method", "CONNECT"), (":authority", "site.test:80")]
sends("8.5", "CONNECT", {"405", "403", "501"}, get(fields=CONNECT))
sends("8.5", "CONNECT with :path", MALFORMED, get(fields=CONNECT + [(":path", "/")]))
sends("8.5", "CONNECT with :scheme", MALFORMED, get(fields=CONNECT + [(":scheme", "http")]))
sends("8.5", "CONNECT without :authority", MALFORMED | {"405"}, get(fields=CONNECT[:1]))
sends("8.5", "CONNECT without a port", MALFORMED | {"405"}, get(fields=replaced(CONNECT, ":authority", "site.test")))
PROTOCOL = replaced(GET, ":method", "CONNECT")
sends("RFC 8441 4", "a protocol that is not known", {"400", "403", "404", "405", "501"}, get(flags=END_HEADERS, fields=PROTOCOL + [(":protocol", "gopher")]))
sends("RFC 8441 4", "a protocol of a GET", MALFORMED, get(fields=GET + [(":protocol", "websocket")]))
sends("RFC 8441 4", "a protocol without :path", MALFORMED, get(fields=without(PROTOCOL, ":path") + [(":protocol", "websocket")]))

# --- RFC 7541: HPACK ---

BAD_BLOCK = connection("COMPRESSION_ERROR")
FIELD = b"\x40" + text("x-a") + text("b")
sends("HPACK 2.3.3", "an index beyond the tables", BAD_BLOCK, raw(b"\xc6"))
sends("HPACK 2.3.3", "a name's index beyond the tables", BAD_BLOCK, raw(b"\x7f\x87\x01" + text("a")))
sends("HPACK 2.3.3", "an index of the dynamic table", OK, raw(FIELD + b"\xbe"))
sends("HPACK 4.1", "a field larger than the table empties it", BAD_BLOCK, raw(FIELD + b"\x40" + text("x-b") + text("b" * 5000) + b"\xbe"))
sends("HPACK 4.2", "an update of the table's size behind a field", BAD_BLOCK, raw(b"\x20"))
sends("HPACK 4.2", "an update of the table's size at the begin", OK, frame(HEADERS, WHOLE, 1, integer(100, 5, 0x20) + block(GET)))
sends("HPACK 4.2", "two updates at the begin", OK, frame(HEADERS, WHOLE, 1, b"\x20" + integer(4096, 5, 0x20) + block(GET)))


@case("HPACK 4.3", "an update to 0 empties the table", BAD_BLOCK)
def emptied(peer):
    peer.write(raw(FIELD))
    peer.outcome()
    peer.write(frame(HEADERS, WHOLE, 3, b"\x20" + block(GET) + b"\xbe"))
    return peer.outcome()


sends("HPACK 5.1", "an integer that does not end", BAD_BLOCK, raw(b"\xff" + b"\xff" * 12))
sends("HPACK 5.1", "an integer above 2^32", BAD_BLOCK, raw(b"\xff\xff\xff\xff\xff\x7f"))
sends("HPACK 5.2", "a string longer than the block", BAD_BLOCK, raw(b"\0\x03x-a\x7f\x00a"))
sends("HPACK 5.2", "Huffman padding of more than 7 bits", BAD_BLOCK, raw(b"\0" + text("x-a") + b"\x82\x1f\xff"))
sends("HPACK 5.2", "Huffman padding that is not of ones", BAD_BLOCK, raw(b"\0" + text("x-a") + b"\x81\x18"))
sends("HPACK 5.2", "Huffman with the end of string", BAD_BLOCK, raw(b"\0" + text("x-a") + b"\x84\xff\xff\xff\xff"))
sends("HPACK 6.1", "index 0", BAD_BLOCK, raw(b"\x80"))
sends("HPACK 6.1", "indexed fields", OK, frame(HEADERS, WHOLE, 1, b"\x82\x86\x84\x41" + text("site.test")))
sends("HPACK 6.2.1", "literal, indexed, with a new name", OK, raw(FIELD))
sends("HPACK 6.2.1", "literal, indexed, with Huffman", OK, frame(HEADERS, WHOLE, 1, b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"))
sends("HPACK 6.2.2", "literal, not indexed, with the table's name", OK, raw(b"\x0f\x2b" + text("agent")))
sends("HPACK 6.2.3", "literal, never indexed", OK, raw(b"\x10" + text("x-a") + text("b")))
sends("HPACK 6.3", "an update of the table's size above SETTINGS_HEADER_TABLE_SIZE", BAD_BLOCK, frame(HEADERS, WHOLE, 1, integer(4097, 5, 0x20) + block(GET)))


@case("HPACK 2.2", "a field lives in the table from one request to the next", OK)
def table(peer):
    peer.write(raw(FIELD))
    peer.outcome()
    peer.write(raw(b"\xbe", 3))
    return peer.outcome(3)
