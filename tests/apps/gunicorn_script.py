"""The script ``gunicorn``, which can be run again by its path: SIGUSR2 does so.

``python -m gunicorn`` cannot: gunicorn runs itself again as a script of the directory
that the module is in, whose ``http`` then hides Python's.
"""

from gunicorn.app.wsgiapp import run

if __name__ == "__main__":
    run()
