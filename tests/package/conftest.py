"""A project that has installed the package, and a chat for its pages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chat_process import ChatServer
from tests.support.npm import MODULES, needs_npm, npm

PAGES = Path(__file__).parent / "pages"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with our pages, and the package as others would get it."""
    needs_npm()
    folder = tmp_path_factory.mktemp("project")
    (found,) = json.loads(npm("pack", "--json", "--pack-destination", folder))
    shutil.copytree(PAGES, folder, dirs_exist_ok=True)
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    npm("install", "--ignore-scripts", folder / found["filename"], cwd=folder)
    for name in ("ws", "@types"):
        (folder / "node_modules" / name).symlink_to(MODULES / name)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatServer]:
    """A chat that remembers what was said over restarts; it serves our pages, too."""
    folder = tmp_path_factory.mktemp("server")
    server = ChatServer(folder, f"sqlite:///{folder / 'chat.db'}", PAGES)
    yield server
    server.check()
