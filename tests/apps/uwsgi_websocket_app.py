"""The application of ``websocket_app``, as it may stand in a process of uWSGI's."""

import websocket_app
from pyramid.config import Configurator
from pyramid.response import Response


async def hasty(request):
    """Answers once, with a page that nobody gets."""
    await request.websocket.send(await request.websocket.recv())
    return Response("nobody sees this" * 10_000)


async def broken(request):
    """Fails when it has been accepted."""
    await request.websocket.recv()
    raise websocket_app.Expected("in the view")


def views():
    """An application of its own."""
    with Configurator() as config:
        config.include("aioext")
        config.add_view(hasty, name="hasty")
        config.add_view(broken, name="broken")
        return config.make_wsgi_app()


def in_threads():
    """Every request runs in a thread, but for the handlers of its WebSockets."""
    return websocket_app.make(**{"aioext.sync_views": "request"})


def wrapped():
    """Within WSGI middleware that adds a header, and looks at the body."""
    app = websocket_app.make()

    def middleware(environ, start_response):
        def start(status, headers, *exc_info):
            return start_response(status, [*headers, ("X-Outside", "1")], *exc_info)

        body = app(environ, start)
        try:
            yield from body
        finally:
            if hasattr(body, "close"):
                body.close()

    return middleware
