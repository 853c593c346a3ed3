"""Habits of Go's HTTP/2 client that have tripped gateways: RST_STREAM with a PING for each body that is not read to its end, and
bursts of SETTINGS and PING. The connection must live through them. Raw frames: Python's h2 resets a stream anew for each DATA that
comes late, which Go does not."""

import hyperframe

from client import Site, done, expect
from frames import GET, HEADERS, INITIAL_WINDOW_SIZE, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, Peer, frame, replaced, settings, u32

CANCELS = 1000
BURST = 500
CANCEL = u32(8)


def cancel(peer, stream, path):
    """As Go's `cleanupWriteRequest`: the reset, and a ping that tells when the server has seen it."""
    peer.headers(stream, replaced(GET, ":path", path))
    if path == "/large":
        peer.until(lambda it: it.type == HEADERS and it.stream_id == stream)
    peer.write(frame(RST_STREAM, 0, stream, CANCEL) + frame(PING, 0, 0, b"is alive"))
    expect(peer.outcome(0), "PING", f"what stream {stream} brings")


def bursts(peer):
    """Pings to keep a connection alive, and settings, all at once."""
    changes = [frame(SETTINGS, 0, 0, settings((INITIAL_WINDOW_SIZE, 65535 + number))) for number in range(BURST)]
    peer.write(b"".join(it + frame(PING, 0, 0, b"not seen") for it in changes))
    left = {PING: BURST, SETTINGS: BURST}
    while any(left.values()):
        it = peer.until(lambda it: it.type in left and it.flags)
        left[it.type] -= 1


def main():
    site = Site()
    # Windows as Go opens them.
    peer = Peer(site.endpoint(site.plain), (INITIAL_WINDOW_SIZE, 4 << 20))
    peer.send(WINDOW_UPDATE, 0, 0, u32(1 << 30))
    for number in range(CANCELS):
        # Half before the response, half within its body; a request is read to its end after each.
        cancel(peer, 4 * number + 1, "/slow" if number % 2 else "/large")
        peer.headers(4 * number + 3)
        expect(peer.outcome(4 * number + 3), "200", f"request {number}")
    bursts(peer)
    done(f"hyperframe {hyperframe.__version__}", f"{CANCELS} requests cancelled with RST_STREAM and PING on one connection, {CANCELS} served between them, {BURST} SETTINGS and PING at once")


main()
