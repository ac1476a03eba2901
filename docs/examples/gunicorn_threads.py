"""gunicorn.conf.py, for its worker ``gthread``."""

from aioext.background import stop_at_signals

worker_class = "gthread"
threads = 16


def post_worker_init(worker):
    stop_at_signals(worker.cfg.graceful_timeout)
