"""A bad network between a client and a server of a test, see `proxy.mjs`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from .programs import program


class Network:
    """A way to ``target``, a port of this machine; ``port`` is where it begins.

    In a ``with`` block it is there, and good until it is told otherwise.
    """

    def __init__(self, target: int) -> None:
        self._process = subprocess.Popen(
            [
                program("nodejs", "node"),
                Path(__file__).with_name("proxy.mjs"),
                str(target),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.port: int = self._answer()

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, and all connections through it."""
        self._process.communicate()

    def set(self, **so: float | bool | str) -> None:
        """Let it be so from now on; see `proxy.mjs`."""
        self._ask("set", so)

    def vanish(self) -> None:
        """Let packets vanish, without a word to either end, until ``set``."""
        self._ask("vanish")

    def lose(self) -> None:
        """Let nothing through the connections of now ever again; new ones are good."""
        self._ask("lose")

    def cut(self) -> None:
        """Reset the connections of now."""
        self._ask("cut")

    @property
    def open(self) -> int:
        """How many connections there are."""
        found: int = self._ask("open")
        return found

    def _ask(self, *question: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())
