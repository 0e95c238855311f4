"""Whether the fast twins serve: what is compiled, and the shortcuts."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from ... import codec, transports
from ...codec import accelerated as of_codec
from ...shortcuts import SWITCH
from ...transports import accelerated as of_transports
from .finding import Finding, Kind, Setup

PURE = Kind(
    "pure-python",
    "warning",
    "WSCHAT_PUREPYTHON is set in the environment",
    "Frames and queues are handled by Python, not by C: a fraction of the messages per"
    " second.",
    "unset WSCHAT_PUREPYTHON",
)
NOT_BUILT = Kind(
    "c-not-built",
    "warning",
    "the C part of flask_wschat.{part} is not built",
    "There was no compiler when this was installed, or pip kept a wheel without it."
    " Python does its work, with a fraction of the messages per second.",
    "apt install gcc python3-dev; pip install --force-reinstall --no-cache-dir"
    " --no-binary flask-wschat flask-wschat",
)
NOT_LOADED = Kind(
    "c-not-loaded",
    "warning",
    "the C part of flask_wschat.{part} is there, and cannot be loaded: {why}",
    "It is of another version of Flask-WSChat, or of another Python or system: an old"
    " wheel, or a copied folder. Python does its work, and slower.",
    "pip install --force-reinstall --no-cache-dir --no-binary flask-wschat"
    " flask-wschat",
)
NO_SHORTCUTS = Kind(
    "shortcuts-off",
    "warning",
    "the shortcuts are off: {by}",
    "Openings go the long way: about twice the work for each.",
    "{remedy}",
)


def twins(setup: Setup) -> Iterator[Finding]:
    """Look whether both C twins are loaded."""
    if setup.environ.get("WSCHAT_PUREPYTHON"):
        yield PURE()
        return
    for package, chosen in ((codec, of_codec), (transports, of_transports)):
        if chosen.ACCELERATED:
            continue
        part = package.__name__.rpartition(".")[2]
        folder = Path(str(package.__file__)).parent
        if not any((folder / f"_speedups{end}").exists() for end in EXTENSION_SUFFIXES):
            yield NOT_BUILT(part=part)
            continue
        yield NOT_LOADED(part=part, why=_why(chosen.__name__))


def _why(name: str) -> str:
    try:
        __import__(f"{name.rpartition('.')[0]}._speedups")
    except Exception as error:
        return str(error)
    return "it lacks names that this version needs"


def shortcuts(setup: Setup) -> Iterator[Finding]:
    """Look whether somebody has turned the shortcuts off."""
    if SWITCH is False:
        by = "WSCHAT_SHORTCUTS=0 in the environment"
        yield NO_SHORTCUTS(by=by, remedy="unset WSCHAT_SHORTCUTS")
    elif SWITCH is None and not setup.settings.SHORTCUTS:
        remedy = 'app.config["WSCHAT_SHORTCUTS"] = True'
        yield NO_SHORTCUTS(by="WSCHAT_SHORTCUTS = False", remedy=remedy)
