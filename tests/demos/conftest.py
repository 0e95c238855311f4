"""A demo server for each test, checked for tracebacks at the end, and its visitors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ViewportSize

from tests.demos.browsing import Meet, Person
from tests.demos.serving import DemoServer, serving


@pytest.fixture
def options() -> dict[str, Any]:
    """How the demos are served; a module with another way has its own."""
    return {}


@pytest.fixture
def demo(tmp_path: Path, options: dict[str, Any]) -> Iterator[DemoServer]:
    with serving(tmp_path / "server.log", **options) as server:
        yield server


@pytest.fixture
def meet(chromium: Browser, demo: DemoServer) -> Iterator[Meet]:
    """Make a person; at the end, nothing must have gone wrong in their pages."""
    people: list[Person] = []

    def meet(width: int = 1100, height: int = 700, locale: str = "en-GB") -> Person:
        viewport: ViewportSize = {"width": width, "height": height}
        context = chromium.new_context(viewport=viewport, locale=locale)
        people.append(Person(context, demo.url))
        return people[-1]

    yield meet
    for person in people:
        person.context.close()
    for person in people:
        person.check()
