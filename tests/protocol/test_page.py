"""docs/protocol.md and its JSON Schema say the same."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest

from tests.support.chat_client import Json

from .peers import (
    DEFS,
    ENVELOPE,
    EVENTS,
    PAGE,
    REQUESTS,
    SCHEMA,
    VALIDATORS,
    check,
    definition,
)

# ---- the page and the schema --------------------------------------------------------


def tables(section: str) -> dict[str, list[list[str]]]:
    """Return the tables of a part of the page: their first heading, and their rows."""
    found: dict[str, list[list[str]]] = {}
    for text in re.findall(r"(?:^\|.*\n)+", section, re.M):
        rows = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in text.splitlines()
        ]
        assert rows[0][0] not in found
        found[rows[0][0]] = rows[2:]
    return found


def section(heading: str) -> str:
    start = PAGE.index(f"\n{heading}\n")
    level = heading.split(" ")[0]
    end = re.compile(rf"^#{{2,{len(level)}}} ", re.M).search(
        PAGE, start + len(heading) + 2
    )
    return PAGE[start : end.start() if end else None]


def fields(rows: list[list[str]]) -> tuple[set[str], set[str]]:
    """Return the fields of a table, and those that may be left out."""
    names = [re.fullmatch(r"`(\w+)(\??)`", row[0]) for row in rows]
    assert all(names), rows
    return (
        {name[1] for name in names if name},
        {name[1] for name in names if name and name[2]},
    )


def listed(definition: Json, envelope: set[str]) -> tuple[set[str], set[str]]:
    properties = set(definition["properties"])
    return properties - envelope, properties - set(definition["required"])


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    events = [definition(event) for event in EVENTS]
    for kind, names in (
        ("client", REQUESTS),
        ("server", (*events, "reply", "emitted")),
    ):
        refs = {
            r["$ref"] for key in ("oneOf", "anyOf") for r in DEFS[kind].get(key, ())
        }
        assert refs == {f"#/$defs/{name}" for name in names}


@pytest.mark.parametrize("name", REQUESTS)
def test_the_page_has_each_field_of_a_request_and_its_reply(name: str) -> None:
    found = tables(section(f"### `{name}`"))
    assert fields(found.get("request", [])) == listed(DEFS[name], ENVELOPE)
    assert fields(found.get("reply", [])) == listed(DEFS[f"{name}.reply"], ENVELOPE)


@pytest.mark.parametrize(
    ("heading", "table", "name"),
    [
        *((event, "event", definition(event)) for event in EVENTS),
        ("hello", "limits", "limits"),
        ("hello", "rate", "rate"),
        ("reply", "error", "error"),
    ],
)
def test_the_page_has_each_field_of_what_a_server_sends(
    heading: str, table: str, name: str
) -> None:
    found = tables(section(f"### `{heading}`"))
    assert fields(found[table]) == listed(DEFS[name], {"type"})


def test_the_page_has_each_error_code_and_each_section() -> None:
    codes = {row[0].strip("`") for row in tables(section("## Errors"))["code"]}
    assert codes == set(DEFS["error"]["properties"]["code"]["enum"])
    named = set(re.findall(r"^Errors?: (.*)\.$", PAGE, re.M))
    named = {code for line in named for code in re.findall(r"`(\w+)`", line)}
    assert named <= codes
    described = re.findall(r"^### `(\w+)`$", PAGE, re.M)
    assert sorted(described) == sorted({*REQUESTS, *EVENTS, "reply"})
    headings = {
        h.lower().replace(" ", "-") for h in re.findall(r"^##+ (.*)$", PAGE, re.M)
    }
    assert set(re.findall(r"\(#([\w-]+)\)", PAGE)) <= headings


def test_the_conversation_of_the_page_is_valid() -> None:
    asked: dict[int, str] = {}
    (text,) = re.findall(r"```\n(← .*?)```", PAGE, re.S)
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        message = json.loads(line[2:])
        if line[0] == "→":
            asked[message["ref"]] = message["type"]
            check(message["type"], message)
        elif message["type"] == "reply":
            request = asked.pop(message["ref"])
            check(f"{request}.reply" if message["ok"] else "error.reply", message)
        else:
            check(message["type"], message)
    assert asked == {}


def test_what_a_client_may_not_send_is_not_valid() -> None:
    good = {"type": "join", "ref": 1, "room": "Lobby", "after": 3, "epoch": "e"}
    check("client", good)
    for changes in (
        {"ref": -1},
        {"ref": "1"},
        {"room": ""},
        {"room": 7},
        {"room": "x" * 101},
        {"after": -1},
        {"type": "enter"},
    ):
        assert not VALIDATORS["client"].is_valid(good | changes), changes
    for field in ("ref", "room"):
        rest = {key: value for key, value in good.items() if key != field}
        assert not VALIDATORS["client"].is_valid(rest), field
