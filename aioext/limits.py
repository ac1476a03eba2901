"""How large the body of a request may be: ``aioext.max_body``, and that of a view.

Theory of operation
===================

What a request declares is known before anything of it is read: a ``Content-Length``
above the limit is answered with 413 by the execution policy, so the application is not
called, a client that waits for ``100 Continue`` is not invited, and the server closes
the connection, or reads the rest and drops it, as it does with any body that nobody
reads.

A body that declares nothing (chunked, or HTTP/2 without a length) is counted as it is
read. :class:`LimitedInput` stands in the place of ``wsgi.input`` and asks the server's
own for one byte more than is left: getting it means that there is too much. So nothing
beyond the limit is collected, by a ``read()`` of everything neither, and a body of
exactly the limit passes. The error goes the way of any HTTP exception: through the
view that reads, exception views and tweens. One that leaves the execution policy (an
add-on's that copies the body before it calls the application, say) is answered there.

A request without a body has neither, and without the setting nothing is looked at. On
HTTP/2 any request may have one all the same, a GET too. Its ``wsgi.input`` is empty,
and :attr:`BodyLimit.is_empty` says so to who hands on what the server receives.

Both ask one :class:`BodyLimit`, which is in the environ, and belongs to the body that
is there. Middleware that puts another one in its place, unpacked for example, has that
one limited by the application that it calls. The ``maximum`` may be changed as long as
the request lasts, and holds for what is read from then on.

*Limits of views.* A view may have a limit of its own, ``max_body=``, above that of the
application or below. Which view it will be is not known to the policy, nor to whoever
reads before it is found: a tween, a predicate, an add-on that copies the body to try
again. So the largest limit that any view has holds until then, and each view brings
down what it finds to its own, or to the application's. Limits only ever come down, so
that of an application around this one holds as well. To begin with the application's
limit and have a view raise it does not work: whoever had copied the body before would
have refused it. (:mod:`aioext.config.limits` has the view deriver.)
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from functools import partial
from typing import Any

from pyramid.httpexceptions import HTTPNotFound, HTTPRequestEntityTooLarge
from zope.interface import implementer

from .interfaces import IBodyLimits
from .lines import Lines

__all__ = [
    "KEY",
    "BodyLimit",
    "BodyLimits",
    "BodyTooLarge",
    "LimitedInput",
    "answer",
    "limit_body",
]

# Where the environ of a request that has a body has its BodyLimit.
KEY = "aioext.body_limit"

Environ = MutableMapping[str, Any]


class BodyTooLarge(HTTPRequestEntityTooLarge):
    """The body is larger than ``aioext.max_body``: a response with the status 413.

    Or than the view's own ``max_body``.
    """


@implementer(IBodyLimits)
class BodyLimits:
    """The limits of an application and of its views, in bytes; 0 is none.

    Attributes:
        default: the application's, which holds for views that say nothing.
        largest: of all of them.
    """

    def __init__(self) -> None:
        self.default = self.largest = 0
        self._of_views: set[int] = set()

    def set_default(self, maximum: int) -> None:
        """Have that be the application's."""
        self.default = maximum
        self._compare()

    def add(self, maximum: int) -> None:
        """Have a view with that limit."""
        self._of_views.add(maximum)
        self._compare()

    def _compare(self) -> None:
        limits = {self.default, *self._of_views}
        self.largest = 0 if 0 in limits else max(limits)


class BodyLimit:
    """What one request may send.

    Args:
        maximum: bytes; None: any number.
        declared: bytes that its ``Content-Length`` says; None: it has none.
        file: what the body is read from.

    Attributes:
        maximum: may be changed; :meth:`check` tells whether the new one holds.
        taken: bytes that have been read so far, if none were declared.
    """

    def __init__(
        self, maximum: int | None, declared: int | None, file: Any = None
    ) -> None:
        self.maximum = maximum
        self._declared = declared
        self._file = file
        self.taken = 0

    @property
    def is_exceeded(self) -> bool:
        """Whether the body is larger, by what it says or by what it is."""
        size = self.taken if self._declared is None else self._declared
        return self.maximum is not None and size > self.maximum

    def is_of(self, file: Any) -> bool:
        """Whether that is the body, be it counted, and not one put in its place."""
        return getattr(file, "counted", file) is self._file

    @property
    def is_empty(self) -> bool:
        """Whether the body is to have no bytes at all."""
        return self._declared == 0

    def check(self) -> None:
        """Do nothing, unless there is too much.

        Raises:
            BodyTooLarge: see :attr:`is_exceeded`.
        """
        if self.is_exceeded:
            raise BodyTooLarge(TOO_LARGE.format(self.maximum))

    def clip(self, size: int | None) -> int | None:
        """How much to read if ``size`` is asked for; None and less than 0: all.

        That is at most one byte too much.
        """
        if size is not None and size < 0:
            size = None
        if self.maximum is None:
            return size
        room = self.maximum - self.taken + 1
        return room if size is None else min(size, room)


