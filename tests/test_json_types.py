"""What values become in JSON, by both encoders."""

import asyncio
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import random
import sys
import uuid

import pyramid
import pytest
from hook_apps import make
from pyramid.exceptions import ConfigurationError
from pyramid.renderers import JSON, render
from pyramid.testing import DummyRequest

from aioext.renderers import JSONRenderer
from aioext.renderers.encoding import duration

ENCODERS = ["stdlib", "orjson"]
SEED = 2026
VALUES = 400


def text_by(library, renderer=None):
    """A function that gives the JSON of a value as an application renders it."""
    if library == "orjson":
        pytest.importorskip("orjson")

    def include(config):
        config.include("aioext.renderers.json")
        if renderer is not None:
            config.add_renderer("json", renderer)

    registry = make(include, settings={"aioext.json": library}).registry

    def text(value):
        request = DummyRequest()
        request.registry = registry
        return render("json", value, request, pyramid)

    return text


@pytest.fixture(scope="module", params=ENCODERS)
def text(request):
    return text_by(request.param)


@pytest.fixture(scope="module")
def both():
    """The JSON of a value, by each encoder."""
    texts = [text_by(library) for library in ENCODERS]
    return lambda value: [text(value) for text in texts]


class Color(enum.Enum):
    RED = "red"
    PAIR = (1, decimal.Decimal("2"))
    DAY = dt.date(2026, 1, 2)


class Level(enum.IntEnum):
    LOW = 1


class Name(enum.StrEnum):
    JOE = "joe"


class Flags(enum.Flag):
    A = 1
    B = 2


@dataclasses.dataclass
class Point:
    x: int
    y: dt.date
    _secret: str = "secret"


@dataclasses.dataclass(slots=True, frozen=True)
class Box:
    corner: Point
    names: frozenset = frozenset()


Pair = collections.namedtuple("Pair", "one two")


class Text(str):
    __slots__ = ()

    def __str__(self):
        return "another"


class Real(float):
    pass


class Whole(int):
    pass


class Row(dict):
    def items(self):
        return [(key, f"{value}!") for key, value in super().items()]


class Shown:
    def __json__(self, request):
        return {"shown": {3, 1, 2}}


async def awaited(value):
    await asyncio.sleep(0)
    return value


class Awaited:
    def __init__(self, value):
        self.value = value

    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return self.value


async def asynchronous(*items):
    for item in items:
        await asyncio.sleep(0)
        yield item


UTC = dt.UTC
IDENTITY = uuid.UUID("12345678-1234-5678-1234-567812345678")

