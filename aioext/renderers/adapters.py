"""Views without a renderer that return plain contents: ``aioext.renderers.adapters``.

A str is sent as by ``renderer='string'``, a dict or a list as by ``renderer='json'``,
bytes and files as they are. A generator is a body: its first item says of what.

This is a view deriver. Response adapters (``config.add_response_adapter``) would be
asked for the values of views with a renderer as well, before that, and every template
would get a page of JSON. Those that an application has registered are asked first.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from pyramid.interfaces import IResponse
from pyramid.renderers import RendererHelper
from pyramid.response import Response
from pyramid.viewderivers import VIEW

from ..body import FileWrapper
from ..exceptions import explain
from ..hooks.derivers import renders
from ..interfaces import ISettings
from .items import Array, is_stream, stream
from .json import dumps_for
from .media import set_type

__all__ = ["includeme", "plain_contents"]

TEXT = "text/plain"
JSON = "application/json"
BYTES = "application/octet-stream"


def includeme(config: Any) -> None:
    """Let views return plain contents, if the settings say so."""
    config.include("aioext")
    config.add_view_deriver(
        plain_contents, "aioext_plain_contents", under="rendered_view", over=VIEW
    )


@renders
def plain_contents(view: Any, info: Any) -> Any:
    """A view deriver: make a response of plain contents."""
    options = info.options
    is_rendered = options.get("renderer") is not None or options.get("formats")
    if is_rendered or not info.registry.getUtility(ISettings).renderers_adapters:
        return view
    adapt = _Adaptation(view, info)

    def plain_view(context: Any, request: Any) -> Any:
        result = view(context, request)
        if result.__class__ is Response:
            return result
        return adapt(result, context, request)

    return plain_view


class _Adaptation:
    def __init__(self, view: Any, info: Any) -> None:
        self._view = view
        self._info = info

    def __call__(self, result: Any, context: Any, request: Any) -> Any:
        """The response for what a view has returned; what is none stays itself."""
        response = self._info.registry.queryAdapterOrSelf(result, IResponse)
        if response is not None:
            return response
        if isinstance(result, str):
            return self._rendered("string", result, context, request)
        if isinstance(result, (dict, list)):
            return self._rendered("json", result, context, request)
        if isinstance(result, bytes):
            request.response.body = result
            return _response(request, BYTES)
        if isinstance(result, (io.RawIOBase, io.BufferedIOBase)):
            request.response.app_iter = FileWrapper(result)
            return _response(request, BYTES)
        return _streamed(result, request) if is_stream(result) else result

    def _rendered(self, name: str, result: Any, context: Any, request: Any) -> Any:
        helper = RendererHelper(name, self._info.package, self._info.registry)
        # As Pyramid finds it for a view that has a renderer.
        view = vars(request).pop("__view__", self._info.original_view)
        return helper.render_view(request, result, view, context)


def _streamed(items: Any, request: Any) -> Any:
    contents = _Contents(dumps_for(request))
    body = stream(items, contents, request)
    request.response.app_iter = body
    return _response(request, contents.content_type)


def _response(request: Any, content_type: str) -> Any:
    set_type(request.response, content_type)
    return request.response


class _Contents:
    """The form of a body whose first item says what it is."""

    content_type = TEXT

    def __init__(self, dumps: Callable[[Any], bytes]) -> None:
        self._array = Array(dumps)
        self._piece: Callable[[Any], bytes] | None = None

    def piece(self, item: Any) -> bytes:
        """What is sent for an item."""
        if self._piece is None:
            self._piece = self._of_first(item)
        return self._piece(item)

    def _of_first(self, item: Any) -> Callable[[Any], bytes]:
        if isinstance(item, (str, bytes)):
            self.content_type = TEXT if isinstance(item, str) else BYTES
            return _encoded
        self.content_type = JSON
        return self._array.piece

    def end(self) -> bytes:
        """What is sent after the last one."""
        return self._array.end() if self.content_type == JSON else b""


def _encoded(item: Any) -> bytes:
    if not isinstance(item, (str, bytes)):
        raise TypeError(explain(MIXED.format(item), "plain-contents"))
    return item.encode() if isinstance(item, str) else item


MIXED = """\
A view returned a generator whose first item was a str, or bytes, and which gave {!r} \
then. Give it str and bytes only, for a body; or dicts, lists and others, for a JSON \
array."""
