"""The client of grpcio: calls of all four kinds, deadlines, cancelling, errors; by TLS and without."""

import threading

import grpc

from client import Site, done, expect

TIMEOUT = 30


def method(channel, kind, name, service="castling.Test"):
    return getattr(channel, kind)(f"/{service}/{name}")


def failure(call):
    """The error that a call ends with."""
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise SystemExit("a call succeeded that should not")


def calls(channel):
    unary = method(channel, "unary_unary", "Unary")
    answer, call = unary.with_call(b"hello", timeout=TIMEOUT, metadata=(("x-a-bin", b"\0\xff"),))
    expect(answer, b"HELLO", "a unary call")
    expect(dict(call.initial_metadata())["x-greeting"], "hi", "its first metadata")
    expect(dict(call.trailing_metadata())["x-bytes"], "5", "its last metadata")
    large = b"m" * 3_000_000
    expect(unary(large, timeout=TIMEOUT), large.upper(), "a message of 3 MB")
    counted = list(method(channel, "unary_stream", "Counts")(b"1000", timeout=TIMEOUT))
    expect(counted, [b"%d" % number for number in range(1000)], "a stream of the server")
    parts = [b"%d" % number for number in range(1000)]
    joined = method(channel, "stream_unary", "Joins")(iter(parts), timeout=TIMEOUT)
    expect(joined, b",".join(parts), "a stream of the client")
    both_ways(channel)


def both_ways(channel):
    """Each message is sent when the one before has come back."""
    came = threading.Semaphore(1)

    def messages():
        for number in range(100):
            came.acquire()
            yield b"%d" % number

    echoed = []
    for message in method(channel, "stream_stream", "Echoes")(messages(), timeout=TIMEOUT):
        echoed.append(message)
        came.release()
    expect(echoed, [b"%d" % number for number in range(100)], "messages both ways")


def endings(channel):
    waits = method(channel, "unary_unary", "Waits")
    cancelled = method(channel, "unary_unary", "Cancelled")
    error = failure(lambda: waits(b"", timeout=0.3))
    expect(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED, "a deadline")
    expect(cancelled(b"", timeout=TIMEOUT), b"yes", "the origin is told of the deadline")
    call = waits.future(b"", timeout=TIMEOUT)
    threading.Timer(0.2, call.cancel).start()
    try:
        call.result()
    except grpc.FutureCancelledError:
        pass
    expect(call.code(), grpc.StatusCode.CANCELLED, "a call that is cancelled")
    expect(cancelled(b"", timeout=TIMEOUT), b"yes", "the origin is told of the cancelling")
    error = failure(lambda: method(channel, "unary_unary", "Fails")(b"", timeout=TIMEOUT))
    expect((error.code(), error.details()), (grpc.StatusCode.INVALID_ARGUMENT, "no: über 100 %"), "an error")
    trailers = dict(error.trailing_metadata())
    expect(trailers["grpc-status-details-bin"], b"\x08\x03\x12\x02no\x00\xff", "its details")
    error = failure(lambda: method(channel, "unary_unary", "None")(b"", timeout=TIMEOUT))
    expect(error.code(), grpc.StatusCode.UNIMPLEMENTED, "a method that is not there")
    error = failure(lambda: method(channel, "unary_unary", "Any", "castling.Dead")(b"", timeout=TIMEOUT))
    expect(error.code(), grpc.StatusCode.UNAVAILABLE, "a peer that is not there")


def many(channel):
    """More calls at once than the gateway lets a connection have streams."""
    unary = method(channel, "unary_unary", "Unary")
    begun = [unary.future(b"%d" % number, timeout=TIMEOUT) for number in range(500)]
    expect([call.result() for call in begun], [b"%d" % number for number in range(500)], "500 calls at once")


def main():
    site = Site()
    with open(site.ca, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    by_name = (("grpc.ssl_target_name_override", site.name),)
    for channel in (grpc.insecure_channel(site.plain), grpc.secure_channel(site.tls, credentials, by_name)):
        with channel:
            calls(channel)
            endings(channel)
            many(channel)
    done(grpc.__version__, "with TLS and without: unary, streams of server, client and both, deadline, cancelling, error details, UNAVAILABLE of a dead peer, 500 calls at once")


main()
