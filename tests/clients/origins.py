"""Origins in Python: a WebSocket echo and a gRPC service. Prints their addresses as JSON, and serves until standard input ends."""

import json
import sys
import threading
from concurrent import futures

import grpc
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve


def echo(socket):
    if socket.request.path.endswith("/close"):
        socket.close(4001, "asked for")
        return
    try:
        for message in socket:
            socket.send(message)
    except ConnectionClosed:
        pass  # The client's code is another than 1000.


class Failure(grpc.Status):
    """Status of a call that fails, with details (google.rpc.Status, encoded) in its trailers."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    details = "no: über 100 %"
    trailing_metadata = (("grpc-status-details-bin", b"\x08\x03\x12\x02no\x00\xff"), ("x-reason", "test"))


cancelled = threading.Semaphore(0)


def unary(request, context):
    context.send_initial_metadata((("x-greeting", "hi"),))
    context.set_trailing_metadata((("x-bytes", str(len(request))),))
    return request.upper()


def counts(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def joins(requests, context):
    return b",".join(requests)


def echoes(requests, context):
    for request in requests:
        yield request


def waits(request, context):
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait()
    cancelled.release()
    return b""


def knows_cancelled(request, context):
    """Answers when a call that waited has ended."""
    return b"yes" if cancelled.acquire(timeout=10) else b"no"


def fails(request, context):
    context.abort_with_status(Failure())


HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Counts": grpc.unary_stream_rpc_method_handler(counts),
    "Joins": grpc.stream_unary_rpc_method_handler(joins),
    "Echoes": grpc.stream_stream_rpc_method_handler(echoes),
    "Waits": grpc.unary_unary_rpc_method_handler(waits),
    "Cancelled": grpc.unary_unary_rpc_method_handler(knows_cancelled),
    "Fails": grpc.unary_unary_rpc_method_handler(fails),
}


def main():
    calls = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    calls.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("castling.Test", HANDLERS),))
    grpc_port = calls.add_insecure_port("127.0.0.1:0")
    calls.start()
    with serve(echo, "127.0.0.1", 0, max_size=None) as sockets:
        threading.Thread(target=sockets.serve_forever, daemon=True).start()
        echo_port = sockets.socket.getsockname()[1]
        print(json.dumps({"echo": f"127.0.0.1:{echo_port}", "grpc": f"127.0.0.1:{grpc_port}"}), flush=True)
        sys.stdin.read()
    calls.stop(None)


main()
