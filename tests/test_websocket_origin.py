"""Which pages may open a WebSocket."""

import pytest

from aioext.websocket.origin import check_pattern, is_allowed, own_origin

OWN = "https://example.com"


def allowed(origin, *, own=OWN, origins=(), trusted=()):
    return is_allowed(origin, own, origins, trusted)


@pytest.mark.parametrize(
    ("scheme", "host", "own"),
    [
        ("http", "example.com", "http://example.com"),
        ("http", "example.com:80", "http://example.com"),
        ("http", "example.com:443", "http://example.com:443"),
        ("https", "example.com:443", "https://example.com"),
        ("https", "example.com:80", "https://example.com:80"),
        ("http", "example.com:8080", "http://example.com:8080"),
        ("http", "Example.COM", "http://example.com"),
        ("http", "127.0.0.1:80", "http://127.0.0.1"),
        ("http", "[::1]", "http://[::1]"),
        ("http", "[::1]:80", "http://[::1]"),
        ("http", "[::1]:8080", "http://[::1]:8080"),
        # The last group of an address is no port.
        ("http", "[::80]", "http://[::80]"),
        ("https", "[2001:db8::443]:443", "https://[2001:db8::443]"),
    ],
)
def test_the_applications_own_origin_has_no_port_that_goes_without_saying(
    scheme, host, own
):
    assert own_origin(scheme, host) == own
    assert allowed(own, own=own_origin(scheme, host))


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com",
        "https://example.com:443",
        "https://EXAMPLE.com",
        "HTTPS://example.com",
    ],
)
def test_the_own_origin_is_allowed(origin):
    assert allowed(origin)


@pytest.mark.parametrize(
    "origin",
    [
        "http://example.com",
        "http://example.com:443",
        "https://example.com:8443",
        "https://example.com:80",
        "https://www.example.com",
        "https://com",
        "https://example.com.evil.example",
        "https://evilexample.com",
        "https://example.comevil",
        "wss://example.com",
        "ftp://example.com",
        # The same address, but a page of it says so as well.
        "https://example.com.",
    ],
)
def test_another_origin_is_not(origin):
    assert not allowed(origin)


MALFORMED = [
    "",
    "null",
    "NULL",
    "*",
    "example.com",
    "//example.com",
    "https:",
    "https://",
    "https:///example.com",
    "https:/example.com",
    "://example.com",
    "https://example.com/",
    "https://example.com/path",
    "https://example.com ",
    " https://example.com",
    "https://example.com\n",
    "https://exa mple.com",
    "https://example.com, https://evil.example",
    "https://example.com https://evil.example",
    "1https://example.com",
    "file://",
]


@pytest.mark.parametrize("origin", MALFORMED)
def test_what_no_page_has_is_never_allowed(origin):
    assert not allowed(origin)
    assert not allowed(origin, own=origin)
    assert not allowed(origin, origins=["*"])
    assert not allowed(origin, trusted=[origin, "example.com", ".example.com"])


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com@evil.example",
        "https://example.com:443@evil.example",
        "https://evil.example#example.com",
        "https://evil.example?example.com",
        "https://evil.example\\example.com",
        "https://evil.example%2eexample.com.evil.example",
    ],
)
def test_a_host_that_only_mentions_another_one_is_not_taken_for_it(origin):
    patterns = ["https://example.com", "https://example.com:443"]
    assert not allowed(origin, origins=patterns, trusted=["example.com"])


