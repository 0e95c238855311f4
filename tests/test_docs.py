"""What the documents say of files, and the code of decisions, is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
PACKAGE = TOP / "flask_wschat"
PAGES = [*TOP.glob("*.md"), *TOP.glob("docs/**/*.md"), *TOP.glob("benchmarks/*.md")]
DECISIONS = {page.name[:2]: page for page in TOP.glob("docs/decisions/*.md")}
SOURCES = [
    path
    for path in PACKAGE.rglob("*")
    if path.suffix in {".py", ".c", ".js", ".lua"} and path.is_file()
]
OF_THE_READER = {
    "static/page.html",
    "static/page.js",
    "vite.config.js",
    "static/chat.html",
    "templates/chat.html",
    "templates/page.html",
    "app.json",
    "gunicorn.conf.py",
    "tsconfig.json",
    "wschat.v1.json",
}
_FILE = re.compile(
    r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|c|js|mjs|lua|md|conf|cfg|html|json))`"
)
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def named(page: Path) -> set[str]:
    return set(_FILE.findall(page.read_text())) - OF_THE_READER


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_files_that_a_page_names_are_there(page: Path) -> None:
    tops = (TOP, PACKAGE, PACKAGE / "static", page.parent)
    for name in named(page):
        inside = [*PACKAGE.glob(f"**/{name}"), *TOP.glob(f"tests/**/{name}")]
        assert inside or any((top / name).exists() for top in tops), name
    for link in _LINK.findall(page.read_text()):
        assert (page.parent / link).exists(), link


def test_decisions_are_numbered_without_a_gap() -> None:
    assert sorted(DECISIONS) == [f"{n:02}" for n in range(1, len(DECISIONS) + 1)]
    for number, page in DECISIONS.items():
        assert page.read_text().startswith(f"# {int(number)}. ")


def test_the_code_points_to_each_decision_and_to_no_other() -> None:
    found = {
        number
        for path in SOURCES
        for number in re.findall(r"docs/decisions/(\d+)", path.read_text())
    }
    assert found == DECISIONS.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_tests_that_a_page_names_are_there(page: Path) -> None:
    for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text()):
        assert f"def {name}(" in (TOP / file).read_text(), f"{file}::{name}"
