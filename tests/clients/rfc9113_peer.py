"""Runs the cases of `rfc9113_peer_cases.py`: the gateway is the client, this is its peer and its client."""

import socket

import hyperframe

from client import Site
from frames import ACK, HEADERS, INITIAL_WINDOW_SIZE, PREFACE, SETTINGS, WAIT, Closed, Peer, settings
from report import report
from rfc9113_peer_cases import CASES, DEVIATIONS, HEAD_ROOT, POST_ROOT, SOMETIMES


class Server(Peer):
    """The other end of a connection that the gateway has made, which has its request."""

    def __init__(self, accepted, *values):
        self.adopt(accepted)
        if self.exactly(len(PREFACE)) != PREFACE:
            raise SystemExit("the gateway sends no preface")
        self.send(SETTINGS, 0, 0, settings(*values))
        self.send(SETTINGS, ACK, 0)
        self.until(lambda it: it.type == HEADERS)

    def end(self):
        """Ends the connection, and waits until the gateway has, so that no other request takes it."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
            while self.socket.recv(65536):
                pass
        except OSError:
            pass
        self.socket.close()


def answer(client, request):
    """Status of the answer to the gateway's client, or `cut`, where that sees that something is missing."""
    data = b""
    try:
        while more := client.recv(65536):
            data += more
    except ConnectionResetError:
        pass
    except TimeoutError:
        return "nothing"
    status = "closed"
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        status, fields = parsed(head)
        if not status.startswith("1"):
            return status if request == HEAD_ROOT or status == "304" or is_whole(data, fields) else "cut"
    return status


def parsed(head):
    first, *lines = head.decode("latin-1").lower().split("\r\n")
    return first.split(" ")[1], dict(line.split(": ", 1) for line in lines)


def is_whole(body, fields):
    if "transfer-encoding" in fields:
        return body.startswith(b"0\r\n") or b"\r\n0\r\n" in body
    return len(body) == int(fields.get("content-length", len(body)))


def run(site, listener, request, act):
    client = socket.create_connection(site.endpoint(site.plain), timeout=WAIT)
    client.sendall(request)
    # A window of 1 keeps streams with a body open.
    values = [(INITIAL_WINDOW_SIZE, 1)] if request == POST_ROOT else []
    peer = Server(listener.accept()[0], *values)
    peer.next = lambda: Server(listener.accept()[0], *values)
    try:
        told = act(peer)
        outcome = told if isinstance(told, str) else peer.outcome()
    except Closed:
        outcome = "closed"
    except TimeoutError:
        outcome = "nothing"
    try:
        return answer(client, request), outcome
    finally:
        client.close()
        peer.end()


def main():
    site = Site()
    listener = socket.create_server(site.endpoint(site.frames))
    listener.settimeout(WAIT)
    cases = []
    for section, what, answers, outcomes, request, act in CASES:
        try:
            got = run(site, listener, request, act)
        except Closed:
            got = ("no request", "closed")
        is_allowed = got[0] in answers and got[1] in outcomes
        expected = f"{' or '.join(sorted(answers))}, {' or '.join(sorted(outcomes))}"
        cases.append((section, what, ", ".join(got), is_allowed, expected))
    report(f"hyperframe {hyperframe.__version__}", cases, DEVIATIONS, SOMETIMES)


main()
