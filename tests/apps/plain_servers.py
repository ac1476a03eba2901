"""Small WSGI servers, run as ``python -m plain_servers KIND module:factory``.

``wsgiref``
    The standard library's: one request at a time, in the main thread.
``threads``
    The same, with a thread for each request.
``foreign``
    The same, in threads that Python has not made, and that it knows only while they
    call into it: as those of mod_wsgi.
"""

import ctypes
import importlib
import queue
import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

THREADS = 8


class Handler(WSGIRequestHandler):
    """One that does not look up names."""

    def address_string(self):
        return self.client_address[0]


class Threading(ThreadingMixIn, WSGIServer):
    """A thread for each request."""

    daemon_threads = True


class Foreign(WSGIServer):
    """A pool of threads that were made in C."""

    def __init__(self, *args):
        super().__init__(*args)
        self._requests = queue.SimpleQueue()
        # Each call from C is one request, for which Python makes what it keeps about
        # a thread, and drops it.
        self._serve_one = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(self._one)
        for _ in range(THREADS):
            self._start()

    def _start(self):
        thread = ctypes.c_ulong()
        create = ctypes.CDLL(None).pthread_create
        assert create(ctypes.byref(thread), None, self._serve_one, None) == 0

    def _one(self, _):
        request, address = self._requests.get()
        try:
            self.finish_request(request, address)
        except Exception:
            self.handle_error(request, address)
        finally:
            self.shutdown_request(request)
            self._start()
        return 0

    def process_request(self, request, client_address):
        self._requests.put((request, client_address))


SERVERS = {"wsgiref": WSGIServer, "threads": Threading, "foreign": Foreign}


def multithreaded(app):
    """Says what wsgiref does not know."""

    def told(environ, start_response):
        return app({**environ, "wsgi.multithread": True}, start_response)

    return told


def main(kind, name):
    module, _, factory = name.partition(":")
    app = getattr(importlib.import_module(module), factory)()
    if kind != "wsgiref":
        app = multithreaded(app)
    server = make_server("127.0.0.1", 0, app, SERVERS[kind], Handler)
    sys.stdout.write(f"serving on http://127.0.0.1:{server.server_port}\n")
    sys.stdout.flush()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    server.server_close()


if __name__ == "__main__":
    main(*sys.argv[1:])
