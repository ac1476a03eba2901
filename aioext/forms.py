"""Reading the form in the body of a request: ``await request.form()``.

Theory of operation
===================

WebOb reads forms, and what it makes is ``request.POST``. It copies the body, to a
temporary file above ``request.request_body_tempfile_limit`` (10 KiB), and then takes it
apart; a file of more than 1000 bytes gets a temporary file of its own. Both block: on
the disk, and on the processor. So :func:`read` has it done in threads of the executor;
but while it waits for the client it holds none, or slow clients would soon have them
all: the body is read in a greenlet on the loop, and each block of it written in a
thread. A plain WSGI server gives a body that can only be waited for by blocking, which
is read in a thread. A form that is short and has no files is taken apart on the loop as
well, for that is done before a thread would have begun.

What a client sends can be wrong. WebOb, and ``cgi.FieldStorage`` beneath it, raise
whatever comes up (a ``ValueError``, a ``LookupError`` for a charset, a
``DeprecationWarning``, a ``RecursionError``) or take half of a file for a whole one.
Here all of that is a :class:`BadForm`, a response with the status 400.

It can also be costly. ``cgi`` adds each line of a part's head to those before it, so a
head of some megabytes takes minutes, all of them with the interpreter's lock; a body
within the limit may have millions of fields; and a part may have parts of its own, or
be a form, which gives a list for a value. :class:`_Watched` stands in the place of the
body meanwhile. It tells the lines of a head from those of what is below by how they are
asked for: only the latter with a size. A test holds ``cgi`` to that. Of the latter it
gives many for one, for a file that is all line ends has ``cgi`` work for a second on
each megabyte.

*The end.* The files are temporary, and are gone when they are closed. They are closed
when the request ends, for nobody knows when its objects will be collected. Unless the
response is an iterator: it may be about to read them, so they end with it. And unless
the body was a file before, as pyramid_retry makes it, to read it once more.
"""

from __future__ import annotations

import asyncio
import io
import re
import traceback
from typing import Any

from pyramid.httpexceptions import HTTPBadRequest, HTTPUnsupportedMediaType
from webob.request import DisconnectionError

from . import bridge
from .ending import when_over
from .executor import current_executor
from .lines import Lines

__all__ = ["MAX_FIELDS", "BadForm", "read"]

MAX_FIELDS = 1000
# How many may be files, or so long that cgi makes a file of them: these are open as
# long as the request lasts, and a process may have 1024. Of more fields, one in ten.
MAX_FILES = 100
LONG = 1000
# Bytes that the head of a part may have.
MAX_HEAD = 16_384
# The same in the mean, for as many parts as there may be.
MEAN_HEAD = 1024
# Escaped bytes, %41, that fields without files may have together. Each takes 200 bytes
# of memory while it is read, which makes gigabytes of ten megabytes.
MAX_ESCAPES = 500_000
BLOCK = 262_144
# Bytes of a file that cgi gets at once.
CONTENT = 65_536

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
# A body that does not say what it is may be a form to WebOb.
FORMS = ("", URLENCODED, MULTIPART)

# Its value would be a list, and the parts in it have no limits.
PARTS = rb"(?:multipart/|x-www-form-urlencoded)"
NESTED = re.compile(rb"(?i)(?!content-disposition:).*" + PARTS)

# Of a Content-Type. The names of browsers for a boundary have "Boundary" in them.
BOUNDARIES = re.compile(r"(?i);\s*boundary\s*=")
# What is visible, but for quotation marks, semicolons and backslashes.
VISIBLE = r"!#-:<-\[\]-~"
BOUNDARY = re.compile(
    rf'(?i);\s*boundary=("?)([{VISIBLE} ]{{0,199}}[{VISIBLE}])\1\s*(?:;|$)'
)


class BadForm(HTTPBadRequest):
    """What a client has sent is not what the application asked for.

    It is no form that can be read, or in the place of a file there is something else.
    A response with the status 400, whose body says what it was.
    """


async def read(request: Any, max_fields: int = MAX_FIELDS) -> Any:
    """Read the form of a request; see :meth:`aioext.config.uploads.form`."""
    lock = vars(request).setdefault("_aioext_form_lock", asyncio.Lock())
    async with lock:
        if "_aioext_form" not in vars(request):
            vars(request)["_aioext_form"] = await _read(request, max_fields)
        return vars(request)["_aioext_form"]


