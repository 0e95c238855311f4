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

Names = str | tuple[str, ...]
Tree = dict[str, "Names | Tree"]

# Who may import whom, from the ground up: a name stands only on what is above it here.
# With a dot before it, it is one beside it in the folder, else the way to it from the
# top. A folder's name is its __init__, the part of it that is meant for others; one
# that imports nothing is left out.
ARROWS: Tree = {
    "endings": "",
    "errors": "",
    "logs": "",
    "messages": "",
    "rate": "",
    "envelope": "messages rate",
    "settings": "errors rate",
    # RFC 6455 and 7692, without I/O
    "codec": {
        "frames": "errors",
        "accelerated": ".frames",
        "anatomy": ".accelerated .frames",
        "deflate": "errors",
        "handshake": ".deflate errors",
        "text": "errors",
        "closing": ".frames .text errors",
        "connection": ".frames .accelerated .deflate .text .closing errors",
        "__init__": (
            ".frames .accelerated .anatomy .deflate .handshake",
            ".closing .connection",
        ),
    },
    # Moving bytes
    "transports": {
        "tls": "",
        "patched": "",
        "waiting": ". .patched",
        "ending": ".waiting",
        "counts": ".patched",
        "queue": ".counts",
        "accelerated": ".counts .queue",
        "loop": ". .accelerated .patched .waiting",
        "threaded": ".loop .waiting",
        "outbox": ".accelerated .counts .queue",
        "memory": ". .accelerated .outbox",
        "evented": ". .accelerated .loop .outbox .patched .queue .tls",
    },
    # What the user holds
    "signals": "errors transports.ending",
    "incoming": (
        "endings errors logs settings codec transports transports.accelerated",
        "transports.ending signals",
    ),
    "peer": "endings errors logs messages codec transports incoming",
    "websocket": (
        "endings errors messages rate codec codec.accelerated codec.closing",
        "incoming peer",
    ),
    # What processes share
    "backends": {
        "contract": "errors messages transports",
        "pages": "messages",
        "shares": "messages",
        "attending": "messages",
        "growths": ".contract errors messages",
        "polls": ".contract errors messages",
        "memory": (
            ".attending .contract .growths .pages .polls .shares errors messages",
            "transports.patched",
        ),
        "sqlite": {
            "many": "",
            "system": "",
            "people": ".many .system messages",
            "polls": "messages",
            "once": "",
            "growing": ".system errors messages backends.contract backends.growths",
            "made": ".system errors messages backends.contract",
            "schema": ".growing .made .once .people",
            "log": ".many .schema messages backends.contract backends.pages",
            "leftovers": ".growing .log .made",
            "topics": (
                ".growing .leftovers .log .many errors messages",
                "backends.contract backends.pages backends.shares",
            ),
            "forks": "",
            "journal": ".system",
            "file": ".journal .schema .system",
            "writer": (
                ".file .forks .journal .log .schema .topics",
                "errors messages backends.contract",
            ),
            "backend": (
                ".file .log .made .once .people .polls .topics .writer",
                "errors logs messages backends.contract",
            ),
            "__init__": ".backend",
        },
        "redis": {
            "wire": "",
            "address": ".wire errors logs transports.patched",
            "sentinel": ".address .wire errors",
            "packing": ".wire errors messages backends.growths",
            "people": ".wire errors logs messages backends.contract",
            "polls": ".wire errors messages backends.contract",
            "wishes": "transports transports.patched",
            "subscriber": ".wire .wishes errors",
            "slots": ".wire transports transports.patched",
            "shards": ".slots .subscriber .wire .wishes errors",
            "jobs": ".wire",
            "pipe": ".jobs .wire transports.patched",
            "cluster": ".address .jobs .pipe .slots .wire errors transports.patched",
            "publishing": (
                ".jobs .packing .wire errors messages",
                "transports.patched backends.contract backends.growths backends.shares",
            ),
            "process": (
                ".cluster .jobs .packing .people .pipe .publishing .shards .slots",
                ".subscriber .wire .wishes",
                "errors logs messages transports transports.ending transports.patched",
                "transports.waiting backends.contract backends.pages backends.shares",
            ),
            "backend": (
                ".address .cluster .packing .polls .process .publishing .sentinel",
                ".subscriber .wire",
                "errors logs messages backends.contract backends.shares",
            ),
            "ring": ".address .backend .wire errors messages backends.contract",
            "__init__": ".address .backend .cluster .ring .sentinel",
        },
        "__init__": ".contract .memory .sqlite .redis errors logs",
    },
    # The connections of this process, and who is where
    "hub": {
        "figures": "backends messages transports.accelerated transports.counts",
        "audience": ".figures codec transports websocket",
        "backlog": (
            ".figures endings logs signals transports transports.accelerated websocket"
        ),
        "tallies": "envelope messages",
        "pages": "envelope messages",
        "parcels": ".audience .pages envelope messages codec websocket",
        "flights": ".pages .parcels messages websocket",
        "growing": "envelope messages",
        "feed": ".audience .flights .growing .pages .parcels messages websocket",
        "feeds": (
            ".feed .flights .growing .pages .parcels .tallies",
            "messages settings transports.patched websocket",
        ),
        "home": "errors logs transports transports.loop transports.patched websocket",
        "members": ".audience .feeds messages websocket",
        "beside": ".audience .members .parcels messages",
        "places": "settings transports.patched",
        "mending": ".feed .home errors messages backends transports",
        "overdue": ".feeds errors messages backends transports",
        "claims": ".home .members .parcels errors messages websocket backends",
        "deliveries": ".home logs messages",
        "drain": (
            ".home endings settings signals transports transports.ending websocket"
        ),
        "sweep": ".backlog .drain .figures .home errors settings transports websocket",
        "subscriptions": "errors transports backends",
        "readings": (
            ".feed .feeds .flights .pages .subscriptions",
            "errors messages backends transports transports.loop websocket",
        ),
        "roster": "errors messages transports",
        "rosters": (
            ".feeds .home .members .roster envelope errors messages transports backends"
        ),
        "presence": (
            ".feeds .home .members .rosters errors messages transports backends"
        ),
        "rooms": (
            ".claims .members .presence .subscriptions",
            "messages transports websocket",
        ),
        "hub": (
            ".backlog .beside .claims .deliveries .drain .feeds .figures .home",
            ".members .mending .overdue .places .presence .readings .rooms",
            ".subscriptions .sweep",
            "endings errors logs messages settings signals websocket backends",
            "transports transports.ending transports.loop transports.waiting",
        ),
    },
    # The ready-made chat
    "chat": {
        "voting": (
            "envelope errors messages transports.patched transports.waiting backends"
        ),
        "chat": (
            ".voting envelope errors messages rate websocket transports",
            "transports.patched hub.hub hub.places",
        ),
        "emitting": ".chat envelope messages websocket",
        "ticker": "errors transports.patched transports.waiting",
        "streams": ".ticker errors messages transports transports.patched hub.hub",
        "background": (
            ".streams .ticker errors messages transports transports.waiting hub.hub"
        ),
        "publisher": (
            ".chat .emitting .streams .voting",
            "errors messages settings websocket backends hub.hub",
        ),
        "fields": "envelope messages",
        "hints": ".fields",
        "handlers": ".fields .hints envelope errors messages rate",
        "wire": ".fields envelope",
        "answers": "incoming messages transports websocket",
        "events": (
            ".answers .chat .emitting .fields .handlers .streams",
            "endings envelope errors messages rate websocket hub.hub",
        ),
        "listener": (
            ".answers .events .fields .handlers .voting",
            "envelope errors messages rate websocket hub.pages",
        ),
    },
    # The same answers for less work, leaning on how others work inside
    "shortcuts": {
        "contexts": ".",
        "response": "",
        "routing": ".",
        "sessions": ".",
    },
    # Who hands over a socket
    "servers": {
        "accepting": "logs",
        "offers": "transports.tls transports.patched",
        "heads": "errors codec codec.handshake",
        "bodies": "errors codec.handshake transports.loop",
        "handler": (
            ".offers .heads .bodies",
            "errors settings codec codec.handshake",
            "transports.ending transports.loop transports.patched hub.hub shortcuts",
        ),
    },
    # From a request to an open WebSocket
    "opening": {
        "either": "",
        "answers": "",
        "origins": "",
        "tickets": "errors messages codec backends",
        "mistakes": "errors messages rate settings websocket",
        "legacy": "errors codec transports websocket servers.offers",
        "gate": (
            ".answers .origins .tickets errors logs rate backends hub.hub hub.places",
            "shortcuts shortcuts.response",
        ),
        "plain": ".answers .gate errors codec",
        "identity": ".gate .mistakes errors logs",
        "script": "",
        "upgrade": (
            ".answers .gate .legacy",
            "endings errors messages rate codec websocket",
            "transports transports.ending transports.evented transports.loop",
            "transports.threaded transports.tls transports.waiting",
            "servers.offers",
        ),
        "access": "logs signals",
        "hooks": (
            ".access .either .gate .legacy .upgrade",
            "endings codec servers.offers shortcuts.routing shortcuts.sessions",
        ),
        "views": (
            ".answers .mistakes .upgrade",
            "errors logs rate websocket servers.offers",
        ),
        "reporter": "codec.closing logs websocket servers.offers",
    },
    # What operators see, and what they can do
    "operate": {
        "rates": "",
        "here": "messages websocket transports hub.figures hub.hub",
        "reports": (
            ".here errors logs messages rate websocket backends",
            "transports transports.loop transports.patched transports.threaded",
            "transports.waiting hub.figures hub.hub",
        ),
        "health": ".reports errors hub.hub opening.gate",
        "sources": ".reports transports hub.hub",
        "dashboard": (
            ".sources endings envelope errors logs messages websocket codec.closing",
            "transports chat.events chat.publisher servers.offers",
            "opening.answers opening.gate opening.mistakes opening.script",
        ),
        "folder": "",
        "sharing": ".folder transports.patched hub.figures",
        "metrics": ".sharing hub.figures hub.hub",
        "operating": ".dashboard .metrics .reports hub.hub opening.mistakes",
        "doctor": {
            "probe": "",
            "mirror": "",
            "facts": (
                "codec.accelerated transports.accelerated transports.patched hub.hub"
            ),
            "finding": "logs settings hub.hub",
            "versions": ".finding shortcuts",
            "build": (
                ".finding codec codec.accelerated transports transports.accelerated"
                " shortcuts"
            ),
            "patching": ".finding transports.patched",
            "program": ".finding operate.dashboard",
            "configured": ".finding settings",
            "secrecy": ".finding",
            "serving": ".finding",
            "origins": ".finding .serving opening.origins",
            "system": ".finding",
            "on_sqlite": ".finding backends.sqlite.system",
            "redis_kinds": ".finding",
            "on_redis": (
                ".finding .redis_kinds errors logs backends.redis backends.redis.wire"
            ),
            "running": ".facts .finding errors operate.reports",
            "online_kinds": ".finding",
            "online": ".finding .mirror .online_kinds .origins operate.dashboard",
            "examining": (
                ".build .configured .finding .on_redis .on_sqlite .online .origins",
                ".patching .program .running .secrecy .serving .system .versions",
                "transports.patched",
            ),
        },
    },
    # What chat.run adds to a server
    "running": {
        "boot": "",
        "folder": "",
        "debugging": "",
        "watchdog": "transports.loop transports.patched transports.waiting",
        "access": "logs websocket servers.handler opening.upgrade",
        "patching": (".folder chat.background transports.patched transports.waiting"),
    },
    # What sockets say, as documents
    "documents": {
        "schema": "",
        "requests": (
            ".schema chat.events chat.fields chat.handlers chat.listener chat.wire",
            "opening.views",
        ),
        "protocol": ".requests .schema chat.fields chat.listener chat.wire",
        "asyncapi": ".protocol .requests .schema chat.events chat.wire envelope",
        "typescript": ".requests .schema chat.events",
    },
    # WSChat
    "extension": (
        "envelope rate settings signals websocket backends",
        "transports.ending transports.patched hub.hub",
        "chat.background chat.chat chat.events chat.publisher",
        "shortcuts.contexts running.folder",
        "opening.access opening.gate opening.hooks opening.identity",
        "opening.mistakes opening.plain opening.reporter opening.script opening.views",
        "operate.dashboard operate.doctor.facts operate.doctor.mirror operate.health",
        "operate.metrics",
        "operate.operating operate.reports operate.sources",
    ),
    "server": (
        "transports.ending transports.evented transports.loop transports.patched",
        "hub.hub servers.accepting servers.handler",
        "operate.reports",
        "running.access running.debugging running.patching running.watchdog",
    ),
    "gunicorn": (
        "backends codec transports.loop servers.handler servers.heads",
        "operate.reports server",
    ),
    # Clients: on the codec alone, but for the one that tests an app
    "client": {
        "address": "",
        "link": "",
        "client": ".link errors codec",
        "dial": ".address .link .client errors codec",
        "__init__": ".client .dial",
    },
    "terminal": {
        "screen": "logs",
        "frames": "codec",
        "command": ".screen .frames errors logs codec client",
    },
    # flask wschat
    "cli": {
        "group": "errors logs backends",
        "documents": ".group documents.asyncapi documents.typescript",
        "connect": ".group terminal.command",
        "people": ".group logs",
        "doctor": (
            ".group logs transports.patched operate.doctor.examining",
            "operate.doctor.finding operate.doctor.program",
        ),
        "table": "logs",
        "watching": ".group .table logs hub.figures operate.rates operate.reports",
        "run": (
            ".group websocket chat.events chat.listener opening.views",
            "running.debugging server",
        ),
        "__init__": ".connect .doctor .documents .group .people .run .watching",
    },
    "testing": {
        "client": (
            "errors codec websocket servers.offers opening.gate opening.upgrade client"
        ),
        "__init__": ".client server",
    },
    "__main__": "terminal.command",
    "__init__": (
        "errors websocket chat.background chat.events chat.listener chat.publisher",
        "chat.streams chat.voting extension signals",
    ),
}
# For the user's convenience `chat.run()` reaches up, when called and not before.
UPWARDS = {("extension", "server")}

