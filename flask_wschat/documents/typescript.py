"""JSON Schema as TypeScript: what ``flask wschat types`` prints."""

from __future__ import annotations

import json
import re
from typing import Any

from flask import Flask

from ..chat.events import Events
from .requests import arguments, declared, is_silent, returned, routes
from .schema import Definitions

_KINDS = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
}
_NAME = re.compile(r"[A-Za-z_$][\w$]*")


def type_of(schema: Any, indent: str = "") -> str:
    """Return the TypeScript type of what ``schema`` allows."""
    return " | ".join(_members(schema, indent))


def _members(schema: Any, indent: str) -> list[str]:
    """Return the types of which it is one."""
    if schema is True:
        return ["unknown"]
    if "$ref" in schema:
        return [type_name(schema["$ref"].rpartition("/")[2])]
    if "const" in schema:
        return [json.dumps(schema["const"])]
    if "enum" in schema:
        return [json.dumps(each) for each in schema["enum"]]
    if "anyOf" in schema:
        found = (each for one in schema["anyOf"] for each in _members(one, indent))
        return list(dict.fromkeys(found))
    kind = schema.get("type")
    if kind == "array":
        return [_array(schema, indent)]
    if kind == "object":
        return [_object(schema, indent)]
    return [_KINDS.get(str(kind), "unknown")]


def _array(schema: dict[str, Any], indent: str) -> str:
    if "prefixItems" in schema:
        parts = [type_of(each, indent) for each in schema["prefixItems"]]
        least = schema["minItems"]
        optional = [f"{_grouped(each)}?" for each in parts[least:]]
        return f"[{', '.join(parts[:least] + optional)}]"
    return f"{_grouped(type_of(schema.get('items', True), indent))}[]"


def _grouped(text: str) -> str:
    return f"({text})" if " | " in text else text


def _object(schema: dict[str, Any], indent: str) -> str:
    if "properties" not in schema:
        values = schema.get("additionalProperties", True)
        return f"Record<string, {type_of(values, indent)}>"
    return fields(schema, indent)


def fields(schema: dict[str, Any], indent: str = "") -> str:
    """Return the fields of an object in braces."""
    inner, required = indent + "  ", schema.get("required", ())
    lines = []
    for name, each in schema["properties"].items():
        if isinstance(each, dict) and (words := each.get("description")):
            lines.append(f"{inner}/** {comment(words)} */")
        mark = "" if name in required else "?"
        lines.append(f"{inner}{key(name)}{mark}: {type_of(each, inner)};")
    if not lines:
        return "{}"
    return "{\n" + "\n".join(lines) + f"\n{indent}}}"


def key(name: str) -> str:
    return name if _NAME.fullmatch(name) else json.dumps(name)


def comment(words: str) -> str:
    return " ".join(words.replace("*/", "*\\/").split())


def type_name(name: str) -> str:
    """Return the name of a definition as that of a type."""
    parts = re.split(r"[^A-Za-z0-9]+", name)
    text = "".join(part[:1].upper() + part[1:] for part in parts)
    return text if text[:1].isalpha() else f"T{text}"


def module(app: Flask) -> str:
    """Return a module with the types of all listeners of ``app``."""
    found = [(type_name(r.endpoint), r) for r in routes(app) if r.events is not None]
    reserved = (f"{name}{kind}" for name, _ in found for kind in ("Requests", "Events"))
    defs = Definitions({}, reserved=[*reserved, "Requests", "Events", "Record"])
    made: list[str] = []
    names: list[str] = []
    use = ""
    for name, route in found:
        if route.events is not None and name not in names:
            names.append(name)
            use = use or _USE.format(name=name, address=route.address)
            made += _listener(defs, name, route.address, route.events)
    if len(names) == 1:
        made.append(f"export type Requests = {names[0]}Requests;\n")
        made.append(f"export type Events = {names[0]}Events;\n")
    shared = [declaration(name, schema) for name, schema in defs.all.items()]
    return "\n".join([_HEAD + use, *shared, *made])


_HEAD = """\
// Made by `flask wschat types` of the hints in the application's code.
"""

_USE = """\
//
//   import {{ WSChat }} from "/_wschat/wschat.js";
//   import type {{ {name}Events, {name}Requests }} from "./chat.js"; // this file
//
//   const chat = new WSChat<{name}Events, {name}Requests>("{address}");
"""

_ENVELOPE = """
    type: {};
    room: string | null;
    from: string | null;"""


def declaration(name: str, schema: Any) -> str:
    """Return the declaration of a type that has a name."""
    words = (
        f"/** {comment(schema['description'])} */\n" if "description" in schema else ""
    )
    if schema.get("type") == "object" and "properties" in schema:
        return f"{words}export interface {type_name(name)} {fields(schema)}\n"
    return f"{words}export type {type_name(name)} = {type_of(schema)};\n"


def _listener(
    defs: Definitions, name: str, address: str, kind: type[Events]
) -> list[str]:
    requests = [
        f"/** What clients of {address} may ask beside the chat's own requests. */",
        f"export interface {name}Requests {{",
    ]
    for event, handler in kind._handlers.items():
        if handler.own:
            continue
        if handler.summary:
            requests.append(f"  /** {comment(handler.summary)} */")
        asked = fields(arguments(defs, handler), "    ")
        answer = "undefined"
        if not is_silent(handler):
            found = _members(returned(defs, handler), "    ")
            # The reply to one that returns None has no result at all.
            answer = " | ".join(
                "undefined" if each == "null" else each for each in found
            )
        requests.append(f"  {key(event)}: {{")
        requests.append(f"    fields: {asked};")
        requests.append(f"    result: {answer};")
        requests.append("  };")
    requests.append("}\n")
    events = [
        f"/** What clients of {address} are sent beside the chat's own messages. */",
        f"export interface {name}Events {{",
    ]
    for event, schema, words in declared(defs, kind):
        if words:
            events.append(f"  /** {comment(words)} */")
        own = fields(schema, "  ").removeprefix("{")
        events.append(f"  {key(event)}: {{{_ENVELOPE.format(json.dumps(event))}{own};")
    events.append("}\n")
    return ["\n".join(requests), "\n".join(events)]
