"""``Rooms``: how a connection gets into a room and out of it, and who hears of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..messages import as_name, room_topic
from ..transports import Loop
from ..websocket import WebSocket
from .claims import Claims
from .members import Members
from .presence import Presence
from .subscriptions import Subscriptions


class Rooms:
    """The steps of a join and a leave; what may wait is done outside of the loop.

    ``finish`` calls a step of an end, and reports its error: the others follow.
    """

    def __init__(
        self,
        members: Members,
        subscriptions: Subscriptions,
        claims: Claims,
        presence: Presence,
        finish: Callable[..., None],
    ) -> None:
        self._members = members
        self._subscriptions = subscriptions
        self._claims = claims
        self._presence = presence
        self._finish = finish

    def join(self, ws: WebSocket, room: Any) -> bool:
        """Put ``ws`` into ``room``; False: it was there, or is closed.

        A plain connection claims the room: no other connection of the ready-made chat
        may be there but one that is ``sharing``. See docs/decisions/26.

        :raises BackendError: it is not there, as nothing would come.
        :raises PermissionError: it is not there, as the room was claimed.
        """
        name, loop = as_name(room, "a room"), ws._transport.loop
        topic = room_topic(name)
        if self._members.is_of_routes(ws):
            # Before it is there, and anybody hears so.
            if not self._members.has_plain(topic):
                _where_it_may_wait(loop, lambda: self._claims.claim([topic]))
            return self.enter(ws, name)
        if not self.enter(ws, name):
            return False
        try:
            _where_it_may_wait(loop, lambda: self._claims.check(ws, topic))
        except BaseException:
            loop.call(self.put_out, ws, name)
            raise
        loop.call(self._members.let_hear, ws, topic)
        return True

    def enter(self, ws: WebSocket, name: str, *, quiet: bool = False) -> bool:
        """Put ``ws`` into a room, whoever may be there; else as ``join``.

        ``quiet``: nobody is told who is there, unless somebody else has entered it
        otherwise.
        """
        loop, topic = ws._transport.loop, room_topic(name)
        if not loop.call(self._enter, ws, name, quiet):
            return False
        try:
            self._subscriptions.wait(loop, [topic])
        except BaseException:  # also as the loop stood still
            loop.call(self.put_out, ws, name)
            raise
        if not quiet:
            loop.call(self._presence.rosters.begin, loop, topic)
        return True

    def leave(self, ws: WebSocket, room: Any) -> bool:
        """Take ``ws`` out of ``room``; False: it was not there."""
        name = as_name(room, "a room")
        return ws._transport.loop.call(self.put_out, ws, name)

    # -- in the loop

    def _enter(self, ws: WebSocket, room: str, quiet: bool = False) -> bool:
        if ws.closed or (ws._rooms is not None and room in ws._rooms):
            return False
        if ws._rooms is None:
            ws._rooms = set()
        ws._rooms.add(room)
        topic, loop = room_topic(room), ws._transport.loop
        self._listen_in(loop, topic, quiet)
        self._members.add(ws, topic, mute=True)
        self._subscriptions.want(loop, [topic])
        if ws.user is not None:
            self._presence.changed(loop, topic, ws.user)
        return True

    def put_out(self, ws: WebSocket, room: str) -> bool:
        """Do what ``leave`` does."""
        if ws._rooms is None or room not in ws._rooms:
            return False
        ws._rooms.discard(room)
        self.drop(ws, room_topic(room))
        return True

    def drop(self, ws: WebSocket, topic: str) -> None:
        """Take ``ws`` out of ``topic``, and give that up where it was the last one."""
        self._finish(self._members.discard, ws, topic)
        if ws.user is not None:
            self._finish(self._presence.changed, ws._transport.loop, topic, ws.user)
        self._presence.rosters.drop(topic)
        if not self._members.wants(topic):
            self._presence.quiet.discard(topic)
            self._subscriptions.release(topic)

    def _listen_in(self, loop: Loop, topic: str, quiet: bool) -> None:
        """Have it known who is in ``topic``, unless all who are there are quiet."""
        if quiet and not self._members.wants(topic):
            self._presence.quiet.add(topic)
        elif not quiet and topic in self._presence.quiet:
            self._presence.quiet.discard(topic)
            for user in self._members.users(topic):
                self._presence.changed(loop, topic, user)


def _where_it_may_wait(loop: Loop, call: Callable[[], Any]) -> None:
    if loop.may_wait():
        call()
    else:
        loop.run(call)
