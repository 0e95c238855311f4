"""``wschat.d.ts``, held to its use, to the protocol and to ``wschat.js``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_wschat.documents import typescript
from tests.support.npm import ROOT, compiled, needs_npm, node, run

HERE = Path(__file__).parent
STATIC = ROOT / "flask_wschat" / "static"
BETWEEN = {"notice", "receive", "refresh", "sync"}
"""What the classes of wschat.js call of each other, and nobody else does."""
SCHEMA = ROOT / "docs" / "protocol" / "wschat.v1.schema.json"


def project(folder: Path, page: str, **options: Any) -> str:
    """Return what the compiler has against one of the pages beside this file."""
    config = {"compilerOptions": options, "files": [str(HERE / page)]}
    (folder / "tsconfig.json").write_text(json.dumps(config))
    return compiled(folder)


@pytest.mark.slow
@pytest.mark.parametrize("strict", [{}, {"exactOptionalPropertyTypes": True}])
def test_each_call_has_its_types(tmp_path: Path, strict: dict[str, bool]) -> None:
    assert project(tmp_path, "usage.ts", **strict) == ""


def test_they_need_no_browser(tmp_path: Path) -> None:
    roots = [str(ROOT / "node_modules" / "@types")]
    options = {"lib": ["es2022"], "types": ["node"], "typeRoots": roots}
    assert project(tmp_path, "usage_node.ts", **options) == ""


def declared(schema: dict[str, Any]) -> str:
    """Return the types of what the schema has, by the names on the wire."""
    defs = schema["$defs"]
    names = {key: typescript.type_name(key) for key in defs}
    lines = [typescript.declaration(key, defs[key]) for key in defs]

    def interface(name: str, fields: dict[str, str]) -> None:
        entries = [f"  {key}: {names[found]};\n" for key, found in fields.items()]
        lines.append(f"export interface {name} {{\n{''.join(entries)}}}\n")

    def types(key: str, union: str) -> dict[str, str]:
        refs = [each["$ref"].rpartition("/")[2] for each in defs[key][union]]
        kinds = {ref: defs[ref].get("properties", {}).get("type", {}) for ref in refs}
        return {kind["const"]: ref for ref, kind in kinds.items() if "const" in kind}

    asked = types("client", "oneOf")
    interface("Events", types("server", "anyOf"))
    interface("Requests", asked)
    interface("Replies", {key: f"{ref}.reply" for key, ref in asked.items()})
    return "".join(lines)


def differences(folder: Path, schema: dict[str, Any]) -> str:
    page = folder / "schema.ts"
    page.write_text(declared(schema))
    return project(folder, "wire.ts", paths={"schema": [str(page)]})


@pytest.mark.slow
def test_what_goes_over_the_wire_is_as_in_the_protocols_schema(tmp_path: Path) -> None:
    assert differences(tmp_path, json.loads(SCHEMA.read_text())) == ""


def dropped(defs: dict[str, Any]) -> None:
    del defs["tally"]["properties"]["total"]


def added(defs: dict[str, Any]) -> None:
    defs["say"]["properties"]["odd"] = {"type": "string"}


def required(defs: dict[str, Any]) -> None:
    defs["message"]["required"].append("tag")


def optional(defs: dict[str, Any]) -> None:
    defs["limits"]["required"].remove("depth")


def other(defs: dict[str, Any]) -> None:
    defs["poll.reply"]["properties"]["mine"] = {"type": "string"}


def another(defs: dict[str, Any]) -> None:
    defs["error"]["properties"]["code"]["enum"].append("odd")


def unnamed(defs: dict[str, Any]) -> None:
    defs["server"]["anyOf"] = [
        each for each in defs["server"]["anyOf"] if not each["$ref"].endswith("gap")
    ]


def within(defs: dict[str, Any]) -> None:
    defs["stream.event"]["properties"]["n"] = {"type": "string"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "name"),
    [
        (dropped, "tally.total"),
        (added, "say.odd"),
        (required, "message.tag"),
        (optional, "depth"),
        (other, "poll.mine"),
        (another, "code"),
        (unnamed, "gap"),
        (within, "stream.n"),
    ],
)
def test_a_field_in_which_they_differ_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], name: str
) -> None:
    schema = json.loads(SCHEMA.read_text())
    change(schema["$defs"])
    assert f"Type '\"{name}\"'" in differences(tmp_path, schema)


def named(folder: Path, file: str) -> Any:
    """Return the names in a file of ours, as ``names.mjs`` has them."""
    options = {"allowJs": True, "target": "es2022", "module": "nodenext", "types": []}
    config = {"compilerOptions": options, "files": [str(STATIC / file)]}
    (folder / "tsconfig.json").write_text(json.dumps(config))
    needs_npm()
    return json.loads(run(node(), HERE / "names.mjs", folder))


@pytest.mark.slow
def test_the_names_are_those_of_the_client(tmp_path: Path) -> None:
    types, client = named(tmp_path, "wschat.d.ts"), named(tmp_path, "wschat.js")
    assert types["values"] == client["values"]
    made = json.loads(run(node(), HERE / "made.mjs", (STATIC / "wschat.js").as_uri()))
    for name in ("WSChat", "RequestError"):
        assert types["members"][name] == client["members"][name]
    for name, found in made.items():
        told = set(types["members"][name])
        assert told - set(found) == ({"hello"} if name == "WSChat" else set()), name
        # The inbox is made as a room is, and has some of its fields.
        others = {*BETWEEN, *types["members"]["Room"]}
        assert set(found) - told <= others, name
