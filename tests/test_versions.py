"""What setup.cfg says of versions is what `make check-oldest` and CI try."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def floors_of(*extras: str) -> list[tuple[str, str]]:
    """Return names and lowest versions that setup.cfg asks for."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    wanted = [setup["options"]["install_requires"]]
    wanted += [setup["options.extras_require"][extra] for extra in extras]
    pattern = r"^([\w-]+)(?:\[\w+\])?>=(.+)$"
    return re.findall(pattern, "\n".join(wanted), re.MULTILINE)


def test_ci_pins_what_the_tests_need() -> None:
    pinned = (ROOT / "tools/tested.txt").read_text()
    pins = dict(re.findall(r"^([\w.-]+)==(.+)$", pinned, re.MULTILINE))
    assert len(pinned.splitlines()) == len(pins) + 1
    floors = floors_of("demo", "redis", "test", "dev")
    assert len(floors) > 15
    for name, floor in floors:
        assert _parts(pins[name]) >= _parts(floor), (name, floor, pins[name])


def _parts(version: str) -> list[int]:
    return [int(part) for part in re.findall("[0-9]+", version)]


def test_the_oldest_are_those_of_setup_cfg() -> None:
    floors = floors_of("demo", "redis", "test")
    pinned = (ROOT / "tools/oldest.txt").read_text()
    pins = dict(re.findall(r"^([\w-]+)==(.+)$", pinned, re.MULTILINE))
    assert len(floors) > 10
    for name, floor in floors:
        missing = pins[name].removeprefix(floor)
        assert re.fullmatch(r"(\.0)*", missing), (name, floor, pins[name])
