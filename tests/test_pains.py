"""The twenty complaints that users of WebSocket libraries repeat, and our answers.

Each is proven by a test that bears its number, ``@pytest.mark.pain(4)``; ``pytest -m
pain`` runs them all.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PAINS = {
    1: "one dead peer ends the broadcast, or stops the server",
    2: "concurrent sends mix their bytes, or raise",
    3: "a short write truncates a large message",
    4: "a slow client blocks everybody, or eats the memory",
    5: "a burst is too many packets",
    6: "several workers need sticky sessions",
    7: "a silent death is noticed minutes later",
    8: "patching by gevent, too late or in part, breaks what cannot be guessed",
    9: "what a thread emits arrives late, or never",
    10: "the debug mode and the reloader do not work",
    11: "any origin may connect, or none behind an HTTPS proxy",
    12: "nobody can be refused before the socket is open",
    13: "who logs out stays connected, and what a session is given vanishes",
    14: "who is online, and a message to one user, are left to the application",
    15: "what was said while a client was away is lost",
    16: "the subscription to Redis dies, and nobody notices",
    17: "idle sockets hold the connections of the database's pool",
    18: "refused and broken clients leak memory and descriptors",
    19: "a restart hangs, or cuts everybody off at once",
    20: "client and server have to be of matching versions",
}
HERE = Path(__file__).parent


def marked(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the name of each test that proves something, and what."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func).endswith(
                    "mark.pain"
                ):
                    assert isinstance(mark.args[0], ast.Constant)
                    yield node.name, int(str(mark.args[0].value))


@pytest.fixture(scope="module")
def proofs() -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for path in sorted(HERE.rglob("test_*.py")):
        for name, number in marked(ast.parse(path.read_text())):
            found.setdefault(number, []).append(f"{path.relative_to(HERE)}::{name}")
    return found


@pytest.mark.parametrize("number", PAINS, ids=[f"{n}: {PAINS[n]}" for n in PAINS])
def test_it_is_none_here(number: int, proofs: dict[int, list[str]]) -> None:
    assert proofs.get(number), f"no test has @pytest.mark.pain({number})"


def test_no_number_is_made_up(proofs: dict[int, list[str]]) -> None:
    assert proofs.keys() <= PAINS.keys(), proofs
