"""The options of a WebSocket: from the settings, and from its view."""

import dataclasses

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.registry import Registry

from aioext.settings import SETTINGS
from aioext.websocket.options import LIMITS, VIEW_OPTIONS, Options, read_view_options


def options_of(**settings):
    config = Configurator(settings=settings)
    config.include("aioext")
    config.commit()
    return Options.of(config.registry)


def read(**options):
    return read_view_options(options, "function views.echo")


def refusal(**options):
    with pytest.raises(ConfigurationError) as caught:
        read(**options)
    return str(caught.value)


def test_the_defaults_are_those_of_the_settings():
    defaults = {
        setting.name.removeprefix("websocket."): setting.default
        for setting in SETTINGS
        if setting.name.startswith("websocket.")
    }
    options = Options()
    for name in LIMITS:
        assert getattr(options, name) == defaults[name]
    assert (options.origins, options.trusted, options.subprotocols) == ((), (), ())
    assert options == options_of()


def test_the_settings_of_an_application_hold():
    options = options_of(
        **{
            "aioext.websocket.max_size": "5",
            "aioext.websocket.queue": "6",
            "aioext.websocket.ping_interval": "7.5",
            "aioext.websocket.ping_timeout": "0",
            "aioext.websocket.compression": "off",
            "aioext.websocket.origins": "https://a.example https://b.example",
            "pyramid.csrf_trusted_origins": "c.example .d.example",
        }
    )
    assert options == Options(
        max_size=5,
        queue=6,
        ping_interval=7.5,
        ping_timeout=0.0,
        compression="off",
        origins=("https://a.example", "https://b.example"),
        trusted=("c.example", ".d.example"),
    )


def test_a_registry_without_aioext_has_the_defaults():
    registry = Registry("test")
    assert Options.of(registry) == Options()
    registry.settings = {"pyramid.csrf_trusted_origins": ["a.example"]}
    assert Options.of(registry) == Options(trusted=("a.example",))


def test_what_a_view_says_replaces_what_the_application_says():
    common = Options(max_size=5, queue=6, origins=("https://a.example",))
    given = read(max_size=7, allowed_origins=["https://b.example"])
    assert common.with_view_options(given) == Options(
        max_size=7, queue=6, origins=("https://b.example",)
    )
    assert common.with_view_options({}) == common


def test_options_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Options().max_size = 5


@pytest.mark.parametrize("name", VIEW_OPTIONS)
def test_what_a_view_does_not_say_is_not_given(name):
    assert read(**{name: None}) == {}
    assert read(renderer="json", permission="view") == {}


@pytest.mark.parametrize(
    ("option", "value", "read_as"),
    [
        ("max_size", 5, 5),
        ("max_size", "5", 5),
        ("queue", 1, 1),
        ("ping_interval", 0, 0.0),
        ("ping_interval", "2.5", 2.5),
        ("ping_timeout", 3, 3.0),
        ("compression", "off", "off"),
        ("compression", "deflate", "deflate"),
    ],
)
def test_a_view_may_have_limits_of_its_own(option, value, read_as):
    assert read(**{option: value}) == {option: read_as}


WHOLE = "a whole number of at least 1"
SECONDS = "a number of seconds, 0 for off"


@pytest.mark.parametrize(
    ("option", "value", "takes"),
    [
        ("max_size", 0, WHOLE),
        ("max_size", -1, WHOLE),
        ("max_size", "1 MiB", WHOLE),
        ("max_size", True, WHOLE),
        ("queue", 0, WHOLE),
        ("queue", 1.5, WHOLE),
        ("ping_interval", -1, SECONDS),
        ("ping_interval", float("inf"), SECONDS),
        ("ping_timeout", "never", SECONDS),
        ("compression", True, "one of deflate, off"),
        ("compression", "gzip", "one of deflate, off"),
        ("allowed_origins", 5, "words, separated by spaces"),
        ("allowed_origins", "example.com", "origins like https://example.com"),
        ("allowed_origins", ["https://a.example", "b"], "origins like"),
    ],
)
def test_a_wrong_option_is_told_with_its_view(option, value, takes):
    message = refusal(**{option: value})
    assert message.startswith(
        f"The view function views.echo has {option}={value!r}; it takes {takes}"
    )
    assert message.endswith("errors.html#websocket-options)")


@pytest.mark.parametrize(
    "value",
    ["https://a.example https://b.example", ["https://a.example", "https://b.example"]],
)
def test_origins_are_a_list_or_words(value):
    expected = ("https://a.example", "https://b.example")
    assert read(allowed_origins=value) == {"origins": expected}


def test_a_view_may_allow_no_other_origin_at_all():
    common = Options(origins=("https://a.example",))
    assert common.with_view_options(read(allowed_origins=[])).origins == ()


@pytest.mark.parametrize("value", [["a", "b"], ("a", "b"), iter(["a", "b"])])
def test_subprotocols_are_names(value):
    assert read(subprotocols=value) == {"subprotocols": ("a", "b")}


def test_subprotocols_may_be_a_callable():
    def choose(offered, request): ...

    assert read(subprotocols=choose) == {"subprotocols": choose}


@pytest.mark.parametrize("value", ["chat", 5, [5], ["a", ""], [b"a"], [None]])
def test_subprotocols_are_nothing_else(value):
    message = refusal(subprotocols=value)
    assert f"The view function views.echo has subprotocols={value!r}" in message
    assert message.endswith("errors.html#websocket-options)")
