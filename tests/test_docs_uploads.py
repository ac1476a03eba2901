"""The page on forms and uploads: what it shows does what it says."""

import asyncio
import re

import pytest
from test_docs import DOCS, execute, load

from aioext.testing import TestApp
from aioext.uploads import tame

__all__ = ["load"]

PNG = b"\x89PNG\r\n\x1a\n and so on"


@pytest.fixture
def app(load, tmp_path):
    module = load("uploads")
    with TestApp(module.main(pictures=str(tmp_path / "pictures"))) as app:
        yield app


def test_a_picture_is_kept(app, tmp_path):
    for expected in ("a.png", "a.1.png"):
        form = app.get("/pictures").form
        form["title"] = "A picture"
        form["picture"] = ("../a.png", PNG)
        assert form.submit().json == {"title": "A picture", "name": expected}
        assert (tmp_path / "pictures" / expected).read_bytes() == PNG


def test_what_is_refused_is_told(app):
    form = app.get("/pictures").form
    answer = form.submit(status=400)
    assert answer.json == {"refused": "No file was sent where one was expected."}
    form["picture"] = ("a.png", b"x" * (21 * 1024**2))
    answer = form.submit(status=413)
    assert "larger than 20971520 bytes" in answer.json["refused"]


def test_several_pictures_are_kept(app, tmp_path):
    (tmp_path / "pictures").mkdir()
    files = [("pictures", "a.png", PNG), ("pictures", "a.png", PNG)]
    assert app.post("/all", upload_files=files).json == ["a.png", "a.1.png"]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_function_keeps_a_picture(app):
    answer = app.post("/function", upload_files=[("picture", "a.png", PNG)])
    assert answer.json == {"name": "a.png"}


def test_a_portrait_replaces_the_one_before(app, tmp_path):
    for end in (b"1", b"2"):
        files = [("picture", "a.png", PNG + end)]
        app.post("/portrait/7", upload_files=files)
    (path,) = (tmp_path / "pictures").iterdir()
    assert (path.name, path.read_bytes()) == ("portrait-7.png", PNG + b"2")
    app.post("/portrait/7", upload_files=[("picture", "a.png", b"GIF")], status=400)


def test_a_request_of_a_test_has_a_form():
    form = asyncio.run(execute("uploads")["request"].form())
    assert form == {"title": "A picture"}


def test_names_become_what_the_page_says():
    page = (DOCS / "uploads.rst").read_text("utf-8")
    rows = re.findall(r"   \* - ``(.+)``\n     - (?:``([^`]+)``|none)", page)
    assert len(rows) == 6
    for name, expected in rows:
        assert tame(name) == expected
