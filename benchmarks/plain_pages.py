"""What ``WSChat(app)`` costs a plain page: nothing that can be measured.

    python -m benchmarks.plain_pages [ROUNDS]

The same pages of two applications, one with the extension and one without, called as
WSGI does, without a server. Rounds alternate between the two; the ratio is the median
over the rounds of their CPU times, so that what else the machine does hits them alike.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from flask import Flask, session
from werkzeug.test import EnvironBuilder

from flask_wschat import WSChat

CALLS = 500


def build(extend: Callable[[Flask], Any]) -> Flask:
    app = Flask("app")
    app.secret_key = "signs, and guards nothing"
    app.add_url_rule("/hello", "hello", lambda: "Hello.")
    app.add_url_rule("/user", "user", lambda: str(session.get("user")))
    extend(app)
    return app


def cookie(app: Flask) -> str:
    interface: Any = app.session_interface
    value = interface.get_signing_serializer(app).dumps({"user": "ann"})
    return f"session={value}"


def seconds(app: Flask, environ: dict[str, Any]) -> float:
    """Return the CPU time of ``CALLS`` requests."""
    begun = time.process_time()
    for _ in range(CALLS):
        b"".join(app(environ.copy(), lambda *_: lambda data: None))
    return time.process_time() - begun


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    plain, ours = build(lambda app: None), build(WSChat)
    for path in ("/hello", "/user", "/nowhere"):
        builder = EnvironBuilder(path, headers=[("Cookie", cookie(plain))])
        environ = builder.get_environ()
        seconds(plain, environ), seconds(ours, environ)  # warm
        pairs = [
            (seconds(plain, environ), seconds(ours, environ)) for _ in range(rounds)
        ]
        ratio = statistics.median(with_it / without for without, with_it in pairs)
        each = statistics.median(without for without, _ in pairs) / CALLS * 1e6
        print(f"{path:10} {each:6.1f} µs without, ratio with WSChat {ratio:.3f}")


if __name__ == "__main__":
    main()
