"""Each document is held to its own standard: JSON Schema, AsyncAPI's, the compiler."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from flask import Flask

from flask_wschat import WSChat
from flask_wschat.documents import asyncapi, protocol, typescript
from tests.support.npm import MODULES, compiled, needs_npm

from . import clashing
from .application import app

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "flask_wschat" / "static"

USE = """
import { WSChat } from "./wschat.js";
import type { BoardEvents, BoardRequests, Cell, ToolsRequests } from "./chat.js";

const chat = new WSChat<BoardEvents, BoardRequests>("/board/1");
chat.on("moved", (message) => message.at.x.toFixed() + message.steps.a + message.from);
chat.on("tally", (message) => message.counts);
const reply = await chat.request("guess", { word: "tea", level: "hard" });
reply.result.near?.[0].label?.length;
await chat.request("move", { room: "a", to: { x: 1, y: 2 } });
const points = await chat.request("a-b.c", { pair: [1, "a"], some: true });
points.result.map((point) => point.y);
const level: string | undefined = (
  await chat.request("set_level", { level: "easy", extra: { a: [1] } })
).result;
await chat.request("vote", { poll: "Tea", choice: level ?? "easy" });
(await chat.request("opponent")).result?.name.length;
chat.on("undone", ({ cells }) => cells.map((cell) => cell?.[0].toFixed()));
const cell: Cell = [1];
cell[1]?.toFixed();
const lobby = chat.join("Lobby", {
  onStream: (stream, piece) => stream.text.length + stream.n + piece.length,
  onDiscard: (id, reason) => id + reason,
});
lobby.streams.get("x")?.text;
await lobby.stop("x");
const tools = new WSChat<{}, ToolsRequests>("/tools");
(await tools.request("add", { a: 1, b: 2 })).result.toFixed();
(await tools.request("unsaid", {})).result;
(await tools.request("unsaid")).result;
// @ts-expect-error
await tools.request("add");
// @ts-expect-error
await chat.request("guess", { word: 1 });
// @ts-expect-error
await chat.request("guess", {});
// @ts-expect-error
await chat.request("guess", { word: "tea", level: "harder" });
// @ts-expect-error
await chat.request("a-b.c", { pair: ["a", 1] });
// @ts-expect-error
chat.on("moved", (message) => message.nowhere);
// @ts-expect-error
(await chat.request("opponent")).result.name;
// @ts-expect-error
tools.hello?.limits.data.toFixed();
"""


def test_the_protocols_schema_is_the_one_in_docs() -> None:
    page = ROOT / "docs" / "protocol" / "wschat.v1.schema.json"
    words = "python -m flask_wschat.documents.protocol >docs/protocol/…"
    assert json.loads(page.read_text()) == protocol.schema(), words


def commanded(*arguments: str, target: str = "tests.documents.application") -> Any:
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", target, "wschat", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.slow
def test_the_commands_print_them() -> None:
    done = commanded("asyncapi", "--title", "Games", "--version", "2.1")
    document = json.loads(done.stdout)
    assert document == asyncapi.document(app, "Games", "2.1")
    assert commanded("types").stdout == typescript.module(app)


@pytest.mark.slow
def test_an_application_without_sockets_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text("import flask\napp = flask.Flask('plain')\n")
    done = commanded("types", target=str(tmp_path / "plain.py"))
    assert done.returncode == 1
    assert done.stderr == (
        "Error: the application 'plain' has no WSChat: call WSChat(app), or name"
        " another one by --app\n"
    )


def test_the_asyncapi_document_is_valid() -> None:
    needs_npm()
    specification = MODULES / "@asyncapi" / "specs" / "schemas" / "3.0.0.json"
    schema = json.loads(specification.read_text())
    document = asyncapi.document(app, "Games", "1.0.0")
    for found in (document, asyncapi.document(clashing.app, "Games", "1.0.0")):
        jsonschema.Draft7Validator(schema).validate(found)
    document["channels"]["Board"]["messages"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate(document)


def resolve(document: Any, ref: str) -> Any:
    for key in ref.removeprefix("#/").split("/"):
        document = document[key.replace("~1", "/").replace("~0", "~")]
    return document


def every(found: Any, key: str) -> list[Any]:
    if isinstance(found, list):
        return [each for inner in found for each in every(inner, key)]
    if isinstance(found, dict):
        own = [found[key]] if key in found else []
        return own + [each for inner in found.values() for each in every(inner, key)]
    return []


def test_each_reference_of_a_document_leads_somewhere() -> None:
    for described in (app, clashing.app):
        document = asyncapi.document(described, "Games", "1.0.0")
        refs = every(document, "$ref")
        assert len(refs) > 50
        for ref in refs:
            assert resolve(document, ref), ref
    schema = protocol.schema()
    for ref in every(schema, "$ref"):
        assert resolve(schema, ref), ref


def test_what_the_document_says_of_events() -> None:
    document = asyncapi.document(app, "Games", "1.0.0")
    channels = document["channels"]
    assert channels["Board"]["address"] == "/board/{game}"
    assert channels["Board"]["summary"] == "Games for two."
    assert set(channels["Board"]["parameters"]) == {"game"}
    assert channels["echo"]["address"] == "/echo/{times}/{rest}"
    guess = channels["Board"]["messages"]["guess"]
    assert guess["summary"] == "Guess a word."
    assert guess["payload"]["properties"]["type"] == {"const": "guess"}
    assert guess["payload"]["required"] == ["type", "ref", "word"]
    assert guess["payload"]["properties"]["level"] == {
        "enum": ["easy", "hard"],
        "default": "easy",
    }
    reply = channels["Board"]["messages"]["guess.reply"]["payload"]
    assert "result" in reply["required"]
    assert (
        "result"
        not in channels["Board"]["messages"]["move.reply"]["payload"]["properties"]
    )
    moved = channels["Board"]["messages"]["moved"]
    assert (moved["name"], moved["summary"]) == ("moved", "Somebody moved.")
    assert set(moved["payload"]["required"]) == {"type", "room", "from", "at", "steps"}
    operation = document["operations"]["Board.guess"]
    assert operation["action"] == "receive"
    tools = channels["Tools"]["messages"]
    assert "join" not in tools
    assert {"hello", "ping", "add"} <= set(tools)


def test_two_types_of_one_name_are_two() -> None:
    document = asyncapi.document(clashing.app, "Games", "1.0.0")
    addresses = [each["address"] for each in document["channels"].values()]
    assert sorted(addresses) == ["/game", "/game/{name}", "/plain"]
    messages = document["channels"]["Game"]["messages"]

    def of(schema: Any) -> Any:
        return of(resolve(document, schema["$ref"])) if "$ref" in schema else schema

    def fields(schema: Any) -> Any:
        return of(schema)["properties"]

    go = messages["go_far"]
    assert go["name"] == "go/far"
    asked = fields(go["payload"])
    answered = fields(fields(messages["go_far.reply"]["payload"])["result"])
    assert of(fields(asked["to"])["x"]) == {"type": "integer"}
    assert of(answered["x"]) == {"type": "string"}
    assert fields(asked["to"])["near"]["items"] == asked["to"]
    assert fields(asked["error"]).keys() == {"why"}
    assert fields(messages["error.reply"]["payload"])["error"] != asked["error"]
    assert of(asked["name"]) == {"type": "integer", "minimum": 0}
    assert asked["name"]["default"] == 7
    assert of(asked["price"]) == {"type": "integer"}
    back = fields(messages["go_far2"]["payload"])["why"]
    assert back["anyOf"] == [asked["error"], {"type": "null"}]
    names = [each.get("name") for each in messages.values()]
    mine = {"go/far", "go_far", "go_far.reply", "sends", "moved / far", "moved_/_far"}
    assert {name for name in mine if names.count(name) == 1} == mine
    assert fields(messages["moved___far"]["payload"])["words"]["type"] == "array"
    actions = [each["action"] for each in document["operations"].values()]
    kinds = clashing.Game._handlers, clashing.Game._handlers, clashing.Plain._handlers
    assert actions.count("receive") == sum(map(len, kinds))
    assert actions.count("send") == 3


CLASHES = """
import { WSChat } from "./wschat.js";
import type { GameEvents, GameRequests } from "./chat.js";

