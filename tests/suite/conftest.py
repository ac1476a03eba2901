"""Which tests of the suite run on which runtime.

A test that has the fixture ``served``, or the parameter ``runtime``, runs on each
runtime that has the features it is marked with::

    @pytest.mark.feature(CHUNKED)
    def test_a_chunked_upload_is_seen(server): ...

    @pytest.mark.without(CHUNKED)
    def test_a_chunked_upload_is_refused(server): ...

The second one runs on those that lack it, and ``either`` on both. So there is nothing
to skip. ``@pytest.mark.only("gunicorn on uvloop")`` is for what is not about a feature.

A server is started once for all of the tests that share it; they run in its turn.
``@pytest.mark.serves("worker_app")`` tells what a test starts for itself. Either is
started while the test before it runs, for that takes more time than most tests do.
"""

from pathlib import Path

import pytest
from runtimes import ALL, FEATURES, REQUESTS, RUNTIMES, Runtime, close_started

from .running import start

MARKS = (
    "feature(*names): runs where all of them are, and shows that they work",
    "without(*names): runs where one of them is lacking, and shows what happens then",
    "either(*names): runs where they are and where one is lacking, and shows both",
    "only(*names): runs on these runtimes",
    "serves(app): begins with runtime.serve(app)",
)
PARAMETERS = ("running", "runtime")
# Of tracebacks: those on purpose, what daphne says of codes that it does not send, and
# uWSGI of clients that left code beside Pyramid; a form that wsgiref does not read.
EXPECTED = (
    "Expected: ",
    "invalid close code",
    "OSError: error during",
    "OSError: write",
    "KeyError: 'a'",
)
# Runtimes whose server, for all tests that share it, has been started.
SHARED = set()
# The names of the modules, and the pairs (feature, runtime) that tests are about.
COLLECTED = pytest.StashKey()


def pytest_configure(config):
    for line in MARKS:
        config.addinivalue_line("markers", line)


def features_of(definition):
    """The features that a test needs, those it may lack, and its only runtimes."""
    names = {
        kind: [each for mark in definition.iter_markers(kind) for each in mark.args]
        for kind in ("feature", "without", "either", "only")
    }
    needed = names["feature"] + names["either"]
    lacking = names["without"] + names["either"]
    assert FEATURES.keys() >= {*needed, *lacking}, definition
    assert RUNTIMES.keys() >= {*names["only"]}, definition
    return needed, lacking, names["only"]


def runs_on(runtime, needed, lacking, only):
    if only:
        return runtime.name in only
    has_them = all(
        runtime.has(each) or (each in lacking and runtime.may_lack(each))
        for each in needed
    )
    missing = set(lacking) - set(needed)
    has_to_miss = not missing or any(map(runtime.may_lack, missing))
    return has_them and has_to_miss and (runtime.has(REQUESTS) or REQUESTS in lacking)


def pytest_generate_tests(metafunc):
    for name in PARAMETERS:
        if name in metafunc.fixturenames:
            marked = features_of(metafunc.definition)
            metafunc.parametrize(
                name,
                [each for each in ALL if runs_on(each, *marked)],
                ids=str,
                indirect=name == "running",
                scope="session",
            )


def runtime_of(item):
    callspec = getattr(item, "callspec", None)
    params = callspec.params.values() if callspec else ()
    # Tests elsewhere may have parameters of these names.
    return next((each for each in params if isinstance(each, Runtime)), None)


@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_collection_modifyitems(config, items):
    collected = list(items)
    try:
        return (yield)
    finally:
        describe(config, collected)
        order(items)


def describe(config, items):
    """Have reports tell what they are about."""
    here = Path(__file__).parent
    modules, shown = set(), set()
    for item in items:
        if item.path.parent == here:
            modules.add(item.path.name)
        runtime = runtime_of(item)
        if runtime is not None:
            needed, lacking, _ = features_of(item)
            features = [*needed, *lacking]
            item.user_properties.append(("runtime", runtime.name))
            item.user_properties.append(("features", features))
            shown |= {(each, runtime.name) for each in features}
    config.stash[COLLECTED] = modules, shown


def order(items):
    """Have all tests of one runtime follow each other, in the places of them all."""
    places = [n for n, item in enumerate(items) if runtime_of(item) is not None]
    numbers = {name: number for number, name in enumerate(RUNTIMES)}
    ordered = sorted(
        (items[place] for place in places), key=lambda i: numbers[runtime_of(i).name]
    )
    for place, item in zip(places, ordered, strict=True):
        items[place] = item


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    if nextitem is not None:
        start_early(item, nextitem)
    return (yield)


def start_early(item, following):
    mark = following.get_closest_marker("serves")
    if "running" in item.fixturenames:
        SHARED.add(runtime_of(item))
    runtime = runtime_of(following)
    if runtime is None:
        return
    if mark is not None:
        runtime.start_early(*mark.args)
    elif "running" in following.fixturenames and runtime not in SHARED:
        runtime.start_early("suite.app")


def pytest_sessionfinish():
    close_started()


@pytest.fixture(scope="session")
def running(request):
    """The application ``suite/app.py`` on a runtime, a :class:`running.Running`."""
    with start(request.param) as running:
        yield running
        assert_clean(running.output)


def assert_clean(output):
    """There is no traceback but of what was raised on purpose."""
    count = output.count
    chained = count("During handling of the above") + count("was the direct cause of")
    assert count("Traceback") - chained <= sum(map(count, EXPECTED)), output
