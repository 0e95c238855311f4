"""Look for known faults: bandit in our code, pip-audit in what it stands on.

    python -m tools.audit

bandit's findings fail, but for those that a line answers with ``# nosec`` and why.
pip-audit asks the package index about each distribution that ours needs (not those of
the tests). Where the index cannot be asked, that is said, and does not fail.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = "flask-wschat"
EXTRAS = ("redis",)
"""Of ours, those that are for users."""


def needed() -> dict[str, str]:
    """Return what is installed because ours needs it: versions by name."""
    found: dict[str, str] = {}
    waiting = [OURS]
    while waiting:
        name = waiting.pop()
        for line in requires(name) or ():
            other, _, marker = line.partition(";")
            extra = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
            if extra and not (name == OURS and extra[1] in EXTRAS):
                continue
            other = re.split(r"[^\w.-]", other.strip())[0].lower().replace("_", "-")
            if other in found or other == OURS:
                continue
            try:
                found[other] = version(other)
            except PackageNotFoundError:
                continue  # for another system, or an older Python
            waiting.append(other)
    return found


def judge(report: str, count: int) -> tuple[bool, str]:
    """Return whether pip-audit's JSON is without a fault, and what to say of it."""
    try:
        dependencies = json.loads(report)["dependencies"]
    except ValueError:
        return True, "pip-audit: COULD NOT ASK the package index; nothing was audited"
    asked = [each for each in dependencies if "skip_reason" not in each]
    faults = [
        f"{each['name']} {each['version']}: {fault['id']}, mended in"
        f" {', '.join(fault['fix_versions']) or 'no version yet'}"
        for each in asked
        for fault in each["vulns"]
    ]
    if faults:
        return False, "\n".join(["pip-audit:", *faults])
    if len(asked) < count:
        answered = f"the index knows {len(asked)} of {count}"
        return True, f"pip-audit: COULD NOT ASK about all: {answered} distributions"
    return True, f"pip-audit: {count} distributions, no known fault"


def audit() -> tuple[bool, str]:
    found = needed()
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(f"{name}=={found[name]}\n" for name in sorted(found)))
        file.flush()
        command = ["pip_audit", "--no-deps", "--disable-pip", "--format=json"]
        command += ["--progress-spinner=off", "--timeout=10", "-r", file.name]
        try:
            done = subprocess.run(
                [sys.executable, "-m", *command],
                capture_output=True,
                text=True,
                timeout=60,
            )
        except subprocess.TimeoutExpired:
            return judge("", len(found))
    return judge(done.stdout, len(found))


def main() -> None:
    command = [sys.executable, "-m", "bandit", "-q", "-r", "flask_wschat"]
    command += ["-c", "pyproject.toml"]
    bandit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if bandit.returncode:
        print(bandit.stdout, bandit.stderr)
    print("bandit:", "findings, see above" if bandit.returncode else "no findings")
    clean, words = audit()
    print(words)
    sys.exit(bool(bandit.returncode) or not clean)


if __name__ == "__main__":
    main()
