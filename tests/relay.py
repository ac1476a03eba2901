"""A TCP connection that can be cut: a relay between a client and a server.

::

    with Relay(server.port) as relay:
        ...  # the client talks to relay.port
        relay.cut()
        ...  # what it had open is closed, and what it opens is closed at once
        relay.mend()
"""

import socket
import threading
from contextlib import suppress


class Relay:
    """Passes on, in both directions, what comes on 127.0.0.1.

    Args:
        target: the port of the server, on 127.0.0.1.

    Attributes:
        port: where to connect to.
    """

    def __init__(self, target):
        self._target = target
        self._is_cut = False
        self._sockets = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = []
        self._start(self._accept)

    def cut(self):
        """Close every connection, and those that come from now on."""
        with self._lock:
            self._is_cut = True
            for each in self._sockets:
                _shut(each)

    def mend(self):
        """Let connections through again."""
        with self._lock:
            self._is_cut = False

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.cut()
        _shut(self._listener)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _start(self, function, *arguments):
        thread = threading.Thread(target=function, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        # The accepting ends with an error, when the listener is shut.
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._start(self._relay, client)

    def _relay(self, client):
        with client, suppress(OSError):
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                if self._register(client, server):
                    back = threading.Thread(target=_pass_on, args=(server, client))
                    back.start()
                    _pass_on(client, server)
                    back.join()
                with self._lock:
                    self._sockets -= {client, server}

    def _register(self, *sockets):
        with self._lock:
            if not self._is_cut:
                self._sockets.update(sockets)
            return not self._is_cut


def _pass_on(source, target):
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    _shut(source)
    _shut(target)


def _shut(each):
    # Unlike close(), this wakes a thread that waits for the socket.
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
