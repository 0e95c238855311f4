"""What the package has and weighs, and that it is the server's twin."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

import flask_wschat
from tests.support.npm import ROOT, npm, run, tool

STATIC = Path("flask_wschat") / "static"
LIMIT = 6_000
"""Bytes that a page may have to fetch for the client."""


def package() -> dict[str, object]:
    found: dict[str, object] = json.loads((ROOT / "package.json").read_text())
    return found


def test_it_has_the_version_of_the_server() -> None:
    assert package()["version"] == flask_wschat.__version__
    lock = json.loads((ROOT / "package-lock.json").read_text())
    assert lock["version"] == lock["packages"][""]["version"] == package()["version"]


def test_it_needs_nothing_but_itself() -> None:
    needs = {name for name in package() if name.endswith("ependencies")}
    assert needs <= {"devDependencies"}, "a page would have to fetch that, too"
    assert "scripts" not in package(), "an installation would run them"


@pytest.mark.slow
def test_it_is_the_module_its_types_and_no_more() -> None:
    (found,) = json.loads(npm("pack", "--dry-run", "--json"))
    assert {file["path"] for file in found["files"]} == {
        *("LICENSE", "README.md", "package.json"),  # which npm always takes
        *(str(STATIC / name) for name in ("wschat.js", "wschat.d.ts")),
    }


def test_it_is_small() -> None:
    code = run(
        tool("esbuild"),
        ROOT / STATIC / "wschat.js",
        "--minify",
        "--bundle",
        "--format=esm",
    )
    size = len(gzip.compress(code.encode(), 9))
    assert size < LIMIT, f"{size} bytes, minified and compressed; {LIMIT} is too many"
