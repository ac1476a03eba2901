"""The runtime of any ASGI server: uvicorn, hypercorn, granian, daphne.

::

    from aioext.asgi import Gateway
    application = Gateway(wsgi_application)

For a Pyramid application, ``config.make_asgi_app()`` gives the same.
"""

from .gateway import Gateway as Gateway

__all__ = ["Gateway"]
