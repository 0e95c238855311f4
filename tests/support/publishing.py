"""A program without an application that calls a publisher.

    python -m tests.support.publishing URL

It reads the name, arguments and options of calls from stdin, and prints a line of JSON
for each result.
"""

from __future__ import annotations

import gc
import json
import sys
from typing import Any

from flask import Flask

from flask_wschat import WSChat


def plain(result: Any) -> Any:
    """Return what JSON can say of it."""
    if isinstance(result, list):
        return [plain(each) for each in result]
    if hasattr(result, "_asdict"):
        return {k: plain(v) for k, v in result._asdict().items()}
    return result.hex() if isinstance(result, bytes) else result


if __name__ == "__main__":
    with WSChat.publisher(sys.argv[1]) as chat:
        for name, args, options in json.loads(sys.stdin.read()):
            result = getattr(chat, name)(*args, **options)
            print(json.dumps(plain(result)), flush=True)
    assert not [thing for thing in gc.get_objects() if isinstance(thing, Flask)]