async def _read(request: Any, max_fields: int) -> Any:
    kind = request.content_type
    is_none = kind not in FORMS or (not kind and request.method != "POST")
    if is_none or not request.is_body_readable:
        # WebOb gives an empty one, and need not read for it.
        return request.POST
    if request.charset != "UTF-8":
        raise HTTPUnsupportedMediaType(CHARSET.format(request.charset))
    if _waits(request) or (_is_short(request) and request.is_body_seekable):
        return await bridge.spawn_greenlet(_parse, request, max_fields)
    return await current_executor().run(_parse, request, max_fields)


def _waits(request: Any) -> bool:
    # A server's own body blocks, be it ever so short: its client may not send it.
    return getattr(request.body_file_raw, "waits", False)


def _is_short(request: Any) -> bool:
    length = request.content_length
    is_known = length is not None and request.content_type == URLENCODED
    return is_known and length <= request.request_body_tempfile_limit


def _parse(request: Any, max_fields: int) -> Any:
    # In a thread, what is called in the executor runs right here.
    form = None
    was_copied = request.is_body_seekable
    copies = _noting_copies(request)
    try:
        request.make_body_seekable()
        if copies:
            request.body_file_raw = copies[-1]
        if request.content_type == MULTIPART:
            form = current_executor().call(_take_apart, request, max_fields)
        elif _is_short(request):
            form = _split(request, max_fields)
        else:
            form = current_executor().call(_split, request, max_fields)
    except DisconnectionError:
        raise BadForm(CUT) from None
    except (ValueError, LookupError, RecursionError) as error:
        # They refer to files of parts that have been read.
        traceback.clear_frames(error.__traceback__)
        told = (str(error).splitlines() or [""])[0][:200]
        raise BadForm(UNREADABLE.format(told or type(error).__name__)) from error
    finally:
        # It refers to the request, which is not to wait for a collection.
        del vars(request)["make_tempfile"]
        if not was_copied:
            _close_at_the_end(request, copies, form or {})
    return form


def _noting_copies(request: Any) -> list[Any]:
    # The file that WebOb copies the body to. When the client leaves meanwhile, only the
    # traceback of that error knows of it.
    copies = []

    def make_tempfile() -> Any:
        copies.append(make())
        return _Copy(copies[-1])

    make = request.make_tempfile
    vars(request)["make_tempfile"] = make_tempfile
    return copies


class _Copy:
    # A temporary file, of which each block is written in a thread.
    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, block: bytes) -> None:
        current_executor().call(self._file.write, block)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _split(request: Any, max_fields: int) -> Any:
    _count(request.body_file_raw, max_fields)
    return request.POST


def _take_apart(request: Any, max_fields: int) -> Any:
    _, parsed = request.environ.get("webob._parsed_post_vars", (None, None))
    if parsed is request.body_file_raw:
        # Somebody was here before: a check of the CSRF token, another attempt.
        for file in _files(request.POST):
            file.seek(0)
        return request.POST
    boundary = _boundary_of(request)
    watched = _Watched(request.body_file_raw, boundary, max_fields)
    # It stays there, for WebOb knows by its body whether a form has been read.
    request.body_file_raw = watched
    form = request.POST
    try:
        watched.end()
        if None in form:
            raise ValueError(NO_NAME)
    except ValueError:
        _close(_files(form))
        raise
    return form


def _boundary_of(request: Any) -> bytes:
    # The one that cgi takes, or none: with another one, nothing would be watched. So it
    # is not to be said twice, or in a way that one reads like this and one like that.
    header = request.headers["Content-Type"]
    found = BOUNDARY.search(header)
    if found is None or len(BOUNDARIES.findall(header)) != 1:
        raise ValueError(NO_BOUNDARY)
    return b"--" + found[2].encode("ascii")


def _count(file: Any, max_fields: int) -> None:
    file.seek(0)
    ampersands = escapes = 0
    for block in iter(lambda: file.read(BLOCK), b""):
        ampersands += block.count(b"&")
        escapes += block.count(b"%")
    file.seek(0)
    if ampersands >= max_fields:
        raise ValueError(TOO_MANY.format(max_fields))
    if escapes > MAX_ESCAPES:
        raise ValueError(ESCAPES.format(MAX_ESCAPES))


