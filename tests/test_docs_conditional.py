"""The page on conditional answers: what it shows is run."""

import re

import pytest
from inprocess import make_app
from pyramid.request import Request
from pyramid.response import Response
from test_docs import blocks, execute, load
from webtest import TestApp

__all__ = ["load"]


@pytest.fixture
def module(load):
    return load("conditional")


@pytest.fixture
def app(module):
    return TestApp(make_app(module.includeme).app)


def shown(answered):
    """An answer as curl shows it, with its headers in their order."""
    headers = "".join(f"{name}: {value}\n" for name, value in answered.headers.items())
    body = f"\n{answered.text}\n" if answered.body else ""
    return f"HTTP/1.1 {answered.status}\n{headers}{body}"


def test_the_console_is_as_shown(app):
    (console,) = blocks("console")["conditional"]
    first, second = re.split(r"^\$ .*\n", console, flags=re.M)[1:]
    tag = re.search(r'If-None-Match: ("\w+")', console)[1]
    assert first == shown(app.get("/page"))
    assert second == shown(app.get("/page", headers={"If-None-Match": tag}))


def test_a_tag_of_its_own(app):
    assert app.get("/articles/1").headers["ETag"] == '"1-7"'
    app.get("/articles/1", headers={"If-None-Match": '"1-7"'}, status=304)


def test_a_stream_with_a_length(app):
    answered = app.get("/track", headers={"Range": "bytes=3000-3004"})
    assert (answered.status_int, answered.body) == (206, b"la la")


def test_a_tween():
    page = execute("conditional")
    tween = page["tween_factory"](lambda request: Response(b"0123", etag="x"), None)
    request = Request.blank("/", headers={"If-None-Match": '"x"'})
    assert tween(request).status_int == 304
