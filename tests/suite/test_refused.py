"""What is said where an application cannot run at all."""

import pytest
from runtimes import REQUESTS
from servers import DEADLINE


@pytest.mark.without(REQUESTS)
def test_the_server_ends_with_the_reason(runtime):
    pytest.importorskip("gevent")
    with runtime.serve("suite.app") as server:
        assert server.process.wait(DEADLINE) == 3
        assert "gevent has patched the threads of this process" in server.output
        assert server.output.count("Booting worker") == 1
