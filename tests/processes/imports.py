"""What gunicorn's workers import, done by their master: they begin with it.

A worker's start and end are 0.15 s of the processor's time so, and 0.5 otherwise; the
tests here start a hundred. How a worker fares that patches by itself is tested with the
commands of the pages, in `tests.servers`, and with the demos.
"""

from __future__ import annotations

import atexit
import gc
import importlib

from gevent import monkey

NAMES = [
    "flask",
    "flask_wschat.chat.listener",
    "flask_wschat.backends.redis",
    "flask_wschat.backends.sqlite.backend",
]

monkey.patch_all()
for name in NAMES:
    importlib.import_module(name)

# Or a process that ends looks at all of that for garbage, several times.
atexit.register(gc.freeze)
