"""Projects with a build step import the package by its name, and its types."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.support.chat_process import ChatServer
from tests.support.npm import node, run, tool
from tests.support.ports import free_port
from tests.support.processes import Process

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

BUNDLE = ("--bundle", "--minify", "--log-override:empty-import-meta=error")


@pytest.fixture(scope="module")
def built(project: Path) -> Path:
    """The folder that a server is to serve, with what Vite and esbuild make."""
    node()
    run(tool("vite"), "build", "--base=/static/", "--outDir=built", cwd=project)
    built = project / "built"
    (project / "old.js").write_text(
        'import { WSChat } from "flask-wschat"; window.Bundled = WSChat;'
    )
    run(
        tool("esbuild"),
        *BUNDLE,
        "--format=iife",
        "old.js",
        "--outdir=built",
        cwd=project,
    )
    return built


@pytest.fixture(scope="module")
def server(
    built: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ChatServer]:
    server = ChatServer(tmp_path_factory.mktemp("server"), "memory://", built)
    yield server
    server.check()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    errors: list[str] = []
    page = chromium.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert errors == []


@pytest.mark.browser
def test_a_page_and_its_worker_that_vite_builds(server: ChatServer, page: Page) -> None:
    page.goto(f"{server.url}static/index.html")
    page.wait_for_function("new Set(window.heard).size == 2")
    assert set(page.evaluate("heard")) == {"from a page", "from a worker"}


@pytest.mark.browser
def test_a_page_that_vite_serves_while_one_develops_it(
    server: ChatServer, project: Path, page: Page, tmp_path: Path
) -> None:
    port = free_port()
    address = ("--host", "127.0.0.1", "--port", str(port), "--strictPort")
    program = [node(), str(tool("vite")), *address]
    vite = Process(program, tmp_path / "vite.log", {"CHAT": server.url}, cwd=project)
    vite.start()
    vite.await_port(port)
    try:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_function("new Set(window.heard).size == 2")
        assert set(page.evaluate("heard")) == {"from a page", "from a worker"}
    finally:
        vite.stop()


@pytest.mark.browser
def test_a_script_that_is_no_module(server: ChatServer, page: Page) -> None:
    """esbuild's default for browsers, where `import.meta` has nothing."""
    page.goto(server.url)
    page.add_script_tag(url="/static/old.js")
    said = page.evaluate(
        """new Promise((resolve) => {
          const chat = new Bundled("/chat?user=ann");
          chat.join("Old", { onMessage: resolve }).say("from a script");
        })"""
    )
    assert (said["data"], said["seq"]) == ("from a script", 1)


def bundled(project: Path, code: str) -> str:
    page = project / "bundled.js"
    page.write_text(code)
    return run(tool("esbuild"), *BUNDLE, "--format=esm", page, cwd=project)


def test_what_a_page_does_not_use_is_left_out(project: Path) -> None:
    assert bundled(project, 'import "flask-wschat";').strip() == ""
    code = bundled(project, 'import { backoff } from "flask-wschat"; backoff(1);')
    assert "random" in code
    assert len(code) < 500, code


# As strict as a project may be; what it has installed is checked as well.
COMPILE = (
    *("--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess"),
    *("--isolatedModules", "--verbatimModuleSyntax", "--skipLibCheck", "false"),
    *("--noEmit", "--target", "es2022"),
)


def test_its_types_are_found(project: Path) -> None:
    page = project / "typed.ts"
    page.write_text(
        """import { WSChat, type Stored } from "flask-wschat";

        const chat = new WSChat("/chat");
        const stored: Promise<Stored> = chat.say("Lobby", { text: "Hello" });
        // @ts-expect-error: a state is one of four words
        const state: "down" = chat.state;
        """
    )
    ways = (
        ("--module", "esnext", "--moduleResolution", "bundler"),
        ("--module", "node16", "--moduleResolution", "node16"),
    )
    for way in ways:
        run(tool("tsc"), *COMPILE, *way, "--types", "", page, cwd=project)


def test_its_types_take_those_of_ws_in_a_project_without_a_page(project: Path) -> None:
    page = project / "typed_node.ts"
    page.write_text(
        """import { WebSocket } from "ws";
        import { WSChat } from "flask-wschat";

        const chat = new WSChat("ws://127.0.0.1/chat", { WebSocket });
        chat.onState(({ state, attempt }) => console.log(state, attempt));
        """
    )
    way = ("--module", "node16", "--lib", "es2023", "--types", "node")
    run(tool("tsc"), *COMPILE, *way, page, cwd=project)
