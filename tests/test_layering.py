"""Imports point one way, and foreign packages stay where they belong."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "flask_wschat"

# Who may import whom, from the ground up: a name stands only on what is above it here.
# A folder's own name is its __init__, the part of it that is meant for others.
ARROWS = {
    "errors": "",
    "logs": "",
    "messages": "",
    "rate": "",
    "settings": "errors",
    # RFC 6455 and 7692, without I/O
    "codec.frames": "errors",
    "codec.accelerated": "codec.frames",
    "codec.anatomy": "codec.accelerated codec.frames",
    "codec.deflate": "errors",
    "codec.handshake": "errors codec.deflate",
    "codec.connection": "errors codec.frames codec.accelerated codec.deflate",
    "codec": "codec.frames codec.accelerated codec.anatomy codec.deflate"
    " codec.handshake codec.connection",
    # Moving bytes
    "transports": "",
    "transports.ending": "",
    "transports.tls": "",
    "transports.queue": "",
    "transports.outbox": "transports.queue",
    "transports.memory": "transports transports.outbox",
    "transports.evented": "transports transports.outbox transports.queue"
    " transports.tls",
    "transports.threaded": "transports.evented",
    # What the user holds
    "websocket": "errors logs settings codec codec.accelerated transports"
    " transports.ending",
    # What processes share
    "backends.contract": "messages transports",
    "backends.pages": "",
    "backends.memory": "errors messages backends.contract backends.pages",
    "backends.sqlite.people": "messages",
    "backends.sqlite.tables": "messages backends.pages",
    "backends.sqlite.writer": "errors transports backends.contract backends.pages"
    " backends.sqlite.tables",
    "backends.sqlite.backend": "errors logs messages backends.contract"
    " backends.sqlite.people backends.sqlite.tables backends.sqlite.writer",
    "backends.sqlite": "backends.sqlite.backend",
    "backends.redis.wire": "",
    "backends.redis.packing": "messages backends.redis.wire",
    "backends.redis.presence": "errors backends.redis.wire",
    "backends.redis.subscriber": "errors backends.redis.wire",
    "backends.redis.process": "errors logs backends.contract backends.pages"
    " backends.redis.wire backends.redis.packing backends.redis.presence"
    " backends.redis.subscriber",
    "backends.redis.backend": "errors logs messages backends.contract"
    " backends.redis.wire backends.redis.packing backends.redis.process"
    " backends.redis.subscriber",
    "backends.redis": "backends.redis.backend",
    "backends": "errors logs backends.contract backends.memory backends.sqlite"
    " backends.redis",
    # The connections of this process, and who is where
    "hub": "",
    "hub.feeds": "messages codec websocket",
    "hub.subscriptions": "errors transports backends",
    "hub.presence": "errors messages transports backends hub.feeds",
    "hub.hub": "errors logs messages rate settings codec transports transports.ending"
    " transports.evented websocket backends hub.feeds hub.subscriptions hub.presence",
    # The ready-made chat
    "chat": "",
    "chat.listener": "errors messages rate websocket hub.feeds hub.hub",
    "chat.voting": "errors messages backends hub.hub",
    # Who hands over a socket
    "servers": "",
    "servers.offers": "transports.tls",
    "servers.heads": "errors codec codec.handshake",
    "servers.bodies": "errors codec.handshake transports.evented",
    "servers.handler": "errors settings codec codec.handshake transports.ending"
    " transports.evented hub.hub servers.offers servers.heads servers.bodies",
    # May be deleted: slower, same answers
    "shortcuts": "",
    "shortcuts.contexts": "",
    "shortcuts.routing": "",
    "shortcuts.sessions": "servers.offers",
    # From a request to an open WebSocket
    "opening": "",
    "opening.origins": "",
    "opening.mistakes": "settings websocket",
    "opening.legacy": "errors codec transports websocket servers.offers",
    "opening.upgrade": "errors logs messages codec transports transports.ending"
    " transports.evented transports.threaded transports.tls websocket hub.hub"
    " servers.offers shortcuts.routing shortcuts.sessions opening.legacy"
    " opening.origins",
    # WSChat
    "extension": "errors logs messages settings transports.ending transports.evented"
    " websocket backends hub.feeds"
    " hub.hub chat.listener chat.voting servers.offers shortcuts.contexts"
    " shortcuts.sessions opening.mistakes opening.upgrade",
    # What chat.run adds to a server
    "running": "",
    "running.boot": "",
    "running.debugging": "",
    "running.watchdog": "transports.evented",
    "running.access": "logs websocket servers.handler opening.upgrade",
    "running.patching": "transports.evented extension",
    "server": "transports.evented hub.hub servers.handler running.access"
    " running.debugging running.patching running.watchdog",
    "gunicorn": "codec servers.handler servers.heads server",
    # Clients: on the codec alone, but for the one that tests an app
    "client": "errors codec",
    "terminal": "errors codec client",
    "testing.client": "errors codec websocket servers.offers opening.upgrade client",
    "testing": "server testing.client",
    "__main__": "terminal",
    "__init__": "errors websocket chat.listener chat.voting extension",
}
# For the user's convenience `chat.run()` reaches up, when called and not before.
UPWARDS = {("extension", "server")}

ONLY_IN = {
    "gevent": "transports.evented servers.bodies servers.handler running.boot"
    " running.watchdog server",
    "greenlet": "transports.evented",
    "geventwebsocket": "servers.offers servers.handler opening.legacy",
    "redis": "backends.redis.backend",
    "flask": "shortcuts.contexts shortcuts.routing shortcuts.sessions opening.mistakes"
    " opening.upgrade extension running.debugging server testing.client",
}

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(
        ".__init__"
    ): path
    for path in PACKAGE.rglob("*.py")
}


def arrows(module: str, text: str) -> Iterator[tuple[str, bool]]:
    """Yield what ``module`` imports, and whether it is of this package."""
    inside = (
        module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    )
    parts = [] if module == "__init__" else inside.split(".") if inside else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).split(".")[0], False
        elif isinstance(node, ast.ImportFrom):
            above = parts[: len(parts) - node.level + 1]
            target = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                below = f"{target}.{alias.name}".removeprefix(".")
                yield below if below in MODULES else target, True


def faults(module: str, text: str) -> list[str]:
    allowed = ARROWS[module].split()
    found = []
    for name, ours in arrows(module, text):
        if ours and name not in allowed and (module, name) not in UPWARDS:
            if not name.endswith("_speedups"):  # the C twin of what is beside it
                found.append(f"{module} imports {name}")
        elif not ours and module not in ONLY_IN.get(name, module).split():
            found.append(f"{module} imports {name}")
    return found


def test_imports_follow_the_arrows() -> None:
    wrong = [
        line
        for name, path in MODULES.items()
        for line in faults(name, path.read_text())
    ]
    assert wrong == []


def test_arrows_point_one_way() -> None:
    below: set[str] = set()
    for name, allowed in ARROWS.items():
        assert set(allowed.split()) <= below, f"{name} stands on what comes after it"
        below.add(name)


def test_every_arrow_is_used_and_every_module_has_its_own() -> None:
    assert ARROWS.keys() == MODULES.keys()
    for name, allowed in ARROWS.items():
        used = {target for target, _ in arrows(name, MODULES[name].read_text())}
        assert set(allowed.split()) <= used, f"{name} does not import all of: {allowed}"
    for foreign, places in ONLY_IN.items():
        for name in places.split():
            used = {target for target, _ in arrows(name, MODULES[name].read_text())}
            assert foreign in used, f"{name} does not import {foreign}"


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("backends.memory", "from ..websocket import WebSocket"),
        ("backends.memory", "from ..transports.evented import EventedLoop"),
        ("backends.memory", "from .redis.wire import Wire"),
        ("backends.sqlite.tables", "from ..redis.wire import Wire"),
        ("chat.listener", "from ..backends.redis.process import Process"),
        ("chat.voting", "from ..backends.memory import MemoryBackend"),
        ("codec.frames", "import gevent"),
        ("hub.hub", "from flask import Flask"),
        ("client", "from .websocket import WebSocket"),
    ],
)
def test_a_wrong_arrow_is_found(module: str, line: str) -> None:
    assert faults(module, MODULES[module].read_text() + line + "\n")


def test_the_codec_and_the_client_need_neither_flask_nor_gevent() -> None:
    code = (
        "import sys, flask_wschat.codec, flask_wschat.client, flask_wschat.__main__\n"
        "print(sorted({'flask', 'gevent', 'geventwebsocket'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    assert answer.stdout == "[]\n"


def test_contributing_has_the_same_floors() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| (`[^|]+`) \|", text.partition("allowed, between")[2], re.M)
    told = [
        name
        for row in reversed(rows)
        for name in reversed(re.findall(r"`(\w+)/?`", row))
    ]
    order = list(
        dict.fromkeys(name.split(".")[0] for name in ARROWS if "__" not in name)
    )
    assert told == order
