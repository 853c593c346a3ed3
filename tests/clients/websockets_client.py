"""The client of `websockets`: messages, sizes, pings and codes of closing, over ws and wss."""

import asyncio
import socket
import ssl

import websockets
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from client import Site, done, expect

SIZES = [0, 1, 125, 126, 65_535, 65_536, 1_000_000, 16_000_000]


# The library's client with threads reads and writes one TLS object from two of them, which Python's before 3.13 does not
# take: now and then a request never leaves.
async def exchange(url, ssl=None, address=None):
    def opened(path=""):
        options = {"sock": socket.create_connection(address), "ssl": ssl} if address else {}
        return connect(url + path, max_size=None, **options)

    async with asyncio.timeout(60):
        async with opened() as client:
            for size in SIZES:
                message = bytes(range(256)) * (size // 256 + 1)
                await client.send(message[:size])
                expect(await client.recv(), message[:size], f"a message of {size} bytes")
            await client.send(["in ", "frag", "ments"])
            expect(await client.recv(), "in fragments", "a text in fragments")
            expect(await (await client.ping(b"payload")) > 0, True, "a pong")
            await client.close(4002, "enough")
            expect((client.close_code, client.close_reason), (4002, "enough"), "the client's close")
        async with opened("/close") as client:
            try:
                await client.recv()
            except ConnectionClosed as closed:
                expect((closed.rcvd.code, closed.rcvd.reason), (4001, "asked for"), "the server's close")


async def refused(url):
    """A route without WebSockets answers as it does any request."""
    try:
        await connect(url)
    except InvalidStatus as status:
        return status.response.status_code
    return 101


async def main():
    site = Site()
    tls = ssl.create_default_context(cafile=site.ca)
    await exchange(f"ws://{site.plain}/echo")
    host, port = site.endpoint(site.tls)
    await exchange(f"wss://{site.name}:{port}/echo", ssl=tls, address=(host, port))
    expect(await refused(f"ws://{site.plain}/"), 200, "a route without WebSockets")
    done(websockets.__version__, f"ws and wss: {len(SIZES)} sizes up to 16 MB echoed, fragments, ping and pong, both sides' close codes")


asyncio.run(main())
