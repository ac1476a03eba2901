"""``await request.form()``."""

from __future__ import annotations

from typing import Any

from .. import forms
from ..request import add_request_attribute

__all__ = ["form"]


def includeme(config: Any) -> None:
    """Add the method to requests; ``config.include('aioext')`` does so."""
    add_request_attribute(config, form, method=True)


async def form(request: Any, max_fields: int = forms.MAX_FIELDS) -> Any:
    """The form in the body of the request: ``request.POST``, read off the loop.

    It is the same object, and is read once, whoever asks first. A request that has no
    form gives an empty one.

    Args:
        request: left out, for this is a method of it.
        max_fields: how many fields and files it may have.

    Returns:
        a ``MultiDict`` of strings and of files, as WebOb makes it.

    Raises:
        BadForm: it cannot be read, has too many fields, or ends before its end: 400.
        BodyTooLarge: the body is larger than ``max_body`` allows: 413.
        HTTPUnsupportedMediaType: it is in another charset than UTF-8: 415.
        ClientDisconnected: the client has gone.

    Cancellation: safe; the body has been read in part then.
    """
    return await forms.read(request, max_fields)
