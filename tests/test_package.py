"""``flask_wschat`` itself: what can be imported, and seen, without an import of all."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

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


def test_all_that_dir_shows_can_be_had_and_is_for_users() -> None:
    for name in dir(flask_wschat):
        getattr(flask_wschat, name)
    shown = {name for name in dir(flask_wschat) if not name.startswith("__")}
    assert shown == set(flask_wschat.__all__)
    with pytest.raises(AttributeError, match="'WSChart'"):
        flask_wschat.WSChart  # noqa: B018


def test_the_c_twins_are_built() -> None:
    """Tests of theirs are skipped otherwise; with CI=true, this one alone fails."""
    names = [f"flask_wschat.{part}._speedups" for part in ("codec", "transports")]
    missing = [name for name in names if find_spec(name) is None]
    why = f"{missing} are not built: that takes a compiler and Python's headers"
    if missing and os.environ.get("CI") != "true":
        pytest.skip(why)
    assert not missing, f"{why} (Debian: gcc python3-dev), then `pip install -e .`"
