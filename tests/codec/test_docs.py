"""What ``docs/codec.md`` says is so: its examples run, and it needs nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "codec.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module", autouse=True)
def twin() -> None:
    """The examples take what is there."""


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    exec(EXAMPLES[number], {})
    assert ("print" in EXAMPLES[number]) == bool(capsys.readouterr().out)


def test_every_file_is_named() -> None:
    for path in (ROOT / "flask_wschat" / "codec").glob("[!_]*.py"):
        assert f"`{path.name}`" in PAGE


def test_the_codec_needs_the_standard_library_only() -> None:
    """Neither Flask nor gevent is imported by it, and it does no I/O."""
    program = (
        "import sys, types\n"
        "package = types.ModuleType('flask_wschat')\n"
        f"package.__path__ = [{str(ROOT / 'flask_wschat')!r}]\n"
        "sys.modules['flask_wschat'] = package\n"
        "before = set(sys.modules)\n"
        "import flask_wschat.codec\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new - set(sys.stdlib_module_names) - {'flask_wschat'}))\n"
        "print(*sorted({'socket', 'selectors', 'threading', 'logging'} & new))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "\n\n"
