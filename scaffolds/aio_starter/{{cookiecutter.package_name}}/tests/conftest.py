"""What the tests share."""

import pytest
from webtest import TestApp

from {{ cookiecutter.package_name }} import main


@pytest.fixture(scope="session")
def app():
    """The whole application, to be asked for pages without a server."""
    return TestApp(main({}))
