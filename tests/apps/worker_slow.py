"""An application whose import takes until a file is there."""

import os
import time

os.write(1, b"importing\n")
deadline = time.monotonic() + 30
while not os.path.exists(os.environ["GO_ON"]):
    if time.monotonic() > deadline:
        raise RuntimeError("nobody made the file")
    time.sleep(0.01)


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"imported"]
