"""``aioext-assets``: build the files of ``config.add_built_asset`` ahead of time.

The application is loaded as ``pserve`` loads it, and nothing of it is opened or
served. What is built is found by the application if both have the same
:confval:`aioext.assets.cache_dir`, and the same sources at the same paths. A file may
be built while the application serves.

``watch`` looks at the times of the sources again and again, which works on every file
system.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from pyramid.config import global_registries
from pyramid.exceptions import ConfigurationError
from pyramid.paster import get_app, setup_logging

from ..assets.built.asset import BuiltAsset
from ..exceptions import BuildError
from ..interfaces import IBuiltAssets

__all__ = ["main"]

INTERVAL = 0.5


class _Unusable(Exception):
    # What was given cannot be used; the message is for the user.
    pass


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with ``argv``, or the process' arguments.

    Returns:
        The exit status: 0; 1 if a file could not be built or the application not be
        loaded, which has then been reported on standard error; 2 for wrong arguments.
    """
    options = _parser().parse_args(argv)
    # Commands that run are to be ended as well.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return options.run(options)
    except _Unusable as error:
        print(f"aioext-assets: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("aioext-assets: interrupted", file=sys.stderr)
    except BrokenPipeError:
        # Nothing is to be written when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aioext-assets",
        description="Build the files of an application that are built from others.",
        epilog="Example: aioext-assets build production.ini",
    )
    version = importlib.metadata.version("aioext")
    parser.add_argument(
        "--version", action="version", version=f"aioext-assets (aioext {version})"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="build what is not up to date")
    build.add_argument(
        "-f", "--force", action="store_true", help="build what is up to date, too"
    )
    build.set_defaults(run=_build)
    watch = commands.add_parser("watch", help="build whenever a source changes")
    watch.add_argument(
        "-i",
        "--interval",
        type=_seconds,
        default=INTERVAL,
        metavar="SECONDS",
        help=f"between two looks at the sources (default: {INTERVAL})",
    )
    watch.set_defaults(run=_watch)
    for each in (build, watch):
        each.add_argument(
            "ini", metavar="FILE", help="an .ini file, or file#name for another section"
        )
        each.add_argument(
            "variables",
            metavar="NAME=VALUE",
            nargs="*",
            type=_variable,
            help="a variable of the file",
        )
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError
    return seconds


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _build(options: Any) -> int:
    assets = list(_assets(_load(options)))
    if not assets:
        print(f"{options.ini}: the application builds no files.")
    failed = 0
    for number, asset in enumerate(assets, 1):
        prefix = f"[{number}/{len(assets)}] "
        failed += not _make(asset, prefix, options.force)
    if failed:
        print(f"aioext-assets: {failed} of {len(assets)} failed", file=sys.stderr)
    return 1 if failed else 0


def _watch(options: Any) -> int:
    registries = _load(options)
    number = len(list(_assets(registries)))
    print(f"Watching the sources of {number} files; Ctrl-C ends it.", flush=True)
    failed: dict[BuiltAsset, Any] = {}
    try:
        while True:
            _look(registries, failed)
            time.sleep(options.interval)
    except KeyboardInterrupt:
        return 0


def _look(registries: list[Any], failed: dict[BuiltAsset, Any]) -> None:
    # What has failed is not tried again before something has changed.
    for asset in _assets(registries):
        inputs = asset.inputs()
        if asset.is_due() and failed.get(asset) != inputs:
            failed[asset] = None if _make(asset) else inputs


def _make(asset: BuiltAsset, prefix: str = "", force: bool = False) -> bool:
    print(f"{prefix}{asset.spec}", end=" ", flush=True)
    began = time.perf_counter()
    try:
        built = asset.build(force=force)
    except BuildError as error:
        print("failed", flush=True)
        print(f"aioext-assets: {error.args[0]}", file=sys.stderr)
        return False
    seconds = time.perf_counter() - began
    size = os.path.getsize(asset.path())
    told = f"built in {seconds:.2f} s" if built else "is up to date"
    print(f"{told}, {size:,} bytes", flush=True)
    return True


def _load(options: Any) -> list[Any]:
    # The registries of all applications in the file, and of what is mounted in them.
    ini, variables = options.ini, dict(options.variables)
    path = ini.partition("#")[0]
    if not os.path.isfile(path):
        raise _Unusable(f"there is no file {path}")
    before = list(global_registries)
    try:
        setup_logging(ini, variables)
        get_app(ini, options={**variables, "__script__": "aioext-assets"})
    except ConfigurationError as error:
        raise _Unusable(f"{ini}: {error}") from error
    except LookupError as error:
        if type(error) is not LookupError:
            # An application's own.
            raise
        # PasteDeploy's: there is no such section.
        raise _Unusable(f"{ini}: {error}") from error
    # They are dictionaries as well, of which two may be equal.
    known = set(map(id, before))
    return [each for each in global_registries if id(each) not in known]


def _assets(registries: list[Any]) -> Iterator[BuiltAsset]:
    for registry in registries:
        yield from registry.queryUtility(IBuiltAssets, default=())


if __name__ == "__main__":
    sys.exit(main())