ONLY_IN: dict[str, Names] = {
    "gevent": (
        "transports.loop transports.patched transports.waiting",
        "servers.bodies servers.handler running.boot server operate.doctor.probe",
    ),
    "greenlet": "transports.loop transports.waiting servers.accepting",
    "geventwebsocket": "servers.offers servers.handler opening.legacy",
    "prometheus_client": "operate.metrics",
    "redis": "backends.redis.address",
    "blinker": "signals",
    "flask": (
        "shortcuts.contexts shortcuts.response shortcuts.routing shortcuts.sessions",
        "opening.answers opening.gate opening.hooks opening.identity operate.health",
        "opening.mistakes opening.plain opening.script opening.tickets",
        "opening.access opening.reporter opening.upgrade opening.views",
        "operate.dashboard operate.operating",
        "operate.doctor.facts operate.doctor.finding operate.doctor.mirror",
        "operate.doctor.online",
        "operate.doctor.probe operate.doctor.secrecy",
        "cli.doctor cli.documents cli.group cli.people cli.run cli.watching gunicorn",
        "documents.asyncapi documents.requests documents.typescript",
        "operate.metrics extension running.debugging server testing.client",
    ),
}


def words(names: Names) -> list[str]:
    return " ".join([names] if isinstance(names, str) else names).split()


