"""The environ of a request, from its ASGI scope alone."""

import io
import sys

import pytest
from asgi import make_scope

from aioext import environ as environ_module
from aioext.environ import base_environ, build_environ, may_have_body


@pytest.fixture(autouse=True)
def _forget_names(monkeypatch):
    # Whether a name was seen before must not matter, so each test begins anew;
    # ``environ_of`` builds twice.
    monkeypatch.setattr(environ_module, "_keys", dict(environ_module._keys))


BASE = base_environ(False, list)


def environ_of(path="/", **scope):
    scope = make_scope(path, **scope)
    first = build_environ(scope, BASE)
    assert build_environ(scope, BASE) == first
    return first


def headers_of(*headers):
    environ = environ_of(headers=list(headers))
    return {key: environ[key] for key in environ if key[:5] in ("HTTP_", "CONTE")}


def test_a_plain_request_gives_a_complete_environ():
    environ = environ_of("/page", query_string=b"a=1&b=%C3%A9")
    scope = environ.pop("asgi.scope")
    assert scope["path"] == "/page"
    assert environ == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/page",
        "QUERY_STRING": "a=1&b=%C3%A9",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "HTTP_HOST": "localhost",
        **BASE,
        "wsgi.url_scheme": "http",
    }


def test_the_scope_itself_is_in_the_environ():
    scope = make_scope()
    assert build_environ(scope, BASE)["asgi.scope"] is scope


def test_every_string_of_the_environ_is_a_native_string():
    environ = environ_of(
        "/é", root_path="/ü", headers=[(b"x", b"\xff"), (b"y-z", b"1")]
    )
    for key, value in environ.items():
        assert type(key) is str
        if not key.startswith(("wsgi.", "asgi.")):
            assert type(value) is str
            value.encode("latin-1")


def test_one_request_does_not_change_the_next_one_s_environ():
    before = dict(BASE)
    environ_of(headers=[(b"x-a", b"1"), (b"x-a", b"2")])["wsgi.version"] = "mine"
    assert before == BASE
    assert "HTTP_X_A" not in environ_of()


def test_repeated_headers_are_joined_by_commas():
    fields = headers_of((b"x-a", b"1"), (b"x-b", b"3"), (b"x-a", b"2"), (b"x-a", b"3"))
    assert fields == {"HTTP_X_A": "1,2,3", "HTTP_X_B": "3"}


