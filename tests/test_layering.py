"""Imports point one way, and foreign packages stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "flask_wschat"

LAYERS = [
    {"ending", "errors", "logs", "origins", "settings", "messages", "rate"},
    {"codec"},
    {"transports"},
    {"websocket"},
    {"backends"},
    {"feeds", "subscriptions"},
    {"presence"},
    {"hub"},
    {"voting", "rooms"},
    {"compat"},
    {"adapters", "context", "mistakes", "sessions"},
    {"upgrade"},
    {"extension"},
    {"bodies", "heads"},
    {"handler"},
    {"access"},
    {"boot", "debugging", "patching", "watchdog"},
    {"server", "gunicorn", "cli", "metrics", "client", "__init__"},
    {"terminal", "testclient", "testing", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

ONLY_IN = {
    "gevent": {
        "transports/evented.py",
        "bodies.py",
        "boot.py",
        "handler.py",
        "server.py",
        "gunicorn.py",
        "watchdog.py",
    },
    "greenlet": {"transports/evented.py"},
    "geventwebsocket": {"handler.py", "transports/accept.py", "compat.py"},
    "redis": {"backends/redis.py"},
    "flask": {
        "adapters.py",
        "context.py",
        "debugging.py",
        "mistakes.py",
        "sessions.py",
        "upgrade.py",
        "extension.py",
        "server.py",
        "cli.py",
        "testclient.py",
        "metrics.py",
    },
}
# For the user's convenience `chat.run()` reaches up, when called and not before.
ALLOWED = {("extension.py", "server")}


def imports(path: Path) -> list[tuple[str, int]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [a.name for a in node.names]
            found += [(name, node.level) for name in names]
    return found


def test_imports_point_one_way() -> None:
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        relative = path.relative_to(PACKAGE)
        package = relative.parts[0].removesuffix(".py")
        for name, dots in imports(path):
            root = name.split(".")[0]
            if dots == len(relative.parts):  # flask_wschat.<root>
                if (
                    LEVEL[root] > LEVEL[package]
                    and (str(relative), root) not in ALLOWED
                ):
                    wrong.append(f"{relative} imports {root}, a layer above it")
                if package == "client" and root not in ("codec", "errors"):
                    wrong.append(f"{relative} stands on the codec alone, not {root}")
            elif not dots and str(relative) not in ONLY_IN.get(root, {str(relative)}):
                wrong.append(f"{relative} imports {root}")
    assert wrong == []


def test_every_module_has_a_layer() -> None:
    modules = {p.relative_to(PACKAGE).parts[0] for p in PACKAGE.rglob("*.py")}
    assert {name.removesuffix(".py") for name in modules} <= LEVEL.keys()


def test_the_codec_and_the_client_need_neither_flask_nor_gevent() -> None:
    code = (
        "import sys, flask_wschat.codec, flask_wschat.client, flask_wschat.__main__\n"
        "print(sorted({'flask', 'gevent', 'geventwebsocket'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    assert answer.stdout == "[]\n"