@pytest.mark.parametrize(
    "origin", ["http://a.example", "null.example://x", "a+b.c-d://x"]
)
def test_a_star_allows_every_page(origin):
    assert allowed(origin, origins=["*"])


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (
            "https://partner.example",
            ["https://partner.example", "https://partner.example:443"],
            [
                "http://partner.example",
                "https://partner.example:8443",
                "https://www.partner.example",
                "https://partner.example.evil.example",
                "https://evilpartner.example",
            ],
        ),
        (
            "https://partner.example:8443",
            ["https://partner.example:8443"],
            ["https://partner.example", "https://partner.example:443"],
        ),
        ("https://partner.example:443", ["https://partner.example"], []),
        ("http://partner.example:80", ["http://partner.example"], []),
        ("HTTPS://Partner.Example", ["https://partner.example"], []),
        (
            "https://*.partner.example",
            ["https://a.partner.example", "https://a.b.partner.example"],
            [
                "https://partner.example",
                "https://evilpartner.example",
                "http://a.partner.example",
                "https://a.partner.example:8443",
                "https://a.partner.example.evil.example",
            ],
        ),
        (
            "https://*.partner.example:8443",
            ["https://a.partner.example:8443"],
            ["https://a.partner.example", "https://partner.example:8443"],
        ),
        ("https://*.partner.example:443", ["https://a.partner.example"], []),
        ("http://[::1]:3000", ["http://[::1]:3000"], ["http://[::1]"]),
        (
            "https://xn--bcher-kva.example",
            ["https://xn--bcher-kva.example"],
            ["https://bucher.example"],
        ),
        (
            "chrome-extension://abcdef",
            ["chrome-extension://abcdef"],
            ["chrome-extension://fedcba", "https://abcdef"],
        ),
    ],
)
def test_a_pattern_allows_what_it_names(pattern, yes, no):
    check_pattern(pattern)
    for origin in yes:
        assert allowed(origin, origins=["https://other.example", pattern]), origin
    for origin in no:
        assert not allowed(origin, origins=["https://other.example", pattern]), origin


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "example.com",
        "*.example.com",
        "https://",
        "https://*",
        "https://*.",
        "https://**.example.com",
        "https://*.*.example.com",
        "https://a*.example.com",
        "https://www.*.example.com",
        "https://*example.com",
        "https://example.com/",
        "https://example.com/chat",
        "https://example.com https://other.example",
        "null",
        "**",
    ],
)
def test_a_pattern_that_could_not_mean_what_it_says_is_refused(pattern):
    with pytest.raises(
        ValueError, match=r"origins like https://example\.com"
    ) as caught:
        check_pattern(pattern)
    assert repr(pattern) in str(caught.value)


# ``pyramid.csrf_trusted_origins`` has hosts, as Pyramid's own check takes them.


@pytest.mark.parametrize(
    ("trusted", "yes", "no"),
    [
        (
            "partner.example",
            ["https://partner.example", "https://partner.example:443"],
            [
                "https://www.partner.example",
                "https://partner.example:8443",
                "https://evilpartner.example",
                "https://partner.example.evil.example",
            ],
        ),
        (
            ".partner.example",
            [
                "https://partner.example",
                "https://www.partner.example",
                "https://a.b.partner.example",
            ],
            ["https://evilpartner.example", "https://www.partner.example:8443"],
        ),
        (
            "partner.example:8443",
            ["https://partner.example:8443"],
            ["https://partner.example"],
        ),
        (".partner.example:8443", ["https://www.partner.example:8443"], []),
        ("Partner.Example", ["https://partner.example"], []),
    ],
)
def test_a_trusted_host_is_allowed(trusted, yes, no):
    for origin in yes:
        assert allowed(origin, trusted=["other.example", trusted]), origin
    for origin in no:
        assert not allowed(origin, trusted=["other.example", trusted]), origin


@pytest.mark.parametrize(
    ("own", "origin", "expected"),
    [
        ("https://example.com", "https://partner.example", True),
        # A page that anybody on the way can change does not get into one by https.
        ("https://example.com", "http://partner.example", False),
        ("http://example.com", "http://partner.example", True),
        ("http://example.com", "https://partner.example", True),
        ("http://example.com", "ftp://partner.example", False),
    ],
)
def test_a_trusted_host_is_allowed_by_https_or_as_the_request_came(
    own, origin, expected
):
    assert allowed(origin, own=own, trusted=["partner.example"]) is expected
