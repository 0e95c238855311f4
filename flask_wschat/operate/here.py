"""What this process knows of itself and of who is here, as answers to ``Reports``.

They run beside the loop, and look at all rooms or connections in small parts of it, so
that messages go on between them.
"""

from __future__ import annotations

import copy
import functools
import heapq
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import msgspec

from ..hub.figures import SIZE, read
from ..hub.hub import Hub
from ..messages import room_of, user_of, user_topic
from ..transports import Loop
from ..websocket import WebSocket, as_close

T = TypeVar("T")

MOST = 500
"""Rooms, users or connections in an answer."""
MOST_BYTES = 1 << 20
"""Of an answer: so many rooms fit, whatever they are called."""
MOST_ROOMS = 20
"""Of a connection that are named."""
_PART = 1000  # looked at in one go, about a millisecond


def answers(hub: Hub) -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Return what a process of ``hub`` answers to each question."""
    known = (stats, rooms, users, connections, kick)
    return {each.__name__: functools.partial(each, hub) for each in known}


def stats(hub: Hub, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of this process."""
    found = _call(hub, hub.figures.stats)
    return hub.figures.stats() if found is None else found


def rooms(hub: Hub, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the rooms with most connections here: ``name``, ``connections`` and
    ``people``, users in it, each once; see ``_biggest``.
    """
    found = _biggest(hub, fields, room_of)
    for row in found["rows"]:
        members = _call(hub, functools.partial(_members, hub, row.pop("topic"))) or []
        people: set[str] = set()
        for part in _parts(members):
            people.update(ws.user for ws in part if ws.user is not None)
            _call(hub, int)
        row["people"] = len(people)
    return found


def users(hub: Hub, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the users with most connections here: ``name``, ``connections``."""
    found = _biggest(hub, fields, user_of)
    for row in found["rows"]:
        del row["topic"]
    return found


def connections(hub: Hub, fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the connections here of ``fields["user"]``, as many as may be told."""
    user = fields.get("user")
    if not isinstance(user, str):
        raise ValueError("the user is a text")
    found: list[WebSocket] = _call(hub, lambda: _members(hub, user_topic(user))) or []
    rows: list[dict[str, Any]] = []
    left = MOST_BYTES // 2
    for ws in found[:MOST]:
        row = _described(ws)
        left -= len(json.dumps(row))
        if left < 0:
            break
        if not ws.closed:
            rows.append(row)
    return rows


def kick(hub: Hub, fields: dict[str, Any]) -> int:
    """Close the connection whose id is ``fields["id"]``; return how many it were."""
    code, reason = as_close(fields.get("code", 4000), fields.get("reason", ""))
    id_ = fields.get("id")
    if not isinstance(id_, str):  # None is that of all who were never asked for it
        raise ValueError("the id is a text")
    everyone: list[WebSocket] = _call(hub, lambda: list(hub.everyone())) or []
    found = [ws for ws in everyone if ws._id == id_ and not ws.closed]
    for ws in found:
        ws.close(code, reason)
    return len(found)


# -- those of all processes


def figures(value: Any) -> dict[str, Any] | None:
    """Return what another process says of itself, as ``chat.stats()`` has it.

    What another version counts is left out, and what it does not is 0. None: it is
    nothing like that.
    """
    try:
        told = msgspec.to_builtins(msgspec.convert(value, _Told))
    except msgspec.ValidationError:
        return None
    for name, zero in _ZEROS.items():
        found = told[name]
        if found is not None and name in _BOUNDS:
            found["buckets"] = list(map(list, found["buckets"]))
            if [bound for bound, _ in found["buckets"]] != _BOUNDS[name]:
                found = None  # no others can be added up with them
        elif isinstance(zero, float):
            continue  # of seconds that are not known
        told[name] = copy.deepcopy(zero) if found is None else found
    return told  # type: ignore[no-any-return]


class _Histogram(msgspec.Struct):
    count: int
    sum: float
    buckets: list[tuple[float | str, int]]


def _kind(zero: Any) -> Any:
    """Return the type of a figure that is ``zero`` at first."""
    if not isinstance(zero, dict):
        return type(zero) if isinstance(zero, bool | int) else float
    return _Histogram if "buckets" in zero else dict[str, int]


_ZEROS = read(bytes(SIZE))
_BOUNDS = {
    name: [bound for bound, _ in zero["buckets"]]
    for name, zero in _ZEROS.items()
    if isinstance(zero, dict) and "buckets" in zero
}
_IDENTITY: list[Any] = [("started", float), ("uptime", float), ("version", str, "")]
_FIELDS: list[Any] = [(name, _kind(zero) | None, None) for name, zero in _ZEROS.items()]
_Told = msgspec.defstruct("_Told", [*_IDENTITY, *_FIELDS])


class Biggest(NamedTuple):
    """The rooms, or users, with most connections."""

    rows: list[dict[str, Any]]
    total: int
    """How many there are at least: processes may have the same or others."""


def is_biggest(value: Any) -> bool:
    """Whether it is what ``rooms`` or ``users`` returns, in this version or another."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("total"), int)
        and isinstance(value.get("rows"), list)
        and all(
            isinstance(row, dict)
            and isinstance(row.get("name"), str)
            and isinstance(row.get("connections"), int)
            for row in value["rows"]
        )
    )


def merged(found: Iterable[dict[str, Any]], limit: int) -> Biggest:
    """Return the biggest in all processes of what each has returned."""
    rows: dict[str, dict[str, Any]] = {}
    total = 0
    for each in found:
        total = max(total, each["total"])
        for row in each["rows"]:
            known = rows.setdefault(row["name"], {"name": row["name"]})
            for key, count in row.items():
                if isinstance(count, int):
                    known[key] = known.get(key, 0) + count
    return Biggest(_first(rows.values(), limit), max(total, len(rows)))


def _first(rows: Iterable[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    key = lambda row: (-row["connections"], row["name"])  # noqa: E731
    return heapq.nsmallest(limit, rows, key)


# -- within


def _biggest(
    hub: Hub, fields: dict[str, Any], name_of: Callable[[str], str | None]
) -> dict[str, Any]:
    """Return as ``rows`` those with most connections here, at most ``limit``, and how
    many there are in all.

    ``prefix``: what their names begin with; ``part``: what is in them, in whatever
    case; ``names``: which they are.
    """
    prefix, part = str(fields.get("prefix", "")), str(fields.get("part", "")).lower()
    names, limit = fields.get("names"), min(int(fields.get("limit", 50)), MOST)
    wanted = None if names is None else set(names)
    rows: list[dict[str, Any]] = []
    total = 0
    for topics in _parts(_call(hub, lambda: [*hub.members.topics()]) or []):
        some = []
        for topic in topics:
            name = name_of(topic)
            if (
                name is not None
                and name.startswith(prefix)
                and part in name.lower()
                and (wanted is None or name in wanted)
            ):
                some.append((name, topic))
        counts = _call(hub, functools.partial(_counts, hub, some)) or []
        for (name, topic), count in zip(some, counts, strict=True):
            if count:
                total += 1
                rows.append({"name": name, "topic": topic, "connections": count})
        rows = _first(rows, limit)
    return {"rows": rows, "total": total}


def _counts(hub: Hub, some: list[tuple[str, str]]) -> list[int]:
    return [hub.count(topic) for _, topic in some]


def _members(hub: Hub, topic: str) -> list[WebSocket]:
    members = hub.members
    return [*members.of_routes(topic), *members.chatting(topic)]


def _described(ws: WebSocket) -> dict[str, Any]:
    return {
        "id": ws.id,
        "user": ws.user,
        "route": ws._route,
        "address": ws._address,
        "since": ws._since,
        "rooms": sorted(ws.rooms)[:MOST_ROOMS],
        "room_count": len(ws.rooms),
        "queued": ws._transport.queued,
        "worker": f"{socket.gethostname()}:{os.getpid()}",
    }


def _parts(found: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(found), _PART):
        yield found[start : start + _PART]


def _call(hub: Hub, function: Callable[[], Any]) -> Any:
    """Return what ``function`` returns in the loop; None: there is none here."""
    loop: Loop | None = hub.home.loop
    if loop is None or hub.home.pid != os.getpid() or not loop.is_alive():
        return None
    result = loop.call(function)
    if loop.may_wait():
        loop.give_turn()
    return result