def flat(tree: Tree, folder: str = "") -> Iterator[tuple[str, list[str]]]:
    """Yield each module of ``tree``, and what it may import, by their full names."""
    for name, value in tree.items():
        full = f"{folder}.{name}".removeprefix(".")
        if isinstance(value, dict):
            if "__init__" not in value:
                yield full, []
            yield from flat(value, full)
        else:
            names = [_full(word, folder) for word in words(value)]
            yield full.removesuffix(".__init__"), names


def _full(word: str, folder: str) -> str:
    return f"{folder}{word}".removesuffix(".") if word.startswith(".") else word


ALLOWED = dict(flat(ARROWS))
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
    allowed = ALLOWED[module]
    found = []
    for name, ours in arrows(module, text):
        if ours and name not in allowed and (module, name) not in UPWARDS:
            if not name.endswith("_speedups"):  # the C twin of what is beside it
                found.append(f"{module} imports {name}")
        elif not ours and module not in words(ONLY_IN.get(name, module)):
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
    for name, allowed in ALLOWED.items():
        assert set(allowed) <= below, f"{name} stands on what comes after it"
        below.add(name)


def test_every_arrow_is_used_and_every_module_has_its_own() -> None:
    assert ALLOWED.keys() == MODULES.keys()
    for name, allowed in ALLOWED.items():
        used = {target for target, _ in arrows(name, MODULES[name].read_text())}
        assert set(allowed) <= used, f"{name} does not import all of: {allowed}"
    for foreign, places in ONLY_IN.items():
        for name in words(places):
            used = {target for target, _ in arrows(name, MODULES[name].read_text())}
            assert foreign in used, f"{name} does not import {foreign}"


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("backends.memory", "from ..websocket import WebSocket"),
        ("backends.memory", "from ..transports.evented import EventedLoop"),
        ("backends.memory", "from .redis.wire import Wire"),
        ("backends.sqlite.topics", "from ..redis.wire import Wire"),
        ("chat.listener", "from ..backends.redis.process import Process"),
        ("chat.voting", "from ..backends.memory import MemoryBackend"),
        ("codec.frames", "import gevent"),
        ("hub.hub", "from flask import Flask"),
        ("client.client", "from ..websocket import WebSocket"),
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


def test_the_top_of_the_package_can_be_seen_at_once() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 16


def test_a_long_file_says_why() -> None:
    files = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.js"), *PACKAGE.rglob("*.lua")]
    for path in files:
        lines = path.read_text().splitlines()
        assert len(lines) <= 450 or "Over 450 lines" in "".join(lines[:20]), path


def test_contributing_has_the_same_floors() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| (`[^|]+`) \|", text.partition("allowed, between")[2], re.M)
    told = [
        name
        for row in reversed(rows)
        for name in reversed(re.findall(r"`(\w+)/?`", row))
    ]
    assert told == [name for name in ARROWS if "__" not in name]


def test_the_decisions_that_are_named_are_there() -> None:
    folder = PACKAGE.parent / "docs" / "decisions"
    for path in MODULES.values():
        for first, more in re.findall(
            r"docs/decisions/(\d+)(?: and (\d+))?", path.read_text()
        ):
            for number in filter(None, (first, more)):
                assert len(list(folder.glob(f"{number}-*.md"))) == 1, path
