"""A certificate for 127.0.0.1, made anew for each session of tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def program(name: str, package: str) -> str:
    """Return the path of a program; skip the test, or fail in CI, without it."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        message = f"needs the program {name}: install the package {package}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path


def make_pair(folder: Path) -> tuple[Path, Path]:
    """Return the paths of a new certificate and its key."""
    openssl = program("openssl", "openssl")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = f"req -x509 -nodes -days 2 -keyout {key} -out {certificate}"
    command += " -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=127.0.0.1"
    command += " -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([openssl, *command.split()], check=True, capture_output=True)
    return certificate, key
