"""The view option ``etag=True``: an ETag, conditional answers and ranges.

The tag is a hash of the body and of the headers that say how to read it: the same
bytes as JSON and as HTML, or in two languages, are two things. It is strong, for it
covers every byte.

The deriver stands outside of all that changes a response for one view (``wrapper=``,
``http_cache=``, ``decorator=``, the renderer), and within the check of the permission:
nobody is told what he must not see by a 304. What tweens do to the response comes
after it.

A view that another one calls (``render_view()``) makes a part of the other one's page.
The conditions and the range of the request are not about that, and the response of the
request may be that of both: such a view is called as if it had no option.

A view may give the same response object to everybody. So one that is not the request's
own gets its tag, and its 304, as a copy of it: of its class, and with the attributes
that an application has given it. A response that makes its body when it is called, as
Pyramid's HTTP exceptions do, is none that has a tag here.
"""

from __future__ import annotations

import hashlib
from typing import Any

from pyramid.exceptions import ConfigurationError
from webob import Response as WebObResponse

from .. import conditional
from ..exceptions import explain
from ..executor import current_executor
from ..hooks.derivers import describe

__all__ = ["etag_of", "includeme"]

# The headers without which a body has no meaning.
COVERED = ("Content-Type", "Content-Encoding", "Content-Language")
# Bytes whose hash takes about as long as a change of threads.
LARGE = 262_144


def includeme(config: Any) -> None:
    """Add the view option ``etag``."""
    config.add_view_deriver(
        etag_view, "aioext_etag", under="secured_view", over="owrapped_view"
    )


def etag_view(view: Any, info: Any) -> Any:
    """View deriver: answer conditions and ranges for a view with ``etag=True``.

    Raises:
        ConfigurationError: the option is neither True nor False.
    """
    option = info.options.get("etag")
    if option is None or option is False:
        return view
    if option is not True:
        what = describe(info.original_view, info.options.get("attr"))
        message = NO_OPTION.format(what, option)
        raise ConfigurationError(explain(message, "etag-option"))

    name = info.options.get("name") or ""

    def view_with_etag(context: Any, request: Any) -> Any:
        response = view(context, request)
        if not _is_asked_for(request, context, name):
            return response
        if request.method in conditional.METHODS and _may_have_etag(response):
            response = _with_etag(request, response)
            conditional.apply(request, response)
        return response

    return view_with_etag


etag_view.options = ("etag",)  # type: ignore[attr-defined]


def _is_asked_for(request: Any, context: Any, name: str) -> bool:
    # Whether it is the view that the router has found.
    is_of_context = getattr(request, "context", None) is context
    return is_of_context and getattr(request, "view_name", "") == name


def _may_have_etag(response: Any) -> bool:
    return (
        isinstance(response, WebObResponse)
        and type(response).__call__ is WebObResponse.__call__
        and response.status_code == 200
    )


def _with_etag(request: Any, response: Any) -> Any:
    body = response.app_iter
    if type(body) not in (list, tuple) or not all(type(each) is bytes for each in body):
        # A stream, which nobody else has.
        return response
    if response is not vars(request).get("response"):
        response = _copied(response)
    length = sum(map(len, body))
    if response.content_length is None:
        response.content_length = length
    if response.content_length == length and _is_to_have_etag(response.headers):
        response.headers["ETag"] = etag_of(body, response.headers)
    return response


def _copied(response: Any) -> Any:
    # Its class may take other arguments. What WebOb keeps under names of its own
    # refers to the response that it was made for.
    copied = type(response).__new__(type(response))
    WebObResponse.__init__(
        copied,
        status=response.status,
        headerlist=[*response.headerlist],
        app_iter=response.app_iter,
    )
    public = {k: v for k, v in vars(response).items() if not k.startswith("_")}
    vars(copied).update(public)
    return copied


def _is_to_have_etag(headers: Any) -> bool:
    return "ETag" not in headers and "no-store" not in headers.get("Cache-Control", "")


def etag_of(body: list[bytes] | tuple[bytes, ...], headers: Any) -> str:
    """The value of ``ETag`` for a body, with its quotes.

    Hashes a large body in a thread of the executor, and waits for it.

    Args:
        body: all of it, in parts.
        headers: of the response, WebOb's; ``Content-Type``, ``Content-Encoding`` and
            ``Content-Language`` are looked at.
    """
    # No value of a header has a line break.
    head = "\n".join(", ".join(headers.getall(name)) for name in COVERED).encode()
    if sum(map(len, body)) < LARGE:
        return _hash(head, body)
    return current_executor().call(_hash, head, body)


def _hash(head: bytes, body: list[bytes] | tuple[bytes, ...]) -> str:
    digest = hashlib.blake2b(head + b"\n\n", digest_size=16)
    for part in body:
        digest.update(part)
    return f'"{digest.hexdigest()}"'


NO_OPTION = """\
The view {} has etag={!r}; it takes True or False. For a tag of your own, set \
request.response.etag in the view, which is kept."""
