"""An HTTP/2 client for tests, whose requests overlap on one connection."""

import json

import h2.config
import h2.connection
import h2.events


class Http2:
    """One connection: a socket, plain or with TLS, on which HTTP/2 was agreed.

    Attributes:
        status: of the responses that have begun, by stream.
        ended: the streams whose responses are complete, in the order of their ends.
    """

    def __init__(self, sock, scheme="https"):
        self._sock = sock
        self._scheme = scheme
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration())
        self._h2.initiate_connection()
        self._flush()
        self._bodies = {}
        self.status = {}
        self.ended = []

    def get(self, path):
        """Send a request; gives its stream."""
        return self._send(True, method="GET", path=path)

    def connect(self, path):
        """Ask for a WebSocket (:rfc:`8441`); gives its stream once it is accepted."""
        headers = [("sec-websocket-version", "13")]
        self._receive_until(lambda: self._h2.remote_settings.enable_connect_protocol)
        protocol = {"method": "CONNECT", "protocol": "websocket"}
        stream = self._send(False, *headers, **protocol, path=path)
        self._receive_until(lambda: stream in self.status)
        assert self.status[stream] == b"200"
        return stream

    def _send(self, ends, *headers, **pseudo):
        stream = self._h2.get_next_available_stream_id()
        pseudo |= {"scheme": self._scheme, "authority": "localhost"}
        named = [(f":{name}", value) for name, value in pseudo.items()]
        self._h2.send_headers(stream, [*named, *headers], end_stream=ends)
        self._bodies[stream] = b""
        self._flush()
        return stream

    def write(self, stream, data, end=False):
        """Send a part of a body, or bytes of a WebSocket."""
        self._h2.send_data(stream, data, end_stream=end)
        self._flush()

    def read(self, stream, size):
        """The next ``size`` bytes of a response that goes on."""
        self._receive_until(lambda: len(self._bodies[stream]) >= size)
        data = self._bodies[stream]
        self._bodies[stream] = data[size:]
        return data[:size]

    def json(self, stream):
        """What the body of a response says, once it is complete."""
        self._receive_until(lambda: stream in self.ended)
        assert self.status[stream] == b"200"
        return json.loads(self._bodies[stream])

    def _receive_until(self, condition):
        while not condition():
            data = self._sock.recv(65_536)
            assert data, "the server closed the connection"
            for event in self._h2.receive_data(data):
                self._handle(event)
            self._flush()

    def _handle(self, event):
        if isinstance(event, h2.events.ResponseReceived):
            self.status[event.stream_id] = dict(event.headers)[b":status"]
        elif isinstance(event, h2.events.DataReceived):
            self._bodies[event.stream_id] += event.data
            self._h2.acknowledge_received_data(
                event.flow_controlled_length, event.stream_id
            )
        elif isinstance(event, h2.events.StreamEnded):
            self.ended.append(event.stream_id)

    def _flush(self):
        self._sock.sendall(self._h2.data_to_send())