class _Watched(Lines):
    # A body, while it is taken apart; and the same without its checks afterwards.
    def __init__(self, file: Any, boundary: bytes, max_fields: int) -> None:
        self._file = file
        self._block = b""
        self._at = 0
        self._is_read = False
        self._boundary = boundary
        told, blank = re.escape(boundary), rb"[ \t\r\v\f]*"
        self._first = re.compile(rb"(?m)^" + blank + told + blank + rb"$")
        next_one = told + rb"(?:--)?" + blank + rb"(?:\n|\Z)"
        self._next = re.compile(next_one)
        self._before_next = re.compile(rb"\n(?=" + next_one + rb")")
        self._max_fields = max_fields
        self._has_begun = self._has_ended = False
        self._head = 0
        self._heads = 0
        self._bytes_of_heads = 0
        self._content = 0
        self._files = 0
        self._last = b""

    def readline(self, size: int | None = -1, /) -> bytes:
        if self._has_ended:
            return self._file.readline(size)
        if size is not None and size >= 0:
            line = self._read_content()
        elif self._has_begun:
            line = self._read_line()
            self._note_head(line)
        else:
            line = self._read_first()
        self._last = line or self._last
        return line

    def _read_first(self) -> bytes:
        # The first boundary. What is before it is nothing, whatever it is.
        while self._fill():
            found = self._first.search(self._block, self._at)
            if found and (self._is_read or found.end() < len(self._block)):
                self._has_begun = True
                self._at = found.start()
                return self._read_line()
            if self._is_read:
                self._last = self._take(None).rstrip().rpartition(b"\n")[2]
            else:
                self._at = self._after_lines()
        return b""

    def _read_line(self) -> bytes:
        # One that is longer than a block comes in pieces; no head has so long ones.
        self._fill()
        return self._take(self._block.find(b"\n", self._at) + 1)

    def _read_content(self) -> bytes:
        # Many lines for one. That is the same to cgi, which puts them together, if a
        # boundary is a line by itself.
        self._head = 0
        self._fill()
        if self._next.match(self._block, self._at):
            return self._read_line()
        found = self._before_next.search(self._block, self._at)
        content = self._take(found.end() if found else self._after_lines())
        self._note_content(len(content))
        return content

    def _note_content(self, length: int) -> None:
        before = self._content
        self._content += length
        if before <= LONG < self._content:
            self._files += 1
            most = max(MAX_FILES, self._max_fields // 10)
            if self._files > most:
                raise ValueError(MANY_FILES.format(most, LONG))

    def _fill(self) -> bool:
        # There is a block from here, or all that is left; False: that is nothing.
        while not self._is_read and len(self._block) - self._at < CONTENT:
            more = self._file.read(CONTENT)
            self._block = self._block[self._at :] + more
            self._at = 0
            self._is_read = not more
        return self._at < len(self._block)

    def _after_lines(self) -> int:
        # Behind the last line that is whole; if there is none, behind the block.
        return (self._block.rfind(b"\n", self._at) + 1) or len(self._block)

    def _take(self, end: int | None) -> bytes:
        taken = self._block[self._at : end or None]
        self._at += len(taken)
        return taken

    def _note_head(self, line: bytes) -> None:
        self._head += len(line)
        self._bytes_of_heads += len(line)
        if self._head > MAX_HEAD:
            raise ValueError(LONG_HEAD.format(MAX_HEAD))
        if self._bytes_of_heads > MAX_HEAD + MEAN_HEAD * self._max_fields:
            raise ValueError(LONG_HEADS.format(MEAN_HEAD))
        if NESTED.match(line):
            raise ValueError(FORM_IN_FORM)
        if not line.strip():
            self._head = self._content = 0
            self._heads += 1
            if self._heads > self._max_fields:
                raise ValueError(TOO_MANY.format(self._max_fields))

    def end(self) -> None:
        """Watch no longer; refuse a form that does not end as it should."""
        self._has_ended = True
        if self._last.rstrip() != self._boundary + b"--":
            raise ValueError(NO_END)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _files(form: Any) -> list[Any]:
    return [value.file for value in form.values() if getattr(value, "file", None)]


def _close(files: list[Any]) -> None:
    for file in files:
        # What is in memory need not be closed, and may be looked at in a log.
        if not isinstance(file, io.BytesIO):
            file.close()


def _close_at_the_end(request: Any, copies: list[Any], form: Any) -> None:
    def close(is_streamed: bool) -> None:
        if not is_streamed:
            _close([*copies, *_files(form)])

    when_over(request, close)


CUT = "The body of the request ended before its form did."

CHARSET = "A form has to be in UTF-8, and not in {}."

UNREADABLE = "The form in the body of the request cannot be read: {}"

TOO_MANY = "it has more than {} fields."

MANY_FILES = "more than {} of its fields and files have more than {} bytes."

ESCAPES = "it has more than {} escaped bytes; multipart/form-data needs none."

LONG_HEADS = "the heads of its parts have more than {} bytes in the mean."

LONG_HEAD = "the head of a part has more than {} bytes."

NO_BOUNDARY = "its Content-Type has no boundary that could be used."

NO_END = "its end is missing."

NO_NAME = "one of its parts has no name."

FORM_IN_FORM = "one of its parts has parts of its own."