TYPES = [
    (dt.date(2026, 1, 2), "2026-01-02"),
    (dt.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),
    (dt.datetime(2026, 1, 2, 3, 4, 5, 6, UTC), "2026-01-02T03:04:05.000006+00:00"),
    (dt.time(3, 4, 5), "03:04:05"),
    (dt.time(3, 4, tzinfo=UTC), "03:04:00+00:00"),
    (dt.timedelta(days=1, hours=2, minutes=3, seconds=4.5), "P1DT2H3M4.5S"),
    (decimal.Decimal("1.10"), "1.10"),
    (decimal.Decimal("NaN"), "NaN"),
    (IDENTITY, str(IDENTITY)),
    (Color.RED, "red"),
    (Color.PAIR, [1, "2"]),
    (Color.DAY, "2026-01-02"),
    (Level.LOW, 1),
    (Name.JOE, "joe"),
    (Flags.A | Flags.B, 3),
    (Point(1, dt.date(2026, 1, 2)), {"x": 1, "y": "2026-01-02"}),
    (
        Box(Point(1, dt.date(2026, 1, 2)), frozenset("ba")),
        {"corner": {"x": 1, "y": "2026-01-02"}, "names": ["a", "b"]},
    ),
    ({3, 1, 2}, [1, 2, 3]),
    (frozenset(), []),
    ({IDENTITY}, [str(IDENTITY)]),
    (Pair(1, {2}), [1, [2]]),
    (Text("text"), "text"),
    (Real(1.5), 1.5),
    (Real("nan"), None),
    (Whole(2), 2),
    (Row(a=1), {"a": "1!"}),
    (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    (Shown(), {"shown": [1, 2, 3]}),
    (math.inf, None),
    (-math.inf, None),
    (2**64, 2**64),
    (-(2**70), -(2**70)),
    ("\ud800", "\ud800"),
    ("</script>\u2028é", "</script>\u2028é"),
]

# Each is made anew: it can be had only once.
ONCE = [
    (lambda: (number for number in (1, 2)), [1, 2]),
    (lambda: map(str, (1, 2)), ["1", "2"]),
    (lambda: iter(()), []),
    (lambda: asynchronous(1, {2}), [1, [2]]),
    (lambda: awaited({1}), [1]),
    (lambda: Awaited(Awaited({1})), [1]),
    (lambda: awaited(awaited(asynchronous(awaited(1)))), [1]),
]


@pytest.mark.parametrize(("value", "expected"), TYPES, ids=lambda it: repr(it)[:30])
def test_a_value_anywhere_becomes(text, value, expected):
    assert json.loads(text(value)) == expected
    assert json.loads(text({"a": [value], "b": (value,)})) == {
        "a": [expected],
        "b": [expected],
    }


@pytest.mark.parametrize(("make_value", "expected"), ONCE)
def test_what_can_be_had_once_becomes(text, make_value, expected):
    assert json.loads(text(make_value())) == expected
    assert json.loads(text({"a": [make_value()]})) == {"a": [expected]}


@pytest.mark.parametrize("spoiling", [math.nan, 2**70, "\ud800", {1: 2}])
@pytest.mark.parametrize(("make_value", "expected"), ONCE)
def test_what_can_be_had_once_is_had_once(text, spoiling, make_value, expected):
    # What one encoder refuses, after it has converted the rest, is encoded anew.
    first, _ = json.loads(text([make_value(), spoiling]))
    assert first == expected


def test_the_same_awaitable_may_stand_in_two_places(text):
    value = awaited(1)
    assert json.loads(text([value, value])) == [1, 1]


@pytest.mark.parametrize(
    "value",
    [object(), b"bytes", bytearray(b"b"), memoryview(b"m"), 1j, Point, Color, len],
    ids=repr,
)
def test_what_is_no_json_is_refused(text, value):
    with pytest.raises(TypeError, match="is not JSON serializable") as caught:
        text({"a": value})
    assert "#not-json" in str(caught.value)


@pytest.mark.parametrize("key", [IDENTITY, dt.date(2026, 1, 2), (1,), b"key"])
def test_keys_are_what_python_takes_for_keys(text, key):
    with pytest.raises(TypeError, match="keys must be str, int, float, bool or None"):
        text({key: 1})


def test_keys_become_strings(both):
    value = {1: 1, 1.5: 2, None: 3, Name.JOE: 4, Text("text"): 5, False: 6}
    one, other = map(json.loads, both(value))
    assert one == other
    assert list(one) == ["1", "1.5", "null", "joe", "text", "false"]


def test_a_key_that_is_no_number(both):
    assert [json.loads(each) for each in both({math.nan: 1})] == [{"nan": 1}] * 2


@pytest.mark.parametrize("spoiling", [0, math.nan])
def test_what_contains_itself_is_refused(text, spoiling):
    value = {"spoiling": spoiling}
    value["self"] = [value]
    with pytest.raises(ValueError, match="Circular reference"):
        text(value)


@pytest.mark.parametrize("spoiling", [0, math.nan])
def test_what_stands_in_two_places_does_not_contain_itself(text, spoiling):
    value = [{1}]
    assert json.loads(text([value, value, spoiling]))[:2] == [[[1]], [[1]]]


def test_deep_nesting(both):
    value = leaf = []
    for _ in range(400):
        leaf.append([])
        leaf = leaf[0]
    one, other = both(value)
    assert json.loads(one) == json.loads(other) == value


@pytest.mark.parametrize("error", [LookupError, TypeError, ValueError, SystemExit])
def test_what_a_conversion_raises_is_raised(text, error):
    class Broken:
        def __json__(self, request):
            raise error("broken")

    with pytest.raises(error, match="broken") as caught:
        text({"a": [Broken()]})
    assert caught.value.__context__ is None


def test_coroutines_that_will_not_be_awaited_are_closed(text):
    async def fail():
        raise LookupError("here")

    rest = [awaited(2), (awaited(3),)]
    with pytest.raises(LookupError):
        text({"a": fail(), "b": rest, "c": {"d": awaited(4)}})
    # Python would complain, which is an error here.


# Durations --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "PT0S"),
        (1, "PT1S"),
        (60, "PT1M"),
        (3600, "PT1H"),
        (86_400, "P1D"),
        (86_401, "P1DT1S"),
        (0.5, "PT0.5S"),
        (0.000001, "PT0.000001S"),
        (-1, "-PT1S"),
        (-86_400.25, "-P1DT0.25S"),
    ],
)
def test_a_duration(seconds, expected):
    assert duration(dt.timedelta(seconds=seconds)) == expected


