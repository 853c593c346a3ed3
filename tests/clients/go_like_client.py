"""Habits of Go's HTTP/2 client that have tripped gateways: RST_STREAM with a PING for each body that is not read to its end, and
bursts of SETTINGS and PING. The connection must live through them."""

import socket

import h2
import h2.config
import h2.connection
import h2.errors
import h2.events

from client import Site, done

CANCELS = 1000
BURST = 500


class Connection:
    def __init__(self, address):
        self.socket = socket.create_connection(address, timeout=30)
        # As Go's: else a reset waits for the acknowledgement of its request.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def get(self, path):
        stream = self.h2.get_next_available_stream_id()
        fields = [(":method", "GET"), (":scheme", "http"), (":authority", "site.test"), (":path", path)]
        self.h2.send_headers(stream, fields, end_stream=True)
        return stream

    def until(self, is_it):
        """Reads up to an event, and tells how many came at once; a connection that ends is a failure."""
        while True:
            bytes_read = self.socket.recv(65536)
            if not bytes_read:
                raise SystemExit("the gateway has closed the connection")
            events = self.h2.receive_data(bytes_read)
            for event in events:
                if isinstance(event, h2.events.ConnectionTerminated):
                    raise SystemExit(f"GOAWAY: {event.error_code!r} {event.additional_data!r}")
                if isinstance(event, h2.events.DataReceived):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self.flush()
            found = sum(is_it(event) for event in events)
            if found:
                return found

    def cancel(self, path, number):
        """Go's `cleanupWriteRequest`: the reset, and a ping that tells when the server has seen it."""
        stream = self.get(path)
        self.flush()
        if path == "/large":
            self.until(lambda event: isinstance(event, h2.events.ResponseReceived) and event.stream_id == stream)
        self.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        self.h2.ping(number.to_bytes(8, "big"))
        self.flush()
        self.until(lambda event: isinstance(event, h2.events.PingAckReceived))


def main():
    site = Site()
    connection = Connection(site.endpoint(site.plain))
    for number in range(CANCELS):
        # Half before the response, half with a body that is not read; a request is read to its end after each.
        connection.cancel("/slow" if number % 2 else "/large", number)
        stream = connection.get("/")
        connection.flush()
        connection.until(lambda event: isinstance(event, h2.events.StreamEnded) and event.stream_id == stream)
    # Keep-alive pings and windows of a busy connection.
    for number in range(BURST):
        connection.h2.ping(number.to_bytes(8, "big"))
        connection.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 65535 + number})
    connection.flush()
    acks = 0
    while acks < 2 * BURST:
        acks += connection.until(lambda event: isinstance(event, (h2.events.SettingsAcknowledged, h2.events.PingAckReceived)))
    done(h2.__version__, f"{CANCELS} requests cancelled with RST_STREAM and PING on one connection, {CANCELS} served between them, {BURST} SETTINGS and PING at once")


main()
