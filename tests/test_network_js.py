"""``wschat.js`` in Node, with a bad network between it and the server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes.cluster import Cluster
from tests.support.npm import needs_npm, node
from tests.support.redis_server import RedisServer

FOLDER = Path(__file__).parent / "js" / "network"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


def run(*names: str, **env: str) -> None:
    """Run tests of ``tests/js/network``, each file in a process of its own."""
    needs_npm()
    done = subprocess.run(
        [
            node(),
            "--test",
            "--test-concurrency=3",
            *(str(FOLDER / f"{name}.test.mjs") for name in names),
        ],
        capture_output=True,
        text=True,
        timeout=140,
        check=False,
        env={**os.environ, "PYTHON": sys.executable, **env},
    )
    failed = re.findall(r"not ok.*?\.\.\.$", done.stdout, re.DOTALL | re.MULTILINE)
    assert done.returncode == 0, "\n".join([*failed, done.stderr])


def test_a_bad_network_and_servers_that_stand_still_or_are_killed() -> None:
    run("network", "hidden")


def test_workers_that_are_killed_on_redis(tmp_path: Path, redis: RedisServer) -> None:
    with Cluster(redis.url, tmp_path, 3, HISTORY_SIZE=1000) as cluster:
        run("workers", CHAT=cluster.address)


def test_workers_that_are_killed_on_sqlite(tmp_path: Path) -> None:
    with Cluster(f"sqlite:///{tmp_path}/chat.db", tmp_path, 3) as cluster:
        run("workers", CHAT=cluster.address)
