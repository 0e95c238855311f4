"""Programs that only some tests need."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def program(package: str, *names: str) -> str:
    """Return the path of the first program of ``names`` that is installed.

    Where there is none the test skips, and says which ``package`` has it; with
    ``CI=true`` it fails.
    """
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"  # nginx is there
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    missing(f"no {names[0]}: install the package `{package}`")


def missing(reason: str) -> NoReturn:
    """Skip the test for want of something; with ``CI=true`` fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
