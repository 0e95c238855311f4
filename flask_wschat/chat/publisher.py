"""What an application sends and asks, in a server or without one.

``WSChat`` has it all, and so has a ``Publisher``: a task, a cron job or a script that
reaches the server's clients without the application.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .. import backends
from ..errors import ConfigError
from ..hub.hub import Hub
from ..messages import (
    ANONYMOUS,
    EVERYONE,
    Entry,
    Message,
    as_count,
    as_mid,
    as_name,
    as_publication,
    as_user,
    room_topic,
    shown,
    user_topic,
)
from ..settings import Settings
from ..websocket import WebSocket, as_close
from .chat import Chat
from .emitting import emit
from .streams import Stream, open_stream
from .voting import Poll, as_poll_name


class Sending:
    """Sends to connections of all processes, and asks about them."""

    def _chat(self) -> Chat:
        raise NotImplementedError

    def _hub(self) -> Hub:
        return self._chat().hub

    def broadcast(
        self,
        data: Any,
        *,
        room: Any = None,
        exclude: WebSocket | None = None,
        key: Any = None,
        keep: bool = True,
        mid: Any = None,
    ) -> int:
        """Publish ``data`` to ``room``, or to every connection.

        ``str`` goes as text, ``bytes`` as binary, anything else as JSON. ``exclude``
        is a connection left out (but for kept messages to the ready-made chat, where a
        missing number would be a hole). ``key``: to a peer that is behind, only the
        newest unsent message with this key is sent.

        What is said in a room is kept in its history, but with a ``key`` or
        ``keep=False``. ``mid``, of up to 64 characters, is the application's name for a
        kept message, as a task's id: where one with this ``mid`` was published in the
        room before, nothing is stored or sent, and that one's number returned. So what
        ended with ``BackendError`` can be tried again. It is remembered as long as what
        clients say (``docs/protocol.md``, Once), and seen by those of the ready-made
        chat.

        Return the message's number in the room's history; 0 if it is not kept.
        Returning means published, not received: each connection has its own queue, and
        no receiver's trouble is raised here.

        :raises TypeError: JSON has no such ``data``, or an argument is not what it is
            to be; nothing was sent.
        :raises ValueError: ``data`` has what nobody could read: half a surrogate pair,
            or NaN or an infinity in JSON; or a ``mid`` is given for what is not kept.
        :raises BackendError: it is not known whether it was sent.
        """
        hub, topic = self._hub(), _place(room)
        message = as_publication(data, key, hub.dumps)
        if exclude is not None:
            if not isinstance(exclude, WebSocket):
                raise TypeError(f"exclude is a WebSocket, unlike {shown(exclude)}")
            message = message._replace(exclude=exclude.id)
        if not isinstance(keep, bool):
            raise TypeError(f"keep is True or False, unlike {shown(keep)}")
        keep = keep and key is None and room is not None
        return hub.publish(topic, _named(message, mid, keep), keep=keep).seq

    def emit(
        self,
        type: str,
        *,
        room: Any = None,
        user: Any = None,
        exclude: WebSocket | None = None,
        key: Any = None,
        **fields: Any,
    ) -> None:
        """Send an event of your own to ``room``, to ``user``, or to everyone.

        It is told once and kept nowhere: for cursors, who is typing, what has moved.
        All connections of ``Events`` and ``ChatListener`` classes get it which are
        there now, in all processes, as one JSON object of ``type``, ``room``, ``from``
        (null) and ``fields``; sockets of other routes don't. ``exclude`` is a
        connection left out. ``key``: to a peer that is behind, only the newest unsent
        event of this type and ``key`` in this place is sent.

        Fields may be what msgspec encodes, dataclasses for example, and what the
        application's JSON provider does.

        :raises TypeError: JSON has no such field, or an argument is not what it is to
            be; nothing was sent.
        :raises ValueError: the type or a field is the protocol's own, ``room`` and
            ``user`` are both given, or a field cannot be read by anybody.
        :raises BackendError: it is not known whether it was sent.
        """
        emit(
            *(self._chat(), type, fields),
            room=room,
            user=user,
            key=key,
            exclude=exclude,
        )

    def send_to_user(
        self, user: Any, data: Any, *, key: Any = None, mid: Any = None
    ) -> int:
        """Send ``data`` to every connection of ``user``, and keep it in their inbox.

        ``data``, ``key`` and ``mid`` as for ``broadcast``; with a ``key`` it is not
        kept. Return how many connections the user has now, in all processes; 0 means
        that nobody got it yet. (Those of the ready-made chat get it once they ask for
        the inbox.)

        :raises TypeError: as for ``broadcast``.
        :raises ValueError: as for ``broadcast``.
        :raises BackendError: it is not known whether it was sent.
        """
        hub, name, keep = self._hub(), as_user(user), key is None
        message = _named(as_publication(data, key, hub.dumps), mid, keep)
        hub.publish(user_topic(name), message, keep=keep)
        return hub.presence.connections(name)

    def stream(
        self,
        *,
        room: Any = None,
        user: Any = None,
        sender: Any = None,
        id: Any = None,
        asked_by: Any = None,
        max_data: int = 65536,
        seconds: float = 600.0,
    ) -> Stream:
        """Begin a message that grows in ``room``, or in the inbox of ``user``.

        Members of the room by the ready-made chat see it grow; who comes meanwhile has
        what there is. Use it in a ``with``: leaving the block keeps the whole text as
        one message, with ``id`` as its ``mid``; an exception discards it.

        ``sender``: whom it is from. ``id``: of up to 64 characters, else a random one;
        one that grows with this ``id`` is discarded first, and what its writer does
        from then on is refused, but ``finish``: the first one to do so is kept.
        ``asked_by``: the user who may stop it, by default the one whose event is being
        handled. ``max_data``: bytes of its text. ``seconds``: how long it may take.

        :raises TooManyStreams: eight grow there already.
        :raises TypeError: neither or both of ``room`` and ``user`` are given, or an
            argument is not what it is to be.
        :raises ValueError: as that.
        :raises BackendError: it is not known whether it has begun.
        """
        return open_stream(
            self._hub(),
            room=room,
            user=user,
            sender=sender,
            id=id,
            asked_by=asked_by,
            max_data=max_data,
            seconds=seconds,
        )

    def delete(self, room: Any, seq: int) -> bool:
        """Take back the kept message ``seq`` of ``room``; False: it is not kept there,
        or was taken back before.

        Its number, and when it was stored, remain: the history has an entry with
        ``data`` None that is ``deleted``, and no sender. Members of the room by the
        ready-made chat are told at once; sockets of your own routes, which get no
        numbers, are not. What was sent before cannot be had back.

        :raises TypeError: ``seq`` is no integer, or ``room`` no name.
        :raises ValueError: ``seq`` is negative, or ``room`` cannot be a name.
        :raises BackendError: it is not known whether it was taken back.
        """
        topic, seq = room_topic(as_name(room, "a room")), as_count(seq, "seq")
        return self._hub().backend.delete(topic, seq)

    def disconnect_user(self, user: Any, code: int = 4000, reason: str = "") -> int:
        """Close every connection of ``user``, in all processes; return how many.

        Call it where a user logs out or is banned: a socket outlives the session that
        opened it. ``code`` and ``reason`` as for ``ws.close``.

        :raises ValueError: ``code`` may not be sent; nothing was closed.
        :raises BackendError: it is not known whether they were closed.
        """
        hub, name = self._hub(), as_user(user)
        code, reason = as_close(code, reason)
        count = hub.presence.connections(name)
        hub.publish(user_topic(name), Message(reason, close_code=code))
        return count

    def online(self, room: Any = None) -> list[str]:
        """Return the users connected, or in ``room``: sorted, each once.

        Those of all processes; of one that was killed up to ``WSCHAT_PING_INTERVAL`` +
        ``WSCHAT_PING_TIMEOUT`` seconds longer.

        :raises BackendError: those of other processes cannot be known.
        """
        return self._hub().presence.online(_place(room))

    def is_online(self, user: Any) -> bool:
        """Return whether ``user`` is connected, to any process; as in ``online``.

        One look-up, however many users there are: ask this, not ``in chat.online()``.

        :raises BackendError: those of other processes cannot be known.
        """
        return self._hub().presence.has(as_user(user))

    def history(
        self, room: Any, *, after: int | None = None, limit: int = 50
    ) -> list[Entry]:
        """Return kept messages of ``room`` in order: entries with ``seq``, ``data`` (as
        it was said: ``str``, ``bytes`` or another value), ``at`` (seconds since 1970)
        and ``sender`` (None: the application, or somebody without a user id). One that
        ``delete`` took back is ``deleted``, with ``data`` None.

        With ``after`` the first ``limit`` that follow this number, else the newest.

        :raises ValueError: a number is negative.
        :raises BackendError: it cannot be read.
        """
        hub, topic = self._hub(), room_topic(as_name(room, "a room"))
        after = None if after is None else as_count(after, "after")
        limit = as_count(limit, "limit")
        page = hub.backend.history(topic, after=after, limit=limit, growing=False)
        return [_as_said(hub, entry) for entry in page.entries]

    def poll(
        self,
        name: str,
        options: Iterable[str] | None = None,
        *,
        room: Any = None,
        lasts: float | None = None,
        data: Any = None,
    ) -> Poll:
        """Return the poll ``name``, made at the first call with ``options``.

        How it stands is sent to the ready-made chat's connections: those in ``room``,
        or all.

        Without ``lasts`` it is code: make it where you make routes, in each process;
        its votes stay. With ``lasts`` it is stored, with ``data`` (JSON of up to 8192
        bytes) that is yours: every process knows it at once, and so many seconds (1 to
        2678400, 31 days) after it was made it is forgotten with its votes. Up to 1000
        are stored at a time. Where one of this name with these options is stored
        already, that one is returned, as it is.

        Without ``options`` it is the one in this process's code, else the stored one.

        :raises UnknownPoll: there is none of this name.
        :raises TooManyPolls: as many are stored as may; nothing was made.
        :raises TypeError: an argument is not what it is to be.
        :raises ValueError: the name, the options or another argument cannot be used,
            or the poll was made with other options, or for another room.
        :raises BackendError: a stored one may have been made or not.
        """
        name, chat = as_poll_name(name), self._chat()
        if options is None:
            if (room, lasts, data) != (None, None, None):
                raise TypeError(
                    "room, lasts and data are for one that is made: with options"
                )
            return chat.find_poll(name)
        room = None if room is None else as_name(room, "a room")
        if lasts is not None:
            return chat.make_poll(name, options, room, lasts, data)
        if data is not None:
            raise TypeError("data is for a poll that is stored: with lasts, in seconds")
        return chat.poll(name, options, room)

    def polls(self) -> list[Poll]:
        """Return the stored polls, made with ``lasts``, the newest first.

        :raises BackendError: they cannot be known now.
        """
        return self._chat().stored_polls()


class Publisher(Sending):
    """Reaches the clients of a server from another process, without its application.

    As ``WSChat.publisher`` returns it; close it, or use it in a ``with``. Each thread
    and greenlet may call it, and so may processes that were forked off.

    Rooms, users and keys are as in ``WSChat``.

    :raises ConfigError: ``settings`` name what no other process can have.
    """

    def __init__(
        self,
        settings: Settings,
        dumps: Callable[[Any], str],
        loads: Callable[[str | bytes], Any],
    ) -> None:
        backend = open_backend(settings)
        if isinstance(backend, backends.MemoryBackend):
            raise ConfigError(
                "memory:// is of one process alone: a publisher reaches a server's"
                " clients where both have the same sqlite:///... or redis://... URL"
            )
        self._open: Chat | None = Chat(Hub(settings, backend, dumps=dumps, loads=loads))

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of files and connections; a second call does nothing."""
        chat, self._open = self._open, None
        if chat is not None:
            chat.settle_polls()
            chat.hub.stop()

    def _chat(self) -> Chat:
        if self._open is None:
            raise RuntimeError("this publisher is closed: make a new one")
        return self._open


