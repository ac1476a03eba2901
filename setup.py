"""Metadata, extras and entry points; the tools' settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent

version = re.search(
    r'^__version__ = "(.+)"$',
    (here / "aioext" / "_version.py").read_text("utf-8"),
    re.MULTILINE,
)[1]

requires = [
    # The first whose getcurrent() raises while the interpreter ends.
    "greenlet >= 3.5.1",
    "pyramid >= 2.0",
    "websockets >= 15.0",
    "zope.interface",
]

gunicorn = [
    "gunicorn >= 27.0",
    (
        "uvloop >= 0.21; platform_python_implementation == 'CPython'"
        " and sys_platform != 'win32'"
    ),
]
# To build stylesheets and scripts.
assets = ["libsass >= 0.23", "rcssmin >= 1.2", "rjsmin >= 1.2"]
mako = ["pyramid_mako"]
orjson = ["orjson >= 3.10"]
scaffold = ["cookiecutter >= 2.6"]
sqlalchemy = [
    "pyramid_tm >= 2.5",
    # The first whose synchronous side runs in greenlets of others.
    "sqlalchemy >= 2.1",
    "zope.sqlalchemy >= 3.0",
]
testing = ["WebTest"]
uvicorn = ["uvicorn >= 0.36"]
# To be built with its asyncio mode; docs/uwsgi.rst says how.
uwsgi = ["uwsgi >= 2.0.31"]

lint = ["ruff >= 0.12"]
docs = ["sphinx >= 8"]

tests = [
    *assets,
    *docs,  # for the documentation, which is built
    *lint,  # for the code of generated projects
    *orjson,
    *sqlalchemy,
    *testing,
    "a2wsgi",
    "aiosqlite",
    "alembic",
    "anyio",
    "asyncpg",
    "babel",
    "bcrypt",  # for the application that is ported
    "cookiecutter >= 2.6",
    "cornice",
    "daphne",
    "flask",
    "gevent",
    "granian",
    "greenback",
    "h2",
    "hypercorn",
    "opentelemetry-instrumentation-pyramid",
    "opentelemetry-instrumentation-wsgi",
    "opentelemetry-sdk",
    "packaging",
    "paste",  # for its composite of applications
    "psycopg[binary]",
    "ptpython",  # for pshell
    "pyramid_beaker",
    "pyramid_chameleon",
    "pyramid_debugtoolbar",
    "pyramid_exclog",
    "pyramid_jinja2",
    "pyramid_mako",
    "pyramid_openapi3",
    "pyramid_retry",
    "pyramid_services",
    "pyramid_session_redis",
    "pytest >= 8.4",
    "pytest-cov >= 7.0",
    "redis",
    "selenium",
    # Pyramid reads assets through pkg_resources, which setuptools 82 dropped.
    "setuptools >= 77, < 82",
    "starlette",
    "tox",  # for the interpreters that it finds
    "trustme",
    "uvicorn",
    "waitress",
    "zope.component",  # for the tests of Pyramid
]
benchmarks = [
    *sqlalchemy,
    "a2wsgi",
    "aiohttp",
    "asyncpg",
    "fastapi",
    "gevent",
    "psycogreen",
    "psycopg[binary]",
    "psycopg2-binary",
    "pytest",  # for the PostgreSQL of the tests
    "sse-starlette",
    "starlette",
    "uvicorn",
    "whitenoise",
]

setup(
    name="aioext",
    version=version,
    description="Runs the Pyramid web framework on asyncio",
    long_description="\n\n".join(
        (here / name).read_text("utf-8") for name in ("README.rst", "CHANGES.rst")
    ),
    long_description_content_type="text/x-rst",
    author="The aioext authors",
    license_expression="BSD-3-Clause",
    license_files=["LICENSE"],
    keywords="pyramid asyncio asgi wsgi greenlet websocket gunicorn uwsgi",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Web Environment",
        "Framework :: AsyncIO",
        "Framework :: Pyramid",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Programming Language :: Python :: Implementation :: CPython",
        "Topic :: Internet :: WWW/HTTP",
        "Topic :: Internet :: WWW/HTTP :: WSGI",
    ],
    # The scaffolds stand beside the package, for they are projects and not
    # modules of this one; they are installed below it.
    packages=[*find_packages(include=["aioext", "aioext.*"]), "aioext.scaffolds"],
    package_dir={"aioext.scaffolds": "scaffolds"},
    package_data={
        "aioext": ["py.typed"],
        "aioext.scaffolds": ["**/*", "**/.*", "**/.*/**/*"],
    },
    exclude_package_data={"": ["**/__pycache__/*", "*.py[cod]"]},
    include_package_data=False,
    zip_safe=False,
    python_requires=">=3.11",
    install_requires=requires,
    extras_require={
        "assets": assets,
        "benchmarks": benchmarks,
        "docs": docs,
        "gunicorn": gunicorn,
        "lint": lint,
        "mako": mako,
        "orjson": orjson,
        "scaffold": scaffold,
        "sqlalchemy": sqlalchemy,
        "test": tests,
        "testing": testing,
        "uvicorn": uvicorn,
        "uwsgi": uwsgi,
    },
    entry_points={
        "console_scripts": [
            "aioext-assets = aioext.scripts.assets:main",
            "pcreate = aioext.scripts.pcreate:main",
        ],
        "paste.server_factory": ["uvicorn = aioext.asgi.uvicorn:make_server"],
        "pyramid.pshell_runner": ["aioext = aioext.pshell:run_shell"],
        "pyramid.scaffold": [
            "aio_starter = aioext.scaffolds:aio_starter",
            "aio_websocket = aioext.scaffolds:aio_websocket",
        ],
    },
)
