"""A response that sends a file, without blocking the loop.

Theory of operation
===================

A small file is one piece of bytes, from memory where it is known (:mod:`.files`): then
neither a thread nor a system call is needed. A larger one is opened, in a thread of the
executor, when the response is made, and its length, time and ETag are those of the file
that is open, whatever becomes of its name. What the server does with it is its own:

* a WSGI server that has ``wsgi.file_wrapper`` gets the file, and sends it as it likes
  (gunicorn and uWSGI by ``sendfile``);
* an ASGI server that has ``http.response.pathsend`` gets the path, from the
  :class:`~aioext.gateway.Gateway`;
* everywhere else, and for a range, :class:`~aioext.body.FileBody` reads a block in a
  thread for each that the client has taken.

Conditions and ranges are looked at when the server asks for the response, so that they
hold for the headers that it has by then, and for another ETag that the view has set.

Things that do not work
=======================

* To open the file when its first block is asked for: its length has been told by then,
  and another file may have come into its place.
* To hand a range to ``wsgi.file_wrapper``: uWSGI begins at the first byte all the same.
"""

from __future__ import annotations

import contextlib
import mimetypes
import os
from collections.abc import Iterable
from typing import Any

from pyramid.response import Response
from pyramid.threadlocal import get_current_registry

from .. import conditional
from ..body import FileBody, FileWrapper
from ..ending import when_over
from ..executor import current_executor
from .files import Entry, Files, files_of, open_file
from .spec import ensure_built, locate

__all__ = ["FileResponse", "close_unsent", "guess_type", "open_body"]

DEFAULT_TYPE = "application/octet-stream"


class FileResponse(Response):
    """Sends a file, as :class:`pyramid.response.FileResponse` does, off the loop.

    It has an ETag of the file's size and time, answers conditional requests and a
    range, and closes the file however the response ends. Making it waits through the
    bridge until the file is open; in a coroutine that no bridge surrounds, a task of
    its own say, that blocks.

    Args:
        path: of the file; or an asset specification, ``package:path``.
        request: for which it is; without one, the server cannot send the file itself.
        cache_max_age: seconds that clients may keep it; None: nothing is said.
        content_type: by default guessed by the name.
        content_encoding: by default guessed with the type.

    Raises:
        OSError: there is no such regular file, or it cannot be read.
        ValueError: ``path`` names none.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        request: Any = None,
        cache_max_age: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
    ) -> None:
        path = os.fspath(path)
        if content_type is None:
            content_type, content_encoding = guess_type(path)
        entry, body = _begin(path, request)
        if request is not None:
            close_unsent(body, request)
        super().__init__(
            content_type=content_type, content_encoding=content_encoding, app_iter=body
        )
        self.content_length = entry.size
        self.headers["ETag"] = entry.etag_of(content_encoding)
        self.headers["Last-Modified"] = entry.last_modified
        if cache_max_age is not None:
            self.cache_expires = cache_max_age

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Answer as a WSGI application: the conditions of the request hold."""
        conditional.apply(_Asked(environ), self)
        return super().__call__(environ, start_response)


class _Asked:
    # What is looked at of a request.
    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ


def close_unsent(body: Any, request: Any) -> None:
    """Close a body at the end of its request, if no response has it then.

    Its file would be open until the collector comes, where an error refers to it.
    """
    close = getattr(body, "close", None)
    if close is not None:
        when_over(request, lambda is_streamed: None if is_streamed else close())


def guess_type(path: str) -> tuple[str, str | None]:
    """The content type and the encoding by the name of a file."""
    # A name is no URL: it may have a colon or a comma.
    name = f"./{os.path.basename(path)}"
    content_type, encoding = mimetypes.guess_type(name, strict=False)
    return content_type or DEFAULT_TYPE, encoding


def _begin(path: str, request: Any) -> tuple[Entry, Iterable[bytes]]:
    environ = {} if request is None else request.environ
    registry = get_current_registry() if request is None else request.registry
    files = files_of(registry)
    entry = files.peek(path) if os.path.isabs(path) else files.peek_at(path)
    if entry is not None:
        body = entry.body
        if body is not None:
            return entry, [body]
        if environ.get("REQUEST_METHOD") == "HEAD":
            return entry, []
    ensure_built(registry, path)
    return current_executor().call(_open, registry, files, path, environ)


def _open(
    registry: Any, files: Files, path: str, environ: dict[str, Any]
) -> tuple[Entry, Iterable[bytes]]:
    if not os.path.isabs(path):
        is_spec = ":" in path
        path = locate(registry, path) if is_spec else os.path.abspath(path)
    return open_body(files, path, environ)


def open_body(
    files: Files, path: str, environ: dict[str, Any]
) -> tuple[Entry, Iterable[bytes]]:
    """Make a body of a file: its bytes, or the open file if that is large. Blocks.

    Args:
        files: the application's.
        path: absolute.
        environ: of the request.

    Raises:
        OSError: as of :func:`.files.open_file`.
    """
    entry, content = files.load(path)
    if content is not None:
        return entry, [content]
    file, status = open_file(path)
    try:
        entry = files.known(path, status)
        wrapper = environ.get("wsgi.file_wrapper", FileWrapper)
        if wrapper is not FileWrapper and "HTTP_RANGE" not in environ:
            # uWSGI's, where it has threads, works in the one that it has called alone.
            with contextlib.suppress(AttributeError, SystemError):
                return entry, wrapper(file, FileBody.block_size)
        begun = file.read(min(entry.size, FileBody.block_size))
        return entry, FileBody(file, entry.size, path=path, begun=begun)
    except BaseException:
        file.close()
        raise
