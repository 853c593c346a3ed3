"""A peer that writes HTTP/2 frames one by one, also such as no peer should, and tells what becomes of the connection."""

import socket

from hpack import Decoder, HPACKError
from hyperframe.frame import Frame

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ACK = END_STREAM = 1
END_HEADERS = 4
PADDED = 8
WITH_PRIORITY = 0x20
WHOLE = END_STREAM | END_HEADERS

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(1, 7)

CODES = [
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
    "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ALIVE = b"is alive"

GET = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "site.test")]
POST = [(":method", "POST"), (":scheme", "http"), (":path", "/echoed"), (":authority", "site.test")]

#: Longest wait for a frame. Only a case that fails waits for it.
WAIT = 10


def u32(number):
    return number.to_bytes(4, "big")


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + u32(stream) + payload


def text(value):
    """A string literal, not compressed (RFC 7541 §5.2)."""
    value = value.encode("latin-1") if isinstance(value, str) else value
    return integer(len(value), 7) + value


def integer(number, prefix, first=0):
    """RFC 7541 §5.1; `first` has the bits above the prefix."""
    most = (1 << prefix) - 1
    if number < most:
        return bytes([first | number])
    encoded, number = [first | most], number - most
    while number >= 128:
        encoded.append(number % 128 | 128)
        number //= 128
    return bytes(encoded + [number])


def literal(name, value):
    """A field that is not indexed (RFC 7541 §6.2.2)."""
    return b"\0" + text(name) + text(value)


def block(fields):
    return b"".join(literal(name, value) for name, value in fields)


def replaced(fields, name, value):
    """The same fields with another value of one."""
    return [(it, value if it == name else old) for it, old in fields]


def settings(*values):
    return b"".join(key.to_bytes(2, "big") + u32(value) for key, value in values)


class Closed(Exception):
    """The gateway has ended the connection."""


class Peer:
    """A connection that has sent its preface and settings, and has the gateway's."""

    def __init__(self, address, *values, begun=True):
        self.adopt(socket.create_connection(address, timeout=WAIT))
        if begun:
            self.write(PREFACE)
            self.send(SETTINGS, 0, 0, settings(*values))
            first = self.read()
            if first.type != SETTINGS:
                raise SystemExit(f"the gateway begins with {first}")
            self.theirs = dict(first.settings)
            self.send(SETTINGS, ACK, 0)
            self.until(lambda it: it.type == SETTINGS and "ACK" in it.flags)

    def adopt(self, connected):
        self.socket = connected
        self.socket.settimeout(WAIT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.decoder = Decoder()
        self.theirs = {}

    def write(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # What the gateway has said is still to be read.

    def send(self, kind, flags, stream, payload=b""):
        self.write(frame(kind, flags, stream, payload))

    def headers(self, stream=1, fields=GET, flags=WHOLE):
        self.send(HEADERS, flags, stream, block(fields))

    def ping(self):
        self.send(PING, 0, 0, ALIVE)

    def exactly(self, count):
        data = b""
        while len(data) < count:
            try:
                more = self.socket.recv(count - len(data))
            except ConnectionResetError:
                more = b""
            if not more:
                raise Closed
            data += more
        return data

    def read(self):
        """The next frame, its field block decoded."""
        head, length = Frame.parse_frame_header(memoryview(self.exactly(9)))
        head.parse_body(memoryview(self.exactly(length)))
        head.fields = []
        if head.type in (HEADERS, CONTINUATION):
            try:
                head.fields = self.decoder.decode(head.data)
            except HPACKError:
                pass  # The block goes on in the next frame.
        if head.type == PING and "ACK" not in head.flags:
            self.send(PING, ACK, 0, head.opaque_data)
        return head

    def until(self, is_it):
        while True:
            it = self.read()
            if is_it(it):
                return it

    def outcome(self, stream=1):
        """What becomes of a stream and its connection: `GOAWAY code`, `RST_STREAM code`, a status, `PING` or `closed`."""
        status, self.body = "", b""
        try:
            while True:
                it = self.read()
                if it.type == GOAWAY:
                    return f"GOAWAY {code(it.error_code)}" + self.ends()
                if it.type == PING and "ACK" in it.flags and it.opaque_data == ALIVE:
                    return "PING"
                if it.stream_id != stream:
                    continue
                if it.type == RST_STREAM:
                    return f"RST_STREAM {code(it.error_code)}" + self.lives()
                if it.type == HEADERS and not status.startswith(("2", "3", "4", "5")):
                    status = dict(it.fields).get(":status", "?")
                if it.type == DATA:
                    self.body += it.data
                if it.type in (HEADERS, DATA) and "END_STREAM" in it.flags:
                    return status
        except Closed:
            return "closed"
        except TimeoutError:
            return "nothing"

    def ends(self):
        """A connection error is followed by the end of the connection (§5.4.1)."""
        try:
            while True:
                self.read()
        except Closed:
            return ""
        except TimeoutError:
            return ", and the connection stays open"

    def lives(self):
        """An error of a stream leaves the connection as it is (§5.4.2)."""
        self.ping()
        try:
            it = self.until(lambda it: it.type == GOAWAY or it.type == PING and "ACK" in it.flags)
        except (Closed, TimeoutError):
            return ", and the connection ends"
        return "" if it.type == PING else f", GOAWAY {code(it.error_code)}"


def code(number):
    return CODES[number] if number < len(CODES) else str(number)
