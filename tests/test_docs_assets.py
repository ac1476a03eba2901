"""The page on files: its application does what the page says."""

import os
import sys

import pytest
from asgi import Client
from test_docs import load

from aioext.assets.files import SMALL
from aioext.gateway import Gateway

__all__ = ["load"]


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """The package ``shop``, in the directory that is given."""
    package = tmp_path / "shop"
    (package / "data").mkdir(parents=True)
    (package / "static").mkdir()
    (package / "__init__.py").write_text("")
    (package / "data" / "terms.txt").write_text("Terms")
    (package / "data" / "catalogue.pdf").write_bytes(b"%PDF" * SMALL)
    (package / "static" / "app.css").write_text("a {}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    return package


@pytest.fixture
def ask(load, shop, run):
    app = Gateway(load("assets").main())

    def ask(path, **headers):
        fields = [
            (name.lower().encode(), value.encode()) for name, value in headers.items()
        ]
        client = run(Client(path, headers=fields).call(app))
        found = {name.decode(): value.decode() for name, value in client.headers}
        return client.status, found, client.body

    return ask


def test_a_file_is_read_and_another_is_sent(ask):
    assert ask("/terms")[2] == b"Terms"
    status, headers, body = ask("/catalogue.pdf")
    assert (status, len(body)) == (200, 4 * SMALL)
    assert headers["content-type"] == "application/pdf"
    assert headers["cache-control"] == "max-age=3600"
    assert ask("/catalogue.pdf", Range="bytes=0-3")[::2] == (206, b"%PDF")


def test_a_file_whose_path_the_view_makes(ask, load, tmp_path, monkeypatch):
    made = []

    def response(path, request):
        made.append(path)
        (tmp_path / "7.pdf").write_bytes(b"%PDF")
        return sys.modules["aioext.assets"].FileResponse(tmp_path / "7.pdf", request)

    monkeypatch.setattr(sys.modules["assets"], "FileResponse", response)
    status, headers, body = ask("/invoices/7")
    assert (status, body, made) == (200, b"%PDF", ["/var/lib/shop/invoices/7.pdf"])
    assert headers["content-disposition"] == 'attachment; filename="invoice-7.pdf"'
    assert headers["cache-control"] == "private"


def test_a_static_view(ask, shop):
    status, headers, body = ask("/static/app.css")
    assert (status, body) == (200, b"a {}")
    etag = {"If-None-Match": headers["etag"]}
    assert ask("/static/app.css", **etag)[0] == 304
    os.symlink(shop / "data" / "terms.txt", shop / "static" / "terms.txt")
    assert ask("/static/terms.txt")[0] == 404
    assert ask("/static/../data/terms.txt")[0] == 404
