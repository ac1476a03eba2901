"""What the tests share."""

import pytest
from webtest import TestApp

from {{ cookiecutter.package_name }} import main


@pytest.fixture(scope="session")
def app(tmp_path_factory):
    """The whole application, to be asked for pages without a server."""
    cache = tmp_path_factory.mktemp("cache")
    return TestApp(main({}, **{"aioext.assets.cache_dir": str(cache)}))