@pytest.mark.parametrize("value", [dt.timedelta.max, dt.timedelta.min])
def test_the_longest_durations(value):
    assert duration(value).lstrip("-").startswith("P999999999D")


# Both encoders ----------------------------------------------------------------


def any_value(chance, depth=4):
    """A value at random, as an application might have it."""
    leaves = [
        lambda: chance.choice([None, True, False, "", 'é\n"\\\u2028', "\x00\x1f"]),
        lambda: chance.randint(-(2**66), 2**66),
        lambda: chance.uniform(-1e3, 1e3),
        lambda: chance.choice([1e16, 1e-7, 5e-324, 1.7e308, -0.0, math.nan, math.inf]),
        lambda: dt.datetime.fromtimestamp(chance.randint(0, 2**32), UTC),
        lambda: dt.timedelta(microseconds=chance.randint(-(2**50), 2**50)),
        lambda: decimal.Decimal(chance.randint(-9999, 9999)) / 7,
        lambda: uuid.UUID(int=chance.getrandbits(128)),
        lambda: chance.choice([*Color, *Level, *Name, Flags.B]),
        lambda: {chance.randint(0, 9) for _ in range(4)},
        lambda: Shown(),
        lambda: Text("text"),
        lambda: chance.choice(["\udfff", "\U0001f600"]),
    ]
    inner = [
        lambda: [any_value(chance, depth - 1) for _ in range(chance.randint(0, 4))],
        lambda: tuple(any_value(chance, depth - 1) for _ in range(2)),
        lambda: Pair(any_value(chance, depth - 1), 1),
        lambda: Point(any_value(chance, depth - 1), dt.date.today()),
        lambda: {
            chance.choice(["a", "b", 1, 1.5, None, True, Text("t")]): any_value(
                chance, depth - 1
            )
            for _ in range(chance.randint(0, 4))
        },
        lambda: Row(a=any_value(chance, 0)),
    ]
    return chance.choice(leaves + inner * 3 if depth else leaves)()


def test_both_encoders_write_the_same(both):
    chance = random.Random(SEED)
    for _ in range(VALUES):
        value = any_value(chance)
        one, other = both(value)
        assert json.loads(one) == json.loads(other), value


def refuse(constant):
    raise AssertionError(constant)


def test_what_is_written_is_json_as_the_rfc_has_it(both):
    chance = random.Random(SEED)
    for _ in range(VALUES):
        for each in both(any_value(chance)):
            json.loads(each, parse_constant=refuse)


class Told(enum.Enum):
    ONE = 1

    def __json__(self, request):
        return "told"


def fragment():
    return pytest.importorskip("orjson").Fragment(b'{"a": 1}')


# What differs: a value, and what comes of it by each encoder.
DIFFERENCES = [
    # orjson writes an Enum's value without asking it.
    (lambda: Told.ONE, "told", 1),
    # A type of orjson's own.
    (fragment, TypeError, {"a": 1}),
]


