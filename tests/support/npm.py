"""What ``sh tools/node.sh`` has installed: TypeScript, and AsyncAPI's schemas."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

MODULES = Path(__file__).parents[1] / "types" / "node_modules"


def needs_npm() -> None:
    """Skip a test without it; in CI that is an error."""
    if not (MODULES / ".done").exists():
        assert os.environ.get("CI") != "true", "sh tools/node.sh"
        pytest.skip("needs npm: sh tools/node.sh")


def compiled(page: Path) -> str:
    """Return what the compiler has against ``page``, or the project in a folder."""
    needs_npm()
    done = subprocess.run(
        [
            *(MODULES / ".bin" / "tsc", "--strict", "--noEmit", "--target", "es2022"),
            *("--module", "nodenext", "--types", ""),
            *(("-p", page) if page.is_dir() else (page,)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 or done.stdout, done.stderr
    return done.stdout
