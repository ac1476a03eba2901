"""Which of several formats an Accept header asks for."""

import mimetypes

import pytest

from aioext.renderers.negotiation import choose, media_type

HTML_FIRST = ("html", "json", "xml")
JSON_FIRST = ("json", "html")
CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,"
    "image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
)
JAVA = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"


@pytest.mark.parametrize("formats", [HTML_FIRST, JSON_FIRST])
@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        # Nothing is asked for.
        (None, "html"),
        ("", "html"),
        (" ", "html"),
        ("*/*", "html"),
        ("*/*;q=0.1", "html"),
        # It is.
        (CHROME, "html"),
        ("application/json", "json"),
        ("APPLICATION/json", "json"),
        (" application/json ,", "json"),
        (", ,application/json", "json"),
        ("application/json, text/javascript, */*; q=0.01", "json"),
        ("application/*", "json"),
        ("text/*", "html"),
        # By quality.
        ("text/html;q=0.5, application/json", "json"),
        ("text/html;q=0.5, application/json;q=0.4", "html"),
        ("text/html;q=0.001, application/json;q=0", "html"),
        ("application/json;q=0, */*", "html"),
        ("text/html;q=0, */*;q=0.1", "json"),
        # The more specific range counts.
        ("text/html;q=0.1, text/*;q=0.9, application/json;q=0.5", "json"),
        ("*/*;q=0.9, application/json;q=0.1, application/xml;q=0.1", "html"),
        # And so it does among equals: these are what libraries for scripts send.
        ("application/json, text/plain, */*", "json"),
        ("application/json, */*", "json"),
        ("*/*, application/json;charset=utf-8", "json"),
        ("application/*, */*", "json"),
        ("text/*, application/json", "json"),
        ("text/*, */*", "html"),
        ("application/json;q=0.5, */*;q=0.5", "json"),
        ("application/json;q=0.5, */*;q=0.6", "html"),
        ("text/html, application/json;q=0.9, */*", "html"),
        # Parameters.
        ("application/json;charset=utf-8", "json"),
        ("application/json; charset=UTF-8", "json"),
        ('application/json;charset="utf-8"', "json"),
        ("application/json;charset=latin-1, text/html;q=0.1", "html"),
        ("text/html;level=1, application/json;q=0.1", "json"),
        # Nonsense counts as nothing.
        ("nonsense", "html"),
        (JAVA, "html"),
        ("application/json;q=2", "html"),
        ("application/json;q=x", "html"),
        ("application/json;;;q", "html"),
        ("a/b/c", "html"),
        ("*", "html"),
        ("application/json\x00", "html"),
        ("\xff\xfe", "html"),
        ("application/json, " * 5000 + "?", "html"),
        # More than is remembered.
        ("image/png, " * 500 + "application/json", "json"),
        # Neither.
        ("image/png", None),
        ("application/json2", None),
        ("*/json", None),
        ("*/*;q=0", None),
        ("text/*;q=0, application/*;q=0.0", None),
        ("image/png, " * 5000 + "image/gif", None),
    ],
)
def test_the_client_decides(accept, expected, formats):
    assert choose(accept, formats) == expected
    # Remembered, or not.
    assert choose(accept, formats) == expected


@pytest.mark.parametrize(
    "accept", ["application/json, text/html", "text/html, application/json"]
)
def test_between_equals_the_order_of_the_formats_decides(accept):
    assert choose(accept, HTML_FIRST) == "html"
    assert choose(accept, JSON_FIRST) == "json"


def test_where_nothing_is_asked_for_the_first_is_sent_if_there_is_no_html():
    for accept in None, "*/*", "nonsense":
        assert choose(accept, ("xml", "json")) == "xml"


def test_of_two_with_the_same_type_the_first_is_sent():
    assert media_type("htm") == media_type("html") == "text/html"
    assert choose("text/html", ("htm", "html")) == "htm"
    assert choose("text/html", ("html", "htm")) == "html"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("html", "text/html"),
        ("json", "application/json"),
        ("xml", "application/xml"),
        ("csv", "text/csv"),
        ("ics", "text/calendar"),
        ("rss", "application/rss+xml"),
        ("pdf", "application/pdf"),
        ("js", "text/javascript"),
    ],
)
def test_formats_have_media_types(name, expected):
    assert media_type(name) == expected


@pytest.mark.parametrize("name", ["", ".", "html.mako", "a/b", "no-such", "html "])
def test_others_have_none(name):
    assert media_type(name) is None


def test_an_application_may_add_one(monkeypatch):
    known = mimetypes.MimeTypes()
    known.add_type("application/x-new", ".new")
    monkeypatch.setattr(mimetypes, "guess_type", known.guess_type)
    assert media_type("new") == "application/x-new"
    assert choose("application/x-new", ("html", "new")) == "new"
