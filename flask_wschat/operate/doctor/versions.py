"""Whether what is installed is what was tested."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Iterator

from ...shortcuts import CHECKED
from .finding import Finding, Kind, Setup

PACKAGES = {
    "flask": ("3.0", "3.1"),
    "werkzeug": ("3.0", "3.1"),
    "itsdangerous": ("2.1", "2.2"),
    "gevent": ("23.9", "26.9"),
    "gevent-websocket": ("0.10", "0.10"),
    "jinja2": ("3.1", "3.1"),
    "msgspec": ("0.19", "0.22"),
    "redis": ("5.1", "8.1"),
    "gunicorn": ("23.0", "27.0"),
    "prometheus-client": ("0.20", "0.26"),
}
"""The first and the last versions of others that all tests have passed with."""
_OPTIONAL = {"redis", "gunicorn", "prometheus-client"}
_GEVENT_OF_GUNICORN = "24.10"
PYTHONS = (3, 10), (3, 14)
"""The first and the last Python that tests have passed with."""

TOO_OLD = Kind(
    "version-too-old",
    "error",
    "{package} {version} is older than {first}",
    "Flask-WSChat was never tested with it, and leans on what came later.",
    "pip install --upgrade '{package}>={first}'",
)
UNCHECKED = Kind(
    "version-unchecked",
    "warning",
    "{package} {version} is newer than {last}, the last one that was checked",
    "All works by documented ways, if that version keeps what it promises; shortcuts"
    " that lean on it are not taken, so openings cost more.",
    "pip install --upgrade flask-wschat, or pip install '{package}=={last}.*'",
)
NEWER = Kind(
    "version-newer",
    "note",
    "{package} {version} is newer than {last}, the last one that was tested",
    "Nobody has tried the two together yet.",
    "pip install --upgrade flask-wschat, or pip install '{package}=={last}.*'",
)
UNKNOWN = Kind(
    "version-unknown",
    "warning",
    "no version of {package} is known ({why})",
    "It came without metadata, as a copied folder; shortcuts that lean on it are off.",
    "pip install --force-reinstall {package}",
)
PYTHON_NEW = Kind(
    "python-newer",
    "note",
    "Python {version} is newer than {last}, the last one that was tested",
    "It may work, or not.",
    "python{last} -m venv .venv && .venv/bin/pip install flask-wschat",
)
NO_PROMETHEUS = Kind(
    "prometheus-missing",
    "warning",
    "WSCHAT_METRICS is True, and prometheus-client is not installed",
    "/_wschat/metrics answers 501.",
    "pip install 'flask-wschat[metrics]'",
)
OLD_GEVENT = Kind(
    "gevent-too-old-for-gunicorn",
    "error",
    "gunicorn's gevent workers refuse gevent {version}",
    "They do not start with one older than 24.10.1.",
    "pip install --upgrade 'gevent>=24.10.1'",
)


def packages(setup: Setup) -> Iterator[Finding]:
    """Compare each package with what was tested."""
    for package, (first, last) in PACKAGES.items():
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError as error:
            if package not in _OPTIONAL:
                yield UNKNOWN(package=package, why=f"not found: {error}")
            elif package == "prometheus-client" and setup.settings.METRICS is True:
                yield NO_PROMETHEUS()
            continue
        try:
            found = numbers(version)
        except (TypeError, ValueError) as error:
            yield UNKNOWN(package=package, why=error)
            continue
        said = {"package": package, "version": version, "first": first, "last": last}
        if found < numbers(first):
            yield TOO_OLD(**said)
        elif found > numbers(last):
            yield (UNCHECKED if package in CHECKED else NEWER)(**said)
    if setup.is_gevent:
        version = importlib.metadata.version("gevent")
        if numbers(version) < numbers(_GEVENT_OF_GUNICORN):
            yield OLD_GEVENT(version=version)


def python(setup: Setup) -> Iterator[Finding]:
    """Compare Python with what was tested; an older one cannot even import this."""
    if sys.version_info[:2] > PYTHONS[1]:
        version, last = (
            ".".join(map(str, v)) for v in (sys.version_info[:3], PYTHONS[1])
        )
        yield PYTHON_NEW(version=version, last=last)


def numbers(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version.

    :raises ValueError: there are none.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None:
        raise ValueError(f"{version!r} is no version")
    return int(found[1]), int(found[2])
