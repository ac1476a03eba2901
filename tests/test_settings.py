"""The settings: what they may be, and when they are read."""

import pytest
from inprocess import EXECUTOR, LOOP, answer, make_app, where
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.registry import Registry
from pyramid.response import Response

from aioext.interfaces import IExecutor, ISettings
from aioext.settings import SETTINGS, Settings


def read(**values):
    return Settings({f"aioext.{name}": value for name, value in values.items()})


def refusal(**values):
    with pytest.raises(ConfigurationError) as caught:
        read(**values)
    return str(caught.value)


def test_what_is_not_set_has_its_default():
    settings = Settings({"pyramid.includes": "aioext", "other.sync_views": "no"})
    assert settings.sync_views == "executor"
    assert settings.executor_workers == 32
    assert settings.gc_freeze is True
    for setting in SETTINGS:
        assert getattr(settings, setting.attribute) == setting.default


def test_every_default_is_allowed_and_described():
    for setting in SETTINGS:
        default = setting.default
        written = " ".join(default) if isinstance(default, tuple) else str(default)
        assert setting.cast(default) == default
        assert setting.cast(written) == default
        assert setting.prose.endswith(".")


def test_a_dot_in_a_name_is_an_underscore_in_the_attribute():
    attributes = [setting.attribute for setting in SETTINGS]
    assert "websocket_max_size" in attributes
    assert len(set(attributes)) == len(attributes)
    assert all(attribute.isidentifier() for attribute in attributes)
    assert set(Settings.__annotations__) == set(attributes)


@pytest.mark.parametrize("value", ["executor", "inline", "request"])
def test_sync_views_is_one_of_three(value):
    assert read(sync_views=value).sync_views == value


@pytest.mark.parametrize("value", ["threads", "", "Executor", None, ["inline"], True])
def test_sync_views_is_nothing_else(value):
    message = refusal(sync_views=value)
    assert message.startswith(
        f"The setting aioext.sync_views is {value!r}; "
        "it takes one of executor, inline, request.\n"
    )
    assert "errors.html#settings" in message


@pytest.mark.parametrize(("value", "number"), [("8", 8), (8, 8), (" 8 ", 8), ("1", 1)])
def test_executor_workers_is_a_number(value, number):
    assert read(executor_workers=value).executor_workers == number


@pytest.mark.parametrize("value", ["0", 0, "-1", "many", "", None, 2.5, "2.5", True])
def test_executor_workers_is_nothing_else(value):
    expected = f"{value!r}; it takes a whole number of at least 1."
    assert expected in refusal(executor_workers=value)


@pytest.mark.parametrize("value", ["true", "yes", "on", "1", True, " True ", 1])
def test_gc_freeze_may_be_true(value):
    assert read(gc_freeze=value).gc_freeze is True


@pytest.mark.parametrize("value", ["false", "no", "off", "0", False, "FALSE", 0])
def test_gc_freeze_may_be_false(value):
    assert read(gc_freeze=value).gc_freeze is False


@pytest.mark.parametrize("value", ["", "maybe", None, 2])
def test_gc_freeze_is_nothing_else(value):
    # Pyramid's asbool would take a misspelt "true" for false.
    assert f"{value!r}; it takes true or false." in refusal(gc_freeze=value)


ORIGINS = ("https://a.example", "https://*.b.example")


@pytest.mark.parametrize(
    "value",
    [
        "https://a.example https://*.b.example",
        "\n  https://a.example\n  https://*.b.example\n",
        list(ORIGINS),
        ORIGINS,
    ],
)
def test_origins_are_words(value):
    settings = read(**{"websocket.origins": value})
    assert settings.websocket_origins == ORIGINS


@pytest.mark.parametrize("value", [None, 5, [5], {"https://a.example": 1}])
def test_origins_are_nothing_else(value):
    expected = "it takes words, separated by spaces or on lines of their own."
    assert expected in refusal(**{"websocket.origins": value})


@pytest.mark.parametrize(
    ("value", "number"), [("20", 20.0), (20, 20.0), (" 0.5 ", 0.5), ("0", 0.0), (0, 0)]
)
def test_an_interval_is_a_number_of_seconds(value, number):
    settings = read(**{"websocket.ping_interval": value})
    assert settings.websocket_ping_interval == number


@pytest.mark.parametrize(
    "value", ["-1", -0.1, "inf", "nan", "soon", "", None, "20s", True]
)
def test_an_interval_is_nothing_else(value):
    expected = f"{value!r}; it takes a number of seconds, 0 for off."
    assert expected in refusal(**{"websocket.ping_interval": value})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("websocket.origin", "websocket.origins"),
        ("websocket.maxsize", "websocket.max_size"),
        ("websocket_max_size", "websocket.max_size"),
        ("sync_view", "sync_views"),
        ("syncviews", "sync_views"),
        ("executor_worker", "executor_workers"),
        ("gc_frezee", "gc_freeze"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_right_one(name, meant):
    message = refusal(**{name: "1"})
    assert f"There is no setting aioext.{name}. Did you mean aioext.{meant}?" in message
    assert "errors.html#settings" in message


def test_an_unknown_name_is_refused_with_all_there_are():
    message = refusal(color="red")
    assert message.startswith("There is no setting aioext.color.")
    for setting in SETTINGS:
        assert f"aioext.{setting.name}" in message


def test_names_of_others_are_left_alone():
    Settings({"aioextra.color": "red", "color": "red", 1: 2, None: None})


def test_a_bad_setting_is_told_where_aioext_is_included():
    config = Configurator(settings={"aioext.sync_views": "threads"})
    with pytest.raises(ConfigurationError, match=r"^The setting aioext\.sync_views"):
        config.include("aioext")


def test_a_bad_setting_that_is_added_later_stops_the_configuration():
    config = Configurator()
    config.include("aioext")
    config.add_settings({"aioext.sync_views": "threads"})
    with pytest.raises(ConfigurationError, match="sync_views is 'threads'"):
        config.make_wsgi_app()


def add_view(config):
    config.add_view(lambda request: Response(where()))


INLINE = {"aioext.sync_views": "inline"}


@pytest.mark.parametrize(
    "steps",
    [
        (lambda config: config.add_settings(INLINE), "aioext", add_view),
        ("aioext", lambda config: config.add_settings(INLINE), add_view),
        ("aioext", add_view, lambda config: config.add_settings(INLINE)),
    ],
    ids=["before", "after", "last"],
)
def test_settings_may_be_added_around_the_include(steps):
    assert answer(make_app(*steps)).body.decode() == LOOP


def test_an_included_module_may_add_settings():
    def add_on(config):
        config.add_settings({"aioext.executor_workers": "3"})

    app = make_app(lambda config: config.include(add_on), add_view)
    assert answer(app).body.decode() == EXECUTOR
    registry = app.app.registry
    assert registry.getUtility(ISettings).executor_workers == 3
    assert registry.getUtility(IExecutor).workers == 3


def test_a_registry_without_settings_has_the_defaults():
    registry = Registry("test")
    config = Configurator(registry=registry)
    assert registry.settings is None
    config.include("aioext")
    config.commit()
    assert registry.getUtility(ISettings).sync_views == "executor"