@pytest.mark.parametrize(("make_value", "by_stdlib", "by_orjson"), DIFFERENCES)
def test_the_differences(make_value, by_stdlib, by_orjson):
    for library, expected in zip(ENCODERS, (by_stdlib, by_orjson), strict=True):
        text = text_by(library)
        if expected is TypeError:
            with pytest.raises(TypeError):
                text(make_value())
        else:
            assert json.loads(text(make_value())) == expected


def test_the_texts_differ_in_spaces_and_escapes(both):
    assert both({"a": [1, "é"]}) == ['{"a": [1, "\\u00e9"]}', '{"a":[1,"é"]}']


@pytest.mark.parametrize("library", ENCODERS)
@pytest.mark.parametrize("type_", [uuid.UUID, enum.Enum, dt.datetime, set])
def test_an_adapter_is_asked_before_anything_else(library, type_):
    renderer = JSONRenderer(adapters=[(type_, lambda value, request: "adapted")])
    value = [IDENTITY, Color.RED, dt.datetime(2026, 1, 1), {1}]
    adapted = json.loads(text_by(library, renderer)(value))
    expected = [uuid.UUID, enum.Enum, dt.datetime, set].index(type_)
    assert [each == "adapted" for each in adapted] == [
        place == expected for place in range(4)
    ]


@pytest.mark.parametrize("library", ENCODERS)
def test_every_value_of_a_type_is_adapted(library):
    renderer = JSONRenderer(adapters=[(dt.date, lambda value, request: "adapted")])
    text = text_by(library, renderer)
    assert json.loads(text([dt.date(2026, 1, 1)] * 3)) == ["adapted"] * 3


def test_a_type_whose_values_have_no_attributes_is_looked_up_once():
    class Counting(JSONRenderer):
        count = 0

        def _adapter_of(self, spec):
            self.count += 1
            return super()._adapter_of(spec)

    renderer = Counting()
    text_by("stdlib", renderer)([dt.date(2026, 1, 1)] * 1000)
    assert renderer.count < 10


def test_members_that_cannot_be_compared(text):
    assert sorted(json.loads(text({1, "a", 2.5})), key=str) == [1, 2.5, "a"]


def test_a_single_value_may_have_json_of_its_own(text):
    one, other = Point(1, 2), Point(1, 2)
    other.__json__ = lambda request: "own"
    assert json.loads(text([one, other, one]))[1] == "own"


@pytest.mark.parametrize("library", ENCODERS)
def test_options_are_those_of_the_standard_library(library):
    renderer = JSONRenderer(indent=1, sort_keys=True)
    assert text_by(library, renderer)({"b": {1}, "a": 2}) == (
        '{\n "a": 2,\n "b": [\n  1\n ]\n}'
    )


@pytest.mark.parametrize(("allowed", "expected"), [(True, "[NaN]"), (False, None)])
def test_an_option_says_what_nan_becomes(allowed, expected):
    text = text_by("stdlib", JSONRenderer(allow_nan=allowed))
    if expected is None:
        with pytest.raises(ValueError, match="not JSON compliant"):
            text([math.nan])
    else:
        assert text([math.nan]) == expected


@pytest.mark.parametrize("result", ["str", b"bytes"])
def test_a_serializer_of_ones_own(result):
    def serialize(value, default, **options):
        assert (default({1}), options) == ([1], {"own": True})
        return result

    assert text_by("orjson", JSONRenderer(serialize, own=True))([]) == result


def test_pyramids_renderer_is_as_it_was():
    text = text_by("stdlib", JSON())
    assert text([math.nan]) == "[NaN]"
    with pytest.raises(TypeError, match="is not JSON serializable"):
        text({1})


def test_a_library_that_is_missing_is_told(monkeypatch):
    from aioext.renderers import encoding

    encoding._orjson.cache_clear()
    monkeypatch.setitem(sys.modules, "orjson", None)
    with pytest.raises(ConfigurationError, match=r"aioext\[orjson\]"):
        make(
            lambda config: config.include("aioext.renderers.json"),
            settings={"aioext.json": "orjson"},
        )
    assert text_by("stdlib")({1}) == "[1]"


def test_there_are_two_libraries():
    with pytest.raises(ConfigurationError, match="one of stdlib, orjson"):
        make(settings={"aioext.json": "ujson"})
