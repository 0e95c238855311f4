"""AsyncAPI 3: what ``flask wschat asyncapi`` prints.

https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from __future__ import annotations

from typing import Any

from flask import Flask

from ..chat import wire
from ..chat.events import Events
from ..envelope import PROTOCOL
from . import protocol
from .requests import Route, emitted, request, result, routes
from .schema import Definitions, Schema, free_key

_SCHEMAS = "#/components/schemas/"


def document(app: Flask, title: str, version: str) -> dict[str, Any]:
    """Return the document of all WebSocket routes of ``app``."""
    defs = Definitions(protocol.NAMES, _SCHEMAS)
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for route in routes(app):
        name = free_key(route.endpoint, channels)
        channels[name] = channel = _channel(route)
        if (kind := route.events) is not None:
            messages = channel["messages"]
            _requests(defs, name, kind, messages, operations)
            _sent(defs, name, kind, messages, operations)
        else:
            _plain(name, channel["messages"], operations)
    found = {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": version},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
    }
    return {**found, "components": {"schemas": defs.all}} if defs.all else found


def _channel(route: Route) -> dict[str, Any]:
    words = (route.serves.__doc__ or "").strip().split("\n")[0]
    found: dict[str, Any] = {"address": route.address}
    if words:
        found["summary"] = words
    if route.arguments:
        found["parameters"] = {
            name: {"description": f"The URL's {name}."} for name in route.arguments
        }
    bindings: dict[str, Any] = {"ws": {"method": "GET", "bindingVersion": "0.1.0"}}
    if route.events is not None:
        found["description"] = f"Speaks the subprotocol {PROTOCOL}."
    return {**found, "messages": {}, "bindings": bindings}


def _requests(
    defs: Definitions,
    channel: str,
    kind: type[Events],
    messages: dict[str, Any],
    operations: dict[str, Any],
) -> None:
    messages["error.reply"] = _message(defs.refer(wire.Refusal), "A request failed.")
    for name, handler in kind._handlers.items():
        asked, answer = request(defs, handler), result(defs, handler)
        words = asked.get("description", "")
        asks = free_key(name, messages)
        messages[asks] = {**_message(asked, words), "name": name}
        reply = free_key(f"{name}.reply", messages)
        messages[reply] = _message(answer, f"The answer to {name}.")
        operations[free_key(f"{channel}.{name}", operations)] = {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{channel}"},
            **({"summary": words} if words else {}),
            "messages": _refs(channel, [asks]),
            "reply": {
                "channel": {"$ref": f"#/channels/{channel}"},
                "messages": _refs(channel, [reply, "error.reply"]),
            },
        }


def _sent(
    defs: Definitions,
    channel: str,
    kind: type[Events],
    messages: dict[str, Any],
    operations: dict[str, Any],
) -> None:
    names = []
    for name, schema, words in emitted(defs, kind):
        # A request may have the name of what is sent, as `stream` has.
        key = name if name not in messages else f"{name}.sent"
        key = free_key(key, messages)
        messages[key] = {**_message(schema, words), "name": name}
        names.append(key)
    operations[free_key(f"{channel}.sends", operations)] = {
        "action": "send",
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": _refs(channel, names),
    }


def _plain(channel: str, messages: dict[str, Any], operations: dict[str, Any]) -> None:
    messages["any"] = {"summary": "Text or binary, as the application has it."}
    for action in ("receive", "send"):
        operations[free_key(f"{channel}.{action}s", operations)] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "messages": _refs(channel, ["any"]),
        }


def _message(schema: Schema, summary: str) -> dict[str, Any]:
    return {**({"summary": summary} if summary else {}), "payload": schema}


def _refs(channel: str, names: list[str]) -> list[dict[str, str]]:
    return [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names]
