"""The client of `websockets`: messages, sizes, pings and codes of closing, over ws and wss."""

import socket
import ssl

import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from client import Site, done, expect

SIZES = [0, 1, 125, 126, 65_535, 65_536, 1_000_000, 16_000_000]


def exchange(url, ssl=None, address=None):
    def opened(path=""):
        options = {"sock": socket.create_connection(address), "ssl": ssl} if address else {}
        return connect(url + path, max_size=None, **options)

    with opened() as client:
        for size in SIZES:
            message = bytes(range(256)) * (size // 256 + 1)
            client.send(message[:size])
            expect(client.recv(timeout=30), message[:size], f"a message of {size} bytes")
        client.send(["in ", "frag", "ments"])
        expect(client.recv(timeout=30), "in fragments", "a text in fragments")
        expect(client.ping(b"payload").wait(30), True, "a pong")
        client.close(4002, "enough")
        expect((client.close_code, client.close_reason), (4002, "enough"), "the client's close")
    with opened("/close") as client:
        try:
            client.recv(timeout=30)
        except ConnectionClosed as closed:
            expect((closed.rcvd.code, closed.rcvd.reason), (4001, "asked for"), "the server's close")


def refused(url):
    """A route without WebSockets answers as it does any request."""
    try:
        connect(url)
    except InvalidStatus as status:
        return status.response.status_code
    return 101


def main():
    site = Site()
    tls = ssl.create_default_context(cafile=site.ca)
    exchange(f"ws://{site.plain}/echo")
    host, port = site.endpoint(site.tls)
    exchange(f"wss://{site.name}:{port}/echo", ssl=tls, address=(host, port))
    expect(refused(f"ws://{site.plain}/"), 200, "a route without WebSockets")
    done(websockets.__version__, f"ws and wss: {len(SIZES)} sizes up to 16 MB echoed, fragments, ping and pong, both sides' close codes")


main()
