"""When a request is over, and whether its response still uses what it had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["when_over"]


def when_over(request: Any, call: Callable[[bool], None]) -> None:
    """Have ``call(is_streamed)`` be called at the end of a request.

    It is a finished callback. ``is_streamed`` is False if the request ended by an
    exception, or with a response that is whole: then nobody uses anything of it any
    more. It is True if the body of the response is still to be iterated over: that may
    use whatever the request had, and ends later.
    """
    responses: list[Any] = []

    def note(request: Any, response: Any) -> None:
        responses.append(response)

    def end(request: Any) -> None:
        body = getattr(responses.pop(), "app_iter", None) if responses else ()
        call(not isinstance(body, (list, tuple)))

    request.add_response_callback(note)
    request.add_finished_callback(end)