def open_backend(settings: Settings) -> backends.Backend:
    """Return what ``settings`` name, not yet started.

    :raises ConfigError: they name nothing.
    """
    return backends.open(
        settings.URL,
        size=settings.HISTORY_SIZE,
        max_bytes=settings.HISTORY_BYTES,
        share=settings.INBOX_SHARE,
        ttl=settings.HISTORY_TTL,
        presence_ttl=settings.presence_ttl,
        wait=settings.REDIS_WAIT,
    )


def _place(room: Any) -> str:
    """Return the topic of ``room``, or of everybody."""
    return EVERYONE if room is None else room_topic(as_name(room, "a room"))


def _named(message: Message, mid: Any, keep: bool) -> Message:
    """Return ``message`` with the application's ``mid``, if there is one.

    :raises ValueError: it would be of no use.
    """
    if mid is None:
        return message
    mid = as_mid(mid)
    if not keep:
        raise ValueError(
            "mid is for what is kept: not to everyone, nor with a key or keep=False"
        )
    return message._replace(mid=mid)


def _as_said(hub: Hub, entry: Entry) -> Entry:
    data, sender = entry.data, entry.sender
    if sender is not None and sender.startswith(ANONYMOUS):
        sender = None
    return entry._replace(data=hub.loads(data) if entry.json else data, sender=sender)
