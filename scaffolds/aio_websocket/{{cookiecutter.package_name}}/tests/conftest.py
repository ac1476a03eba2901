"""What the tests share."""

import pytest
from aioext.testing import TestApp

from {{ cookiecutter.package_name }} import main


@pytest.fixture
def app():
    """The whole application, to be connected to without a server."""
    with TestApp(main({})) as app:
        yield app