const chat = new WSChat<GameEvents, GameRequests>("/game");
const error = { why: "" };
const reply = await chat.request("go/far", { to: { x: 1, near: [] }, error, name: 1 });
reply.result.x.length;
const points = (await chat.request("go_far", { why: error })).result;
points[0]?.x.toFixed();
chat.on("moved / far", (message) => message.words.length);
chat.on("moved_/_far", (message) => message.count.toFixed());
const sent = await chat.request("sends", { count: { count: 1 } });
sent.result.free["a"]?.toFixed();
// @ts-expect-error
await chat.request("go/far", { to: { x: "" }, error });
"""


@pytest.mark.slow
def test_types_of_one_name_compile(tmp_path: Path) -> None:
    for name in ("wschat.js", "wschat.d.ts"):
        (tmp_path / name).write_text((STATIC / name).read_text())
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "use.ts").write_text(CLASHES)
    alone = Flask("alone")  # whose module has `Requests` and `Events` as well
    WSChat(alone).listener("/game", endpoint="Game")(clashing.Game)
    for described in (clashing.app, alone):
        (tmp_path / "chat.ts").write_text(typescript.module(described))
        assert compiled(tmp_path / "use.ts") == ""


@pytest.mark.slow
def test_the_types_compile_with_the_clients(tmp_path: Path) -> None:
    for name in ("wschat.js", "wschat.d.ts"):
        (tmp_path / name).write_text((STATIC / name).read_text())
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "chat.ts").write_text(typescript.module(app))
    (tmp_path / "use.ts").write_text(USE)
    assert compiled(tmp_path / "use.ts") == ""


@pytest.mark.slow
def test_the_types_are_used_as_they_and_their_help_say(tmp_path: Path) -> None:
    told = commanded("types")
    (tmp_path / "src").mkdir()
    (tmp_path / "package.json").write_text('{"type": "module"}')
    with app.test_client().get("/_wschat/wschat.d.ts") as served:
        (tmp_path / "src" / "wschat.d.ts").write_bytes(served.data)
    (tmp_path / "src" / "chat.ts").write_text(told.stdout)
    head = told.stdout.partition("\n\n")[0].splitlines()[1:]
    page = "\n".join(line.removeprefix("//") for line in head)
    page += '\nconst wrong: null = (await chat.request("guess", { word: "a" })).result;'
    (tmp_path / "src" / "page.ts").write_text(page)
    (line,) = re.findall('"paths": {.*}', commanded("types", "--help").stdout)
    options = json.loads(f"{{{line}}}")
    (tmp_path / "tsconfig.json").write_text(
        json.dumps({"compilerOptions": options, "files": ["src/page.ts"]})
    )
    (error,) = compiled(tmp_path).splitlines()
    assert "is not assignable to type 'null'" in error


def test_a_plain_application_has_a_document_too() -> None:
    assert asyncapi.document(Flask("plain"), "t", "1")["channels"] == {}
