"""Several applications in one process: ``config.add_mount``; see :doc:`/mounts`.

Theory of operation
===================

A Pyramid application is the one that the server knows. Its execution policy, which
sees every request before anything else of it does, looks into a table by host and path
(:mod:`.table`), and what it finds there answers in the application's place, with a copy
of the environ in which the path has moved to ``SCRIPT_NAME``. So it works on every
server and beneath any middleware, and nothing of the application around it (tweens, its
request, its exception views) is there for what is mounted.

Everything that is mounted is made a WSGI application (:mod:`.mount`):

* a Pyramid application that includes aioext is called where the request is;
* another WSGI application is called in threads (:mod:`.blocking`), for it may block;
* an ASGI application is handed the request as the server gave it
  (:mod:`aioext.passage`), or is talked to (:mod:`.conversation`) where there is no ASGI
  server, or middleware of WSGI stands between.

Their lifespans are lifespans of the application around them; :mod:`.lifespan` has those
of ASGI applications.

Things that do not work
=======================

* A tween, or a view with ``wsgiapp2``: the request of the application around would be
  current, and its transaction open, and a stream would be a body like any other.
* Middleware around the application: its registry, by which servers find its lifespan
  and its settings, would be hidden.
* Changing the environ in place: whoever logs the request, or asks for it again, would
  find the path that is left.
"""
