"""On the next Flask and Werkzeug, and without what is private in them, all works."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import flask_wschat

pytestmark = pytest.mark.timeout(60)  # each starts a Python, which imports everything

PACKAGE = Path(flask_wschat.__file__).parent
PUBLIC = {
    *("flask", "flask.sessions", "flask.ctx"),
    *("werkzeug.datastructures", "werkzeug.debug", "werkzeug.exceptions"),
    *("werkzeug.routing", "werkzeug.serving", "werkzeug.test"),
    *("werkzeug.wrappers", "werkzeug.wsgi"),
    "itsdangerous",
}
"""Modules of others whose names are documented, if they begin with a letter."""
IMPORT = re.compile(r"^\s*from (?:flask|werkzeug|itsdangerous)\b", re.M)


def private_imports() -> set[str]:
    """Return what the package imports of Flask's and its own that nobody promised."""
    found = {"sys.getrefcount"}  # which not every Python has
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        if not IMPORT.search(text):  # parsing is dear, and each worker does it
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.ImportFrom) or node.level or not node.module:
                continue
            if node.module.partition(".")[0] in ("flask", "werkzeug", "itsdangerous"):
                found.update(
                    f"{node.module}.{item.name}"
                    for item in node.names
                    if node.module not in PUBLIC or item.name.startswith("_")
                )
    return found


PRIVATE = sorted(private_imports())


def outcome(*changes: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-m", "tests.next.pages", *changes],
        capture_output=True,
        text=True,
    )
    return answer.stdout + answer.stderr


@pytest.mark.parametrize(
    "changes",
    [["next"], ["unnamed"], ["next", *PRIVATE]],
    ids=["next", "unnamed", "next without anything private"],
)
def test_pages_and_sockets_on_the_next(changes: list[str]) -> None:
    assert outcome(*changes) == "fine\n"


@pytest.mark.slow
@pytest.mark.parametrize("gone", PRIVATE)
def test_pages_and_sockets_without(gone: str) -> None:
    assert outcome(gone) == "fine\n"


def test_what_is_private_is_found() -> None:
    assert "flask.globals._cv_app" in PRIVATE
    assert len(PRIVATE) < 12, "think twice before leaning on one more"
