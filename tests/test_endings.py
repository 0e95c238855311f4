"""Each cause for which we close has a code and a reason of its own, in the docs too."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from flask_wschat import endings
from flask_wschat.codec import is_sendable
from flask_wschat.endings import Ending

TOP = Path(__file__).parent.parent
PAGE = (TOP / "docs" / "deploy" / "README.md").read_text()
ALL = {
    name: value for name, value in vars(endings).items() if isinstance(value, Ending)
}
FROM_ELSEWHERE = {(1006, "connection lost")}  # the codec's
_CLIENTS = {"client", "terminal", "testing"}
_CLOSING = {"close", "_close", "_end"}


def test_no_two_are_alike() -> None:
    assert len(set(ALL.values())) == len(ALL) > 5
    for ending in ALL.values():
        assert is_sendable(ending.code) or ending.code == 1006
        assert 0 < len(ending.reason.encode()) <= 123


def test_the_table_has_all_of_them_and_no_other() -> None:
    section = PAGE.partition("\n## Why connections end\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d{4}) \| `([^`]+)` \|", section, re.M)
    documented = [(int(code), reason) for code, reason in rows]
    assert len(set(documented)) == len(documented)
    assert set(documented) == set(ALL.values()) | FROM_ELSEWHERE


def test_each_is_used() -> None:
    """The other way round, what closes with words of its own is found below."""
    sources = [path.read_text() for path in _sources()]
    for name in ALL:
        assert any(f"endings.{name}" in text for text in sources), name


def test_nothing_closes_with_words_of_its_own() -> None:
    """But for what the application says, and what its HTTP answer would have been."""
    found = [
        f"{path.relative_to(TOP)}:{call.lineno}"
        for path in _sources()
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in _CLOSING
        and any(
            isinstance(said, ast.Constant) and isinstance(said.value, str)
            for said in call.args[1:]
        )
    ]
    assert found == []


def _sources() -> list[Path]:
    package = TOP / "flask_wschat"
    return [
        path
        for path in package.rglob("*.py")
        if path.relative_to(package).parts[0] not in _CLIENTS
    ]
