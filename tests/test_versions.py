"""What setup.cfg says of versions is what `make check-oldest` tries."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_oldest_are_those_of_setup_cfg() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    wanted = "\n".join(
        [setup["options"]["install_requires"], extras["redis"], extras["test"]]
    )
    floors = re.findall(r"^([\w-]+)(?:\[\w+\])?>=(.+)$", wanted, re.MULTILINE)
    pinned = (ROOT / "tools/oldest.txt").read_text()
    pins = dict(re.findall(r"^([\w-]+)==(.+)$", pinned, re.MULTILINE))
    assert len(floors) > 10
    for name, floor in floors:
        missing = pins[name].removeprefix(floor)
        assert re.fullmatch(r"(\.0)*", missing), (name, floor, pins[name])
