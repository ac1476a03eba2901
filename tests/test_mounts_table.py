"""Which mount a request is for: hosts, paths, and other spellings of both."""

import pytest

from aioext.environ import build_environ
from aioext.mounts.scope import build_scope, scope_below
from aioext.mounts.table import HIDDEN, Table, host_of, normalize_host


def table(*places):
    """A table whose applications are the places that they are at."""
    made = Table()
    for place in places:
        host, slash, path = place.partition("/")
        made.add(host or None, slash + path, place)
    return made


def found(made, host, path):
    result = made.find(host, path)
    return None if result is None else result[1]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a", "/a"),
        ("/a/", "/a"),
        ("/a/x", "/a"),
        ("/a/b", "/a/b"),
        ("/a/b/c", "/a/b"),
        ("/a/bc", "/a"),
        ("/ab", None),
        ("/A", None),
        ("/", None),
        ("", None),
        ("*", None),
        ("/x/a", None),
        # What is mounted gets the path as it came.
        ("/a/../b", "/a"),
        ("/a//c", "/a"),
        ("/a/./c", "/a"),
        # And nobody gets there by another spelling.
        ("//a", HIDDEN),
        ("//a/x", HIDDEN),
        ("/./a", HIDDEN),
        ("/x/../a", HIDDEN),
        ("/x/../../a/", HIDDEN),
        ("/../a/b", HIDDEN),
        ("/a//b", HIDDEN),
        ("/a/./b/c", HIDDEN),
        ("/a/b/../c", HIDDEN),
        ("a", HIDDEN),
        ("a/b/c", HIDDEN),
        ("./a", HIDDEN),
        ("ab", None),
        ("/a/b/./c", "/a/b"),
        ("/a/b/../../c", "/a/b"),
        ("//x", None),
        ("/.a", None),
        ("/x/..", None),
    ],
)
def test_a_path_matches_by_whole_segments_and_the_longest_wins(path, expected):
    assert found(table("/a", "/a/b"), "localhost", path) == expected
    assert found(table("/a/b", "/a"), "localhost", path) == expected


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        ("example.com", "/", "example.com"),
        ("example.com", "*", "example.com"),
        ("www.example.com", "/", ".example.com"),
        ("a.b.example.com", "/x", ".b.example.com"),
        ("b.example.com", "/x", ".example.com"),
        ("shop.example.com", "/cart", "shop.example.com/cart"),
        # The host counts more than the path, and what it lacks the next one has.
        ("shop.example.com", "/all/x", ".example.com"),
        ("other.org", "/all/x", "/all"),
        ("other.org", "/x", None),
        ("notexample.com", "/", None),
        ("example.com.evil.org", "/", None),
        (None, "/all", "/all"),
        (None, "/", None),
    ],
)
def test_a_host_wins_over_a_domain_and_that_over_none(host, path, expected):
    made = table(
        "/all",
        ".example.com",
        ".b.example.com",
        "example.com",
        "shop.example.com/cart",
    )
    assert found(made, host, path) == expected


def test_a_table_knows_whether_it_is_empty():
    assert not table()
    assert table("/a")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("example.com:8080", "example.com"),
        ("example.com.:8080", "example.com"),
        ("example.com:", "example.com"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]", "[::1]"),
        ("[0:0:0:0:0:0:0:1]:8080", "[::1]"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("my_host", "my_host"),
        (f"{'a.' * 126}a", f"{'a.' * 126}a"),
        (f"{'a.' * 4000}a", None),
        ("", None),
        (".", None),
        (".example.com", None),
        ("example..com", None),
        ("example.com..", None),
        ("example.com:80:90", None),
        ("example.com:x", None),
        ("example.com,other.com", None),
        ("example.com/other", None),
        ("user@example.com", None),
        ("example.com\x00", None),
        ("example.com\n", None),
        ("ex ample.com", None),
        ("b\xfccher.example", None),
        ("::1", None),
        ("[::1", None),
        ("[:::]", None),
        ("[1.2.3.4]", None),
        ("*", None),
    ],
)
def test_hosts_are_compared_in_one_form(text, expected):
    assert normalize_host(text) == expected


def test_a_request_without_a_host_is_for_the_server_s_name():
    assert host_of({"HTTP_HOST": "a.org", "SERVER_NAME": "b.org"}) == "a.org"
    assert host_of({"SERVER_NAME": "b.org"}) == "b.org"
    assert host_of({"HTTP_HOST": "", "SERVER_NAME": "b.org"}) == "b.org"
    assert host_of({"HTTP_HOST": "a/b", "SERVER_NAME": "b.org"}) is None
    assert host_of({}) is None


# Scopes


ENVIRON = {
    "REQUEST_METHOD": "POST",
    "SCRIPT_NAME": "/\xc3\xa9",
    "PATH_INFO": "/x y/\x80",
    "QUERY_STRING": "a=%20",
    "SERVER_PROTOCOL": "HTTP/1.0",
    "SERVER_NAME": "example.com",
    "SERVER_PORT": "8080",
    "REMOTE_ADDR": "10.0.0.1",
    "CONTENT_TYPE": "text/plain",
    "CONTENT_LENGTH": "",
    "HTTP_X_ONE": "\xe9",
    "wsgi.url_scheme": "https",
}


def test_a_scope_is_made_of_any_environ():
    assert build_scope(ENVIRON, {"key": "value"}) == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.0",
        "method": "POST",
        "scheme": "https",
        "query_string": b"a=%20",
        "headers": [(b"content-type", b"text/plain"), (b"x-one", b"\xe9")],
        "client": ("10.0.0.1", 0),
        "server": ("example.com", 8080),
        "extensions": {},
        "root_path": "/\xe9",
        "path": "/\xe9/x y/\ufffd",
        "raw_path": b"/%C3%A9/x%20y/%80",
        "state": {"key": "value"},
    }


def test_a_scope_without_a_client_and_a_lifespan():
    scope = build_scope({**ENVIRON, "REMOTE_ADDR": "", "SCRIPT_NAME": ""}, None)
    assert scope["client"] is None
    assert "state" not in scope


def test_the_scope_below_is_the_server_s_with_another_path_and_state():
    extensions = {"tls": {}}
    given = {
        "type": "websocket",
        "path": "/\xe9/x",
        "root_path": "",
        "raw_path": b"/%C3%A9/x",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"x-two", b"1"), (b"x-two", b"2")],
        "state": {"of": "the server"},
        "extensions": extensions,
    }
    environ = build_environ({**given, "method": "GET", "scheme": "http"}, {})
    environ |= {"SCRIPT_NAME": "/\xc3\xa9", "PATH_INFO": "/x", "asgi.scope": given}
    state = {"own": 1}
    scope = scope_below(environ, state)
    assert scope == {
        **given,
        "path": "/\xe9/x",
        "root_path": "/\xe9",
        "state": {"own": 1},
    }
    assert scope["extensions"] is extensions
    assert scope["state"] is not state
    assert given["root_path"] == ""
    assert "state" not in scope_below(environ, None)