def test_repeated_cookies_are_joined_by_semicolons():
    fields = headers_of((b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2"))
    assert fields == {"HTTP_COOKIE": "a=1; b=2", "HTTP_X": "y"}


def test_an_empty_header_is_there():
    assert headers_of((b"x-a", b"")) == {"HTTP_X_A": ""}


def test_content_type_and_length_have_no_prefix():
    fields = headers_of((b"content-type", b"text/plain"), (b"content-length", b"3"))
    assert fields == {"CONTENT_TYPE": "text/plain", "CONTENT_LENGTH": "3"}


def test_the_same_content_length_twice_counts_once():
    fields = headers_of((b"content-length", b"3"), (b"content-length", b"3"))
    assert fields == {"CONTENT_LENGTH": "3"}


def test_two_content_lengths_are_not_taken_for_either():
    fields = headers_of((b"content-length", b"3"), (b"content-length", b"4"))
    assert fields == {"CONTENT_LENGTH": "3,4"}


def test_a_chunked_body_has_no_content_length_whatever_the_client_says():
    fields = headers_of((b"content-length", b"3"), (b"transfer-encoding", b"chunked"))
    assert fields == {"HTTP_TRANSFER_ENCODING": "chunked"}


def test_names_with_an_underscore_are_left_out_so_none_can_pose_as_another():
    fields = headers_of(
        (b"x_user", b"root"), (b"x-user", b"me"), (b"content_length", b"9"), (b"_", b"")
    )
    assert fields == {"HTTP_X_USER": "me"}
    assert headers_of((b"x-user", b"me"), (b"x_user", b"root")) == {"HTTP_X_USER": "me"}


def test_the_proxy_header_is_left_out_because_of_httpoxy():
    assert headers_of((b"proxy", b"evil:80"), (b"x", b"1")) == {"HTTP_X": "1"}


def test_a_server_that_does_not_lower_names_is_understood():
    fields = headers_of((b"Content-Type", b"a/b"), (b"X-A", b"1"), (b"x-a", b"2"))
    assert fields == {"CONTENT_TYPE": "a/b", "HTTP_X_A": "1,2"}


def test_a_client_cannot_make_the_learned_names_grow_without_limit():
    for length in range(60_000, 60_003):
        headers_of((b"x" * length, b"1"))
    for number in range(3000):
        headers_of((b"x-%d" % number, b"1"))
    learned = environ_module._keys
    assert len(learned) <= 1024
    assert sum(map(len, learned)) < 100_000
    assert headers_of((b"x-2999", b"1")) == {"HTTP_X_2999": "1"}


@pytest.mark.parametrize(
    ("path", "raw_path", "expected"),
    [
        ("/é", b"/%C3%A9", "/Ã©"),
        ("/é", b"/\xc3\xa9", "/Ã©"),
        ("/é", None, "/Ã©"),
        # Bytes that are no UTF-8: path has lost them, raw_path has not.
        ("/\ufffdx", b"/%80x", "/\x80x"),
        ("/\ufffd\ufffd", b"/%80%FF", "/\x80\xff"),
        # A server that keeps them in its way.
        (f"/{chr(0xDC80)}x", b"/%80x", "/\x80x"),
        (f"/{chr(0xDC80)}x", None, "/\x80x"),
        # A middleware has rewritten path alone.
        ("/neu/ü", b"/alt/%C3%A9", "/neu/Ã¼"),
        ("/a b;c", b"/a%20b;c", "/a b;c"),
        ("/a/b", b"/a%2Fb", "/a/b"),
        ("", b"", ""),
    ],
)
def test_the_path_carries_the_bytes_that_the_client_sent(path, raw_path, expected):
    assert environ_of(path, raw_path=raw_path)["PATH_INFO"] == expected


@pytest.mark.parametrize(
    ("root_path", "path", "script_name", "path_info"),
    [
        ("/app", "/app/page", "/app", "/page"),
        ("/app/", "/app/page", "/app", "/page"),
        ("/app", "/app/", "/app", "/"),
        ("/app", "/app", "/app", ""),
        # Servers of before 2023 leave the prefix out of path.
        ("/app", "/page", "/app", "/page"),
        ("/app", "/", "/app", "/"),
        # Only whole segments are a prefix.
        ("/app", "/application", "/app", "/application"),
        ("/", "/page", "", "/page"),
        ("", "/page", "", "/page"),
        ("/ä", "/ä/é", "/Ã¤", "/Ã©"),
    ],
)
def test_script_name_is_root_path_whether_path_begins_with_it_or_not(
    root_path, path, script_name, path_info
):
    raw_path = path.encode()
    environ = environ_of(path, raw_path=raw_path, root_path=root_path)
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (script_name, path_info)


def test_a_prefix_is_taken_off_a_path_that_is_no_utf_8():
    environ = environ_of("/app/\ufffd", raw_path=b"/app/%80", root_path="/app")
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/app", "/\x80")


@pytest.mark.parametrize("server", [None, ("/run/app.sock", None), ("/", "r")])
@pytest.mark.parametrize("client", [None, (), ("/", "r")])
@pytest.mark.parametrize(("scheme", "port"), [("http", "80"), ("https", "443")])
def test_a_unix_socket_still_has_a_name_and_a_port(server, client, scheme, port):
    environ = environ_of(server=server, client=client, scheme=scheme)
    assert environ["SERVER_NAME"] == "localhost"
    assert environ["SERVER_PORT"] == port
    assert environ["REMOTE_ADDR"] == ""
    assert "REMOTE_PORT" not in environ


def test_the_least_that_a_scope_may_have_is_enough():
    scope = make_scope()
    for key in ("scheme", "raw_path", "root_path", "client", "server"):
        del scope[key]
    environ = build_environ(scope, BASE)
    assert environ["wsgi.url_scheme"] == "http"
    assert environ["SCRIPT_NAME"] == ""
    assert environ["SERVER_NAME"] == "localhost"


def test_http_2_is_the_protocol():
    environ = environ_of(http_version="2", scheme="https")
    assert environ["SERVER_PROTOCOL"] == "HTTP/2"
    assert environ["wsgi.url_scheme"] == "https"


@pytest.mark.parametrize("multiprocess", [True, False])
def test_multiprocess_is_what_the_server_says(multiprocess):
    assert base_environ(multiprocess, list)["wsgi.multiprocess"] is multiprocess


def test_errors_go_to_the_stderr_of_the_moment(monkeypatch):
    errors = environ_of()["wsgi.errors"]
    for _ in range(2):
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        errors.write("a")
        errors.writelines(["b", "c"])
        errors.flush()
        assert sys.stderr.getvalue() == "abc"


def test_errors_of_a_process_without_stderr_are_dropped(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    errors = environ_of()["wsgi.errors"]
    errors.write("a")
    errors.flush()


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({}, False),
        ({"method": "POST"}, False),
        ({"headers": [(b"content-length", b"0")], "method": "POST"}, False),
        ({"headers": [(b"content-length", b"1")]}, True),
        ({"headers": [(b"transfer-encoding", b"chunked")]}, True),
        ({"http_version": "2", "method": "GET"}, False),
        ({"http_version": "2", "method": "HEAD"}, False),
        ({"http_version": "2", "method": "POST"}, True),
        ({"http_version": "3", "method": "PUT"}, True),
        (
            {
                "http_version": "2",
                "method": "POST",
                "headers": [(b"content-length", b"0")],
            },
            False,
        ),
    ],
)
def test_whether_there_is_a_body_is_told_by_framing_and_method(scope, expected):
    scope = make_scope(**scope)
    assert may_have_body(scope, build_environ(scope, BASE)) is expected


def test_proxy_is_left_out_however_it_is_written():
    scope = {
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "http_version": "1.1",
        "headers": [(b"Proxy", b"evil")],
    }
    assert "HTTP_PROXY" not in build_environ(scope, {})


@pytest.mark.parametrize(
    ("target", "path"),
    [("http://x/a/b", "/a/b"), ("http://x", "/"), ("https://[::1]:8/%ff", "/\xff")],
)
def test_a_target_that_is_a_whole_url_has_the_path_of_it(target, path):
    decoded = target.replace("%ff", "\ufffd")
    environ = environ_of(decoded, raw_path=target.encode())
    assert environ["PATH_INFO"] == path
