"""The requests and events of an application's listeners, as schemas."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

from flask import Flask

from ..chat import wire
from ..chat.events import Events
from ..chat.fields import Name, User
from ..chat.handlers import Handler
from ..chat.listener import ChatListener
from ..opening.views import SERVES, Served
from .schema import Definitions, Schema

_ARGUMENT = re.compile(r"<(?:[^<>]*:)?(\w+)>")


class Route(NamedTuple):
    """One WebSocket route of an application."""

    address: str
    """Its rule, with ``{name}`` for each argument."""
    arguments: list[str]
    endpoint: str
    serves: Any
    """The listener class, or the view."""

    @property
    def events(self) -> type[Events] | None:
        """The class whose requests are known; None: it is a plain socket."""
        kind = self.serves
        return kind if isinstance(kind, type) and issubclass(kind, Events) else None


def routes(app: Flask) -> Iterator[Route]:
    """Yield the WebSocket routes of ``app``, in the order of the URL map.

    But for the dashboard's, which is for a page of ours.
    """
    for rule in app.url_map.iter_rules():
        view = app.view_functions.get(rule.endpoint)
        if rule.websocket and view is not None:
            arguments = _ARGUMENT.findall(rule.rule)
            served: Served | None = getattr(view, SERVES, None)
            if served is not None and not getattr(served.by, "_documented", True):
                continue
            address = _ARGUMENT.sub(r"{\1}", rule.rule)
            yield Route(
                address, arguments, rule.endpoint, served.by if served else view
            )


def request(defs: Definitions, handler: Handler) -> Schema:
    """Return the schema of a whole request."""
    given = arguments(defs, handler)
    properties = {
        "type": {"const": handler.name},
        "ref": defs.refer(wire.Ref),
        **given["properties"],
    }
    described = {"description": handler.summary} if handler.summary else {}
    required = ["type", "ref", *given.get("required", ())]
    return {
        **described,
        "type": "object",
        "properties": properties,
        "required": required,
    }


def arguments(defs: Definitions, handler: Handler) -> Schema:
    """Return the schema of what a handler of the application's takes."""
    if handler.given is None:
        return {"type": "object", "properties": {}}
    return defs.struct(handler.given)


def result(defs: Definitions, handler: Handler) -> Schema:
    """Return the schema of the reply to a request that is done."""
    words = f"To {handler.name}."
    if handler.own:
        return {**defs.struct(wire.REPLIES[handler.name]), "description": words}
    found: Schema = {**defs.struct(wire.Done), "description": words}
    if not is_silent(handler):
        properties = {**found["properties"], "result": returned(defs, handler)}
        found["properties"] = properties
        if not _may_be_none(handler.returns):
            found["required"] = [*found["required"], "result"]
    return found


def is_silent(handler: Handler) -> bool:
    """Whether it is known to return nothing."""
    return handler.returns in (None, type(None))


def returned(defs: Definitions, handler: Handler) -> Schema:
    """Return the schema of what a handler returns; of anything where nobody said."""
    unknown = handler.returns is inspect.Signature.empty
    return defs.refer(Any if unknown else handler.returns)


def _may_be_none(hint: Any) -> bool:
    return hint in (Any, inspect.Signature.empty) or type(None) in get_args(hint)


def emitted(defs: Definitions, kind: type[Events]) -> Iterator[tuple[str, Schema, str]]:
    """Yield what connections of ``kind`` are sent unasked: type, schema, a line."""
    is_chat = issubclass(kind, ChatListener)
    for name, sent in wire.SENT.items():
        if is_chat or name in ("hello", "message"):
            yield name, defs.refer(sent), (sent.__doc__ or "").split("\n")[0]
    for name, fields, words in declared(defs, kind):
        properties = {
            "type": {"const": name},
            "room": defs.refer(Name | None),
            "from": defs.refer(User | None),
            **fields.get("properties", {}),
        }
        required = ["type", "room", "from", *fields.get("required", ())]
        schema = {"type": "object", "properties": properties, "required": required}
        yield name, schema, words


def declared(
    defs: Definitions, kind: type[Events]
) -> Iterator[tuple[str, Schema, str]]:
    """Yield the application's own of them: type, schema of its fields, a line."""
    for name, fields in kind.emits.items():
        found = defs.refer(fields)
        # Within the same object: so it stands here in full.
        inner = defs.all[defs.name_of(found)] if "$ref" in found else found
        yield name, inner, inner.get("description", "").split("\n")[0]
