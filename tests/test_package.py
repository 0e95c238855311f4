"""``flask_wschat`` itself: what can be imported, and seen, without an import of all."""

from __future__ import annotations

import subprocess
import sys

import pytest

import flask_wschat


def test_dir_shows_what_is_not_imported_yet() -> None:
    code = (
        "import sys, flask_wschat\n"
        "print(sorted(set(flask_wschat.__all__) - set(dir(flask_wschat))))\n"
        "print('flask' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    assert answer.stdout.split("\n")[:2] == ["[]", "False"]


def test_all_that_dir_shows_can_be_had() -> None:
    for name in dir(flask_wschat):
        getattr(flask_wschat, name)
    with pytest.raises(AttributeError, match="'WSChart'"):
        flask_wschat.WSChart  # noqa: B018
