"""``ChatListener``: the ready-made chat, as ``docs/protocol.md`` tells.

It reads requests and answers each once; what it sends unasked goes through ``feeds``.

Over 450 lines, as each request of that page has its method, and all ask the same hooks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from .. import endings, envelope
from ..errors import (
    BackendError,
    ConnectionClosed,
    PollClosed,
    ShareTaken,
    UnknownChoice,
    check_ran,
)
from ..hub.pages import Position, View
from ..messages import (
    ANONYMOUS,
    Message,
    Page,
    Receipt,
    room_of,
    room_topic,
    user_topic,
)
from ..rate import Bucket, Rate, as_rate
from ..websocket import Listener, WebSocket
from . import fields
from .answers import Answer, Answers, Outcome, Step
from .chat import Chat
from .fields import RequestError
from .voting import Poll

PATIENCE = 20
"""Messages over the limit, or that are no requests, more than requests within it, that
a connection survives. Rooms and bytes over theirs do not count: the messages' own limit
bounds them, and who waits as it was told finds that another tab took what there was."""


class ChatListener(Listener):
    """Rooms with history, direct messages, presence and votes, for any client.

    ``chat.listener("/chat")(ChatListener)``, or a subclass that says who may do what.
    The ``can_`` methods run in an app context; False, ``PermissionError`` or an
    ``abort(403, "why")`` refuses. A user without an id may not tell or vote, and has no
    inbox; whether they may join and say is told by ``anonymous``.
    """

    awaits_room = True
    plain_rooms = False
    """Whether its rooms are also those of the application's own routes.

    If not, a room that a plain connection has joined is closed to this chat, for as
    long as anything said there is kept; and what is said here reaches no plain
    connection. If so, plain connections get it as it is, and any client that may join
    the room here reads what is said there: let ``can_join`` decide as the routes do.
    """
    anonymous: Literal["say", "read", "none"] | None = None
    """What people without a user id may do in rooms, as far as the hooks allow it.

    None: "say" where the class has a ``can_join`` of its own, which is asked about
    them, too, or the application has no ``@chat.authenticate``, and so nobody an id.
    Else "none". See docs/decisions/34.
    """
    max_data = 64 * 1024
    """Bytes of one message's data as JSON; ``WSCHAT_MAX_MESSAGE`` if that is less."""
    max_rooms = 100
    """Rooms that one connection may be in."""
    new_rooms: Rate | None = (1, 100)
    """Rooms and inboxes that one user may make, a second and at once; see
    docs/decisions/37. None, or no ``WSCHAT_RATE_LIMIT``: no limit."""
    presence = True
    """Whether people are told who is in their rooms; see ``has_presence``."""
    max_present = 100
    """Users of a room who are told by name. Where there are more, their number is, and
    the names are had by ``who``, so many at a time."""
    max_page = 100
    """Messages in one reply."""
    max_name = 100
    """Characters of a room's name, or a user's who is told something."""
    max_mid = 64
    """Characters of a message's id."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.new_rooms is not None and as_rate(cls.new_rooms) is None:
            raise ValueError(
                f"{cls.__name__}.new_rooms is (rooms a second, rooms at once), as"
                f" (1, 100), or None, unlike {cls.new_rooms!r}"
            )
        if cls.anonymous not in ("say", "read", "none", None):
            raise ValueError(
                f'{cls.__name__}.anonymous is "say", "read", "none" or None, unlike'
                f" {cls.anonymous!r}"
            )

    _chat: Chat  # its application's, given by who makes one
    _limit: Rate | None = None  # its route's
    _address: str | None = None  # its client's, as far as it is known
    # Of a connection that never got so far as `on_open`.
    _bucket: Bucket | None = None
    _bytes: Bucket | None = None
    _made: Bucket | None = None  # rooms
    _answers: Answers | None = None  # to those that have asked anything
    _refused = 0  # messages over the limit or no requests, less requests since

    def can_join(self, user: str | None, room: str) -> Any:
        """Say whether ``user`` may be in ``room``; asked at each join."""
        return True

    def has_presence(self, room: str) -> bool:
        """Say whether people are told who is in ``room``; asked at each join.

        If not, nobody is noted there, also for ``chat.online(room)``: entering such a
        room costs the storage nothing.
        """
        return self.presence

    def can_say(self, user: str | None, room: str, data: Any) -> Any:
        """Say whether ``user``, who is in ``room``, may say ``data`` there."""
        return True

    def can_tell(self, user: str, to: str) -> Any:
        """Say whether ``user`` may write to the user ``to``."""
        return True

    def can_vote(self, user: str, poll: str, choice: str) -> Any:
        """Say whether ``user`` may make ``choice`` in ``poll``."""
        return True

    # -- what a listener has

    def on_open(self, ws: WebSocket, *args: Any, **url_args: Any) -> None:
        self._hub = hub = self._chat.hub
        settings = hub.settings
        self._max_data = min(self.max_data, settings.MAX_MESSAGE)
        self._bucket = bucket = self._chat.bucket(ws, self._limit)
        self._bytes = self._chat.bytes_bucket(ws, self._address)
        self._made = made = self._chat.rooms_bucket(ws, self._address, self.new_rooms)
        hello = envelope.hello(
            ws.id,
            ws.user,
            ping=settings.PING_INTERVAL,
            message=settings.MAX_MESSAGE,
            data=self._max_data,
            depth=fields.MAX_DEPTH,
            name=self.max_name,
            mid=self.max_mid,
            page=self.max_page,
            rooms=self.max_rooms,
            new_rooms=None if made is None else made.rate,
            rate=None if bucket is None else bucket.rate,
        )
        ws.send(hello)
        ws._transport.loop.call(self._attach, ws)

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        if ws.closed:
            return  # what it asked before costs us, and nobody hears the answer
        ref: int | None = None
        answers = self._answers
        if answers is None:
            answers = self._answers = Answers(ws, self._hub.event)
        # Whatever it is: what cannot be read has been sent, received and answered, too.
        wait = 0.0 if self._bucket is None else self._bucket.take()
        try:
            request = fields.parse(message)
            ref = fields.ref(request)
            if wait:
                raise RequestError("rate_limited", "too many requests")
            if ref is None:
                raise RequestError(
                    "bad_request",
                    f"ref must be an integer from 0 to {fields.MAX_INTEGER}",
                )
            self._refused = max(self._refused - 1, 0)
            handler = _handler(request)
            if answers.asked != answers.answered and handler not in _BESIDE:
                answers.settle()
            reply = handler(self, ws, ref, request)
        except RequestError as refused:
            wait = wait or refused.wait
            if wait or ref is None:
                self._refuse(ws, answers, ref, refused, wait)
                return
            reply = envelope.refusal(ref, refused.code, str(refused))
        except ConnectionClosed:
            raise
        except Exception as error:
            reply = self._failure(ws, ref, error)
        if reply is not None:
            answers.send(reply)

    def _is_full(self) -> bool:
        return self._answers is not None and self._answers.full

    # -- requests: each returns its reply, or None where that is sent

    def _join(self, ws: WebSocket, ref: int, request: dict[str, Any]) -> None:
        room = fields.new_room(request, self.max_name)
        position = Position(*fields.position(request))
        fresh = room not in (ws._rooms or ())
        if fresh and len(ws._rooms or ()) >= self.max_rooms:
            raise RequestError("too_many", f"over {self.max_rooms} rooms: leave one")
        if ws.user is None:
            self._check_anonymous("read", "say")
        try:
            self._ask(self.can_join, ws.user, room)
        except BaseException:
            ws.leave(room)
            raise
        topic = room_topic(room)
        user, members = ws.user, self._hub.members
        # Another tab has it: to join there, too, makes nothing.
        known = not fresh or (user is not None and members.count_of(user, topic) > 0)
        if not known:
            self._check_new(topic)
        if fresh:
            self._hub.rooms.enter(ws, room, quiet=not self.has_presence(room))
        try:
            made = self._read(ws, ref, topic, position)
            if made and not known and self._made is not None:
                self._made.take()
        except Exception as error:
            # Whatever it is: who is told that it failed is not to be in there.
            if fresh or isinstance(error, RequestError):
                ws.leave(room)
            raise

    def _inbox(self, ws: WebSocket, ref: int, request: dict[str, Any]) -> None:
        position = Position(*fields.position(request))
        self._read(ws, ref, user_topic(_user(ws)), position)

    def _leave(self, ws: WebSocket, ref: int, request: dict[str, Any]) -> str:
        ws.leave(fields.new_room(request, self.max_name))
        return envelope.reply(ref)

    def _say(self, ws: WebSocket, ref: int, request: dict[str, Any]) -> None:
        data, text, size, mid = fields.said(request, self._max_data, self.max_mid)
        room = self._joined(ws, request)
        if ws.user is None:
            self._check_anonymous("say")
        if type(self).can_say is not ChatListener.can_say:
            self._ask_settled(self.can_say, ws.user, room, data)
        self._pay(size)
        sender = ANONYMOUS + ws.id if ws.user is None else ws.user
        message = Message(
            text, json=True, sender=sender, mid=mid, plain=self.plain_rooms
        )
        self._store(room_topic(room), message, size, ref, self._stored)

    def _tell(self, ws: WebSocket, ref: int, request: dict[str, Any]) -> None:
        to = fields.name(request, "to", self.max_name)
        _, text, size, mid = fields.said(request, self._max_data, self.max_mid)
        user = _user(ws)
        if type(self).can_tell is not ChatListener.can_tell:
            self._ask_settled(self.can_tell, user, to)
        if to == user and self._answers is not None:
            self._answers.settle()  # the copies of what was told before come first
        self._pay(size)
        made = self._reserve_new(user_topic(to))
        message = Message(text, json=True, sender=user, mid=mid, plain=self.plain_rooms)

        def told(answer: Answer, outcome: Outcome) -> str | None:
            is_new = isinstance(outcome, Receipt) and outcome.seq == 1 and outcome.fresh
            if made is not None and not is_new:
                made.give_back()
            if to == user or isinstance(outcome, Exception):
                return self._stored(answer, outcome)
            # The sender's other tabs show it, too. Where only this fails, the error
            # makes the client repeat it, and the first one is not stored again.
            answer.step = self._stored
            self._submit(user_topic(user), message._replace(to=to), answer)
            return None

        self._store(user_topic(to), message, size, ref, told)

    def _history(self, ws: WebSocket, ref: int, request: dict[str, Any]) -> str:
        before = fields.integer(request, "before", 1)
        limit = fields.integer(request, "limit", 1)
        room = self._joined(ws, request)
        topic, limit = room_topic(room), min(limit or self.max_page, self.max_page)
        page = None
        if before is None:
            page = self._hub.readings.newest(ws._transport.loop, topic, limit)
        if page is None:
            page = self._hub.readings.earlier(topic, before, limit)
        self._check_plain(topic, page)
        return envelope.history(ref, page.epoch, page.seq, page.messages)

    def _who(self, ws: WebSocket, ref: int, request: dict[str, Any]) -> str:
        after = fields.user(request, "after")
        limit = fields.integer(request, "limit", 1)
        topic = room_topic(self._joined(ws, request))
        presence, loop = self._hub.presence, ws._transport.loop
        if topic in presence.quiet:
            raise RequestError("forbidden", "nobody is told who is in this room")
        presence.rosters.know(loop, topic, self.max_present, now=True)
        page = loop.call(presence.rosters.page, topic, after, limit)
        if not self.plain_rooms:
            # We may be put out of it just now.
            self._check_plain(topic, self._hub.backend.history(topic, limit=1))
        return envelope.who(ref, *page)

    def _vote(self, ws: WebSocket, ref: int, request: dict[str, Any]) -> str:
        name = fields.name(request, "poll", self.max_name)
        choice = fields.name(request, "choice", self.max_name)
        user, poll = _user(ws), self._poll_of(ws, name)
        self._ask(self.can_vote, user, name, choice)
        try:
            standing = poll.vote(user, choice)
        except UnknownChoice as error:
            raise RequestError("unknown_choice", str(error)) from None
        except PollClosed as error:
            raise RequestError("poll_closed", str(error)) from None
        return envelope.reply(ref, **standing.as_fields())

    def _poll(self, ws: WebSocket, ref: int, request: dict[str, Any]) -> str:
        name = fields.name(request, "poll", self.max_name)
        standing = self._poll_of(ws, name).tally(ws.user)
        return envelope.reply(ref, **standing.as_fields(), mine=standing.mine)

    def _ping(self, ws: WebSocket, ref: int, request: dict[str, Any]) -> str:
        return envelope.reply(ref)

    # -- within

    def _read(
        self,
        ws: WebSocket,
        ref: int,
        topic: str,
        position: Position,
    ) -> bool:
        """Reply with a page of ``topic``, and go on from there.

        True: as far as can be seen, it is new.
        """
        hub, count = self._hub, 0
        noted = room_of(topic) is not None and topic not in hub.presence.quiet
        if noted:
            hub.presence.rosters.know(ws._transport.loop, topic, self.max_present)

        def answer(page: View) -> str:
            nonlocal count
            self._check_plain(topic, page)
            people = ""
            if noted:  # and what is told of them from now on comes after it
                people, count = hub.presence.rosters.answer(topic)
            return envelope.read(ref, page.body, people)

        page = hub.readings.read(ws, topic, position, self.max_page, answer)
        if page is None:  # by the claim of a plain connection, or by the application
            raise RequestError("forbidden", "you were put out of the room meanwhile")
        return not page.seq and count <= (ws.user is not None)

    def _store(
        self, topic: str, message: Message, size: int, ref: int, step: Step
    ) -> None:
        """Have ``message`` stored; the reply is what ``step`` makes of the outcome."""
        answers = self._answers
        assert answers is not None
        answer = Answer(answers, ref, step)
        self._submit(topic, message, answer)
        answers.put(answer, size)

    def _submit(self, topic: str, message: Message, answer: Answer) -> None:
        try:
            self._hub.submit(topic, message, answer, keep=True)
        except Exception as error:
            answer(error)

    def _stored(self, answer: Answer, outcome: Outcome) -> str:
        if isinstance(outcome, Receipt):
            return envelope.stored(answer.ref, outcome.seq, outcome.at)
        return self._failure(answer.ws, answer.ref, outcome)

    def _failure(self, ws: WebSocket, ref: int | None, error: Exception) -> str:
        """Return the reply to what ended with ``error``; report a strange one."""
        if isinstance(error, ShareTaken):
            return envelope.refusal(ref, "too_many", str(error))
        if isinstance(error, BackendError):
            return envelope.refusal(ref, "unavailable", _UNAVAILABLE)
        self._hub.report(error, ws)
        return envelope.refusal(ref, "internal", "an error in the server")

    def _check_anonymous(self, *enough: str) -> None:
        """Raise ``RequestError`` unless people without an id may do so much."""
        may = self.anonymous
        if may is None:
            asked = type(self).can_join is not ChatListener.can_join
            may = "say" if asked or not self._chat.has_logins() else "none"
            if may == "none":
                self._chat.tell_of_anonymous(type(self).__qualname__)
        if may not in enough:
            raise RequestError("unauthorized", _NOBODY)

    def _attach(self, ws: WebSocket) -> None:
        self._hub.attach(ws, sharing=self.plain_rooms)

    def _check_plain(self, topic: str, page: Page | View) -> None:
        """Raise ``RequestError`` where this chat and plain connections would meet."""
        claimed = page.plain or self._hub.members.has_plain(topic)
        if claimed and not self.plain_rooms:
            raise RequestError("forbidden", _APART)

    def _ask_settled(self, hook: Callable[..., Any], *args: Any) -> None:
        """Do as ``_ask`` once all is stored that was said before: a hook may look."""
        assert self._answers is not None
        self._answers.settle()
        self._ask(hook, *args)

    def _ask(self, hook: Callable[..., Any], *args: Any) -> None:
        """Raise ``RequestError`` unless ``hook`` allows it."""
        try:
            allowed = hook(*args)
            if allowed is not True:
                check_ran(allowed, hook)  # what did not run would allow everything
        except PermissionError as error:
            raise RequestError("forbidden", str(error) or _FORBIDDEN) from None
        except Exception as error:
            # Flask's abort(): its exceptions have an HTTP status.
            status = getattr(error, "code", None)
            if not isinstance(status, int) or not 400 <= status < 500:
                raise
            why = getattr(error, "description", None) or _FORBIDDEN
            raise RequestError("forbidden", str(why)) from None
        if not allowed:
            raise RequestError("forbidden", _FORBIDDEN)

    def _pay(self, size: int) -> None:
        """Count the bytes of what is about to be stored.

        :raises RequestError: they are over the limit.
        """
        if self._bytes is not None and (wait := self._bytes.take_all(size)):
            raise RequestError("rate_limited", "too many bytes", wait)

    def _check_new(self, topic: str) -> None:
        """:raises RequestError: it would be a new one, and those were too many."""
        made = self._made
        if made is not None and (wait := made.wait) and self._chat.is_new(topic):
            raise RequestError("rate_limited", "too many new rooms or inboxes", wait)

    def _reserve_new(self, topic: str) -> Bucket | None:
        """Count ``topic`` as a new one, before it is known; None: it was not counted.

        :raises RequestError: as ``_check_new``.
        """
        made, answers = self._made, self._answers
        assert answers is not None
        if made is None or not made.take():
            return made
        # Of those under way not all are new: then there is room again.
        answers.settle()
        if not made.take():
            return made
        self._check_new(topic)
        return None

    def _refuse(
        self,
        ws: WebSocket,
        answers: Answers,
        ref: int | None,
        refused: RequestError,
        wait: float,
    ) -> None:
        """Answer what is no request, or over the limit; but not for ever."""
        self._refused += 1
        if self._refused > PATIENCE:
            answers.settle()
            ending = endings.RATE_LIMIT if wait else endings.NO_REQUESTS
            ws._tell_rule(f"goes on and on: {ending.reason}")
            ws.close(*ending)
        elif wait:
            wait = round(wait + 0.0005, 3)
            message = f"{refused}: wait {wait} s"
            text = envelope.refusal(ref, "rate_limited", message, retry_after=wait)
            answers.send(text)
        else:
            answers.send(envelope.refusal(ref, refused.code, str(refused)))

    def _joined(self, ws: WebSocket, request: dict[str, Any]) -> str:
        room, rooms = request.get("room"), ws._rooms or ()
        if isinstance(room, str) and room in rooms:
            return room
        fields.name(request, "room", self.max_name)
        raise RequestError("not_joined", "you are not in this room: join it first")

    def _poll_of(self, ws: WebSocket, name: str) -> Poll:
        poll = self._chat.polls.get(name)
        if poll is None:
            raise RequestError("unknown_poll", "no such poll")
        if poll.room is not None and poll.room not in (ws._rooms or ()):
            raise RequestError(
                "not_joined", "it is the poll of a room: join that first"
            )
        return poll


_UNAVAILABLE = "the storage cannot be reached now"
_NOBODY = "this needs a user id, and you have none"
_APART = "the room is kept for other connections"
_FORBIDDEN = "the application does not allow it"

_HANDLERS: dict[str, Callable[..., str | None]] = {
    "join": ChatListener._join,
    "inbox": ChatListener._inbox,
    "leave": ChatListener._leave,
    "say": ChatListener._say,
    "tell": ChatListener._tell,
    "history": ChatListener._history,
    "who": ChatListener._who,
    "vote": ChatListener._vote,
    "poll": ChatListener._poll,
    "ping": ChatListener._ping,
}

_BESIDE = (ChatListener._say, ChatListener._tell, ChatListener._ping)
"""What may be asked while other requests are under way; all else sees these done."""


def _handler(request: dict[str, Any]) -> Callable[..., str | None]:
    kind = request.get("type")
    if not isinstance(kind, str):
        raise RequestError("bad_request", "type must be a text")
    if kind not in _HANDLERS:
        raise RequestError("unknown_type", f"no such type of request: {kind[:50]!r}")
    return _HANDLERS[kind]


def _user(ws: WebSocket) -> str:
    if ws.user is None:
        raise RequestError("unauthorized", _NOBODY)
    return ws.user