class LimitedInput(Lines):
    """A ``wsgi.input`` that reads from another one, up to a limit.

    Args:
        file: what the server gave, which ends with the body.
        limit: of the request.

    Attributes:
        counted: ``file``.

    Every method raises :class:`BodyTooLarge` once the body is larger; what has been
    read of it by that call is lost.
    """

    def __init__(self, file: Any, limit: BodyLimit) -> None:
        self.counted = file
        self.waits = getattr(file, "waits", False)
        self._limit = limit

    def read(self, size: int | None = -1, /) -> bytes:
        """At most ``size`` bytes, all if it is negative or None; b"" at the end."""
        if size is not None and size >= 0:
            return self._take(self.counted.read, size)
        return b"".join(iter(lambda: self._take(self.counted.read, None), b""))

    def readline(self, size: int | None = -1, /) -> bytes:
        """The next line with its end, at most ``size`` bytes of it."""
        return self._take(self.counted.readline, size)

    def _take(self, method: Any, size: int | None) -> bytes:
        limit = self._limit
        limit.check()
        clipped = limit.clip(size)
        data = method() if clipped is None else method(clipped)
        limit.taken += len(data)
        limit.check()
        return data

    def __getattr__(self, name: str) -> Any:
        # A copy that WebOb has made of a body has these as well.
        if name not in ("seek", "tell"):
            raise AttributeError(name)
        return partial(self._call, getattr(self.counted, name))

    def _call(self, method: Any, *args: Any) -> Any:
        self._limit.check()
        return method(*args)


def limit_body(environ: Environ, maximum: int) -> None:
    """Have the body of a request end at ``maximum`` bytes.

    Of two applications around one request, the lower limit holds.

    Raises:
        BodyTooLarge: it says already that it is larger.
    """
    limit = environ.get(KEY)
    if limit is None or not limit.is_of(environ["wsgi.input"]):
        limit = _put_limit(environ, maximum)
    elif limit.maximum is None or maximum < limit.maximum:
        limit.maximum = maximum
    if limit is None or not limit.is_exceeded:
        return
    if not isinstance(environ["wsgi.input"], LimitedInput):
        environ["wsgi.input"] = LimitedInput(environ["wsgi.input"], limit)
    limit.check()


def _put_limit(environ: Environ, maximum: int) -> BodyLimit | None:
    declared = _declared(environ)
    if declared is None and not _may_have_body(environ):
        if environ.get("SERVER_PROTOCOL", "") < "HTTP/2":
            return None
        # There, a body needs neither header. It is to be empty, see above.
        declared = 0
    file = environ["wsgi.input"]
    limit = environ[KEY] = BodyLimit(maximum, declared, file)
    if declared is None:
        environ["wsgi.input"] = LimitedInput(file, limit)
    return limit


def _declared(environ: Environ) -> int | None:
    length = environ.get("CONTENT_LENGTH") or ""
    if not (length.isascii() and length.isdigit()):
        return None
    try:
        return int(length)
    except ValueError:
        # It has more digits than Python converts.
        return sys.maxsize


def _may_have_body(environ: Environ) -> bool:
    # A length that is none is the server's to refuse, but WebOb takes "+5" for one.
    # Without any, what does not end by itself may not be read (PEP 3333).
    return bool(
        environ.get("CONTENT_LENGTH")
        or "HTTP_TRANSFER_ENCODING" in environ
        or environ.get("wsgi.input_terminated")
    )


def answer(error: BodyTooLarge, environ: Environ, router: Any) -> Any:
    """The response to a request whose body is too large: of an exception view, or ours.

    Tweens are not called, for the application is not.
    """
    with router.request_context(environ) as request:
        try:
            return request.invoke_exception_view((type(error), error, None))
        except (HTTPNotFound, BodyTooLarge):
            # There is none, or it reads the body as well.
            return error
        finally:
            router.finish_request(request)


TOO_LARGE = "The body of the request is larger than {} bytes."
