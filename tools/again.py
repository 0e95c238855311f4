"""Run again, by themselves, the few tests that failed beside others.

    python -m tools.again STATUS

After ``make test`` has failed: several tests run at a time there, and each has a
deadline, so a busy machine may let one pass by. One that fails again, by itself, fails.
So does a run with more than ``FEW`` failures, and one that did not come to its end,
which pytest's ``STATUS`` says. Those that passed only now are named at
the end: each is a race, of the test or of what it tests, that somebody is to find.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FEW = 3
TESTS_FAILED = 1
FAILED = Path(".pytest_cache/v/cache/lastfailed")


def main(status: int) -> int:
    if status != TESTS_FAILED:
        return status
    names = sorted(json.loads(FAILED.read_text())) if FAILED.exists() else []
    if not 0 < len(names) <= FEW:
        return status
    print(f"==> Again, by itself: {', '.join(names)}", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "-rfEs", *names]
    status = subprocess.run(command, check=False).returncode
    if status == 0:
        print(f"==> Failed beside others, passed alone: {', '.join(names)}")
    return status


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
