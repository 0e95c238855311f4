"""``ChatListener``: the ready-made chat, as ``docs/protocol.md`` tells.

It answers requests; what it sends unasked goes through ``feeds``.

Over 450 lines, as each request of that page has its method, and all ask the same hooks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

from .. import envelope
from ..errors import (
    OutOfOrder,
    PollClosed,
    PollError,
    StreamGone,
    UnknownChoice,
    UnknownPoll,
)
from ..hub.pages import Position, View
from ..messages import (
    ANONYMOUS,
    STOP,
    Grown,
    Growth,
    Message,
    Page,
    Receipt,
    room_of,
    room_topic,
    user_topic,
)
from ..rate import Bucket, Rate, as_rate
from ..websocket import WebSocket
from . import fields
from .answers import Answer, Outcome, Step
from .events import NOT_JOINED, Events
from .fields import Count, Data, Epoch, Mid, Name, RequestError, Seq, Tag, User
from .handlers import request
from .voting import Poll


class ChatListener(Events):
    """Rooms with history, direct messages, presence and votes, for any client.

    ``chat.listener("/chat")(ChatListener)``, or a subclass that says who may do what.
    The ``can_`` methods run in an app context; False, ``PermissionError`` or an
    ``abort(403, "why")`` refuses. A user without an id may not tell or vote, and has no
    inbox; whether they may join and say is told by ``anonymous``.
    """

    plain_rooms = False
    """Whether its rooms are also those of the application's own routes.

    If not, a room that a connection of another route has joined is closed to this one,
    for as long as anything said there is kept; and what is said here reaches no plain
    connection. If so, plain connections get it as it is, and any client of the chat
    that may join the room reads what is said there: let ``can_join`` decide as the
    routes do.
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

    # Of a connection that never got so far as `_begin`.
    _bytes: Bucket | None = None
    _made: Bucket | None = None  # rooms
    _last: dict[str, str | None] | None = None  # mids by topic, where none are kept

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

    def can_stop(self, user: str | None, room: str | None, id: str) -> Any:
        """Say whether ``user`` may stop the message ``id`` that grows in ``room``, or
        where that is None, in the user's inbox.

        If this is left out: who asked for it, who it is from, and whose inbox it is.
        """
        topic = room_topic(room) if room is not None else user_topic(user or "")
        grown = self._growing(topic, id)
        return user is not None and (
            room is None or user in (grown.asker, grown.sender)
        )

    def _limits(self, ws: WebSocket) -> dict[str, Any]:
        settings = self._hub.settings
        self._max_data = min(self.max_data, settings.MAX_MESSAGE)
        self._bytes = self._chat.bytes_bucket(ws, self._address)
        if not settings.HISTORY_SIZE:
            self._last = {}
        self._made = made = self._chat.rooms_bucket(ws, self._address, self.new_rooms)
        return {
            "message": settings.MAX_MESSAGE,
            "data": self._max_data,
            "depth": fields.MAX_DEPTH,
            "name": self.max_name,
            "mid": self.max_mid,
            "page": self.max_page,
            "rooms": self.max_rooms,
            "new_rooms": envelope.rate(made),
            "rate": envelope.rate(self._bucket),
        }

    # -- requests: each returns its reply, or None where that is sent

    @request("join")
    def _join(
        self,
        ref: int,
        room: Name,
        after: Seq | None = None,
        epoch: Epoch | None = None,
        tag: Tag | None = None,
    ) -> None:
        """Enter a room, or read on in it."""
        ws = self.ws
        fields.check_new_room(room, self.max_name)
        position = _position(after, epoch, tag)
        fresh = room not in (ws._rooms or ())
        if fresh and len(ws._rooms or ()) >= self.max_rooms:
            raise RequestError("too_many", f"over {self.max_rooms} rooms: leave one")
        if ws.user is None:
            self._check_anonymous("read", "say")
        try:
            self._allow(self.can_join, ws.user, room)
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
            made = self._read(ref, topic, position)
            if made and not known and self._made is not None:
                self._made.take()
        except Exception as error:
            # Whatever it is: who is told that it failed is not to be in there.
            if fresh or isinstance(error, RequestError):
                ws.leave(room)
            raise

    @request("inbox")
    def _inbox(
        self,
        ref: int,
        after: Seq | None = None,
        epoch: Epoch | None = None,
        tag: Tag | None = None,
    ) -> None:
        """Receive direct messages, or read on in them."""
        position = _position(after, epoch, tag)
        self._read(ref, user_topic(self._user()), position)

    @request("leave")
    def _leave(self, ref: int, room: Name) -> str:
        """Leave a room."""
        self.ws.leave(fields.check_new_room(room, self.max_name))
        return envelope.reply(ref)

    @request("say", beside=True)
    def _say(
        self, ref: int, room: Name, data: Data, mid: Mid, prev: Mid | None = None
    ) -> None:
        """Say something to a room."""
        ws = self.ws
        self._check_mids(mid, prev)
        text, size = fields.said(data, self._max_data)
        self._check_joined(room)
        if ws.user is None:
            self._check_anonymous("say")
        if type(self).can_say is not ChatListener.can_say:
            self._ask_settled(self.can_say, ws.user, room, data)
        self._pay(size)
        sender = ANONYMOUS + ws.id if ws.user is None else ws.user
        plain = self.plain_rooms
        message = Message(
            text, json=True, sender=sender, mid=mid, plain=plain, prev=prev
        )
        self._store("say", room_topic(room), message, size, ref, self._stored)

    @request("tell", beside=True)
    def _tell(
        self, ref: int, to: Name, data: Data, mid: Mid, prev: Mid | None = None
    ) -> None:
        """Say something to one user."""
        fields.check_name(to, "to", self.max_name)
        self._check_mids(mid, prev)
        text, size = fields.said(data, self._max_data)
        user = self._user()
        if type(self).can_tell is not ChatListener.can_tell:
            self._ask_settled(self.can_tell, user, to)
        if to == user and self._answers is not None:
            self._answers.settle()  # the copies of what was told before come first
        self._pay(size)
        made = self._reserve_new(user_topic(to))
        plain = self.plain_rooms
        message = Message(text, json=True, sender=user, mid=mid, plain=plain, prev=prev)

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

        self._store("tell", user_topic(to), message, size, ref, told)

    @request("history")
    def _history(
        self,
        ref: int,
        room: Name,
        before: Count | None = None,
        limit: Count | None = None,
    ) -> str:
        """Read older messages of a room."""
        ws = self.ws
        self._check_joined(room)
        topic, limit = room_topic(room), min(limit or self.max_page, self.max_page)
        page = None
        if before is None:
            page = self._hub.readings.newest(ws._transport.loop, topic, limit)
        if page is None:
            page = self._hub.readings.earlier(topic, before, limit)
        self._check_plain(topic, page)
        return envelope.history(ref, page.epoch, page.seq, page.messages)

    @request("who")
    def _who(
        self,
        ref: int,
        room: Name,
        after: User | None = None,
        limit: Count | None = None,
    ) -> str:
        """Ask who is in a room."""
        self._check_joined(room)
        topic, loop = room_topic(room), self.ws._transport.loop
        presence = self._hub.presence
        if topic in presence.quiet:
            raise RequestError("forbidden", "nobody is told who is in this room")
        presence.rosters.know(loop, topic, self.max_present, now=True)
        page = loop.call(presence.rosters.page, topic, after, limit)
        if not self.plain_rooms:
            # We may be put out of it just now.
            found = self._hub.backend.history(topic, limit=1, growing=False)
            self._check_plain(topic, found)
        return envelope.who(ref, *page)

    @request("vote")
    def _vote(self, ref: int, poll: Name, choice: Name) -> str:
        """Vote, or change one's vote."""
        fields.check_name(poll, "poll", self.max_name)
        fields.check_name(choice, "choice", self.max_name)
        user, asked = self._user(), self._poll_of(poll)
        self._allow(self.can_vote, user, poll, choice)
        with _refusing():
            standing = asked.vote(user, choice)
        return envelope.reply(ref, **standing.as_fields())

    @request("poll")
    def _poll(self, ref: int, poll: Name) -> str:
        """Ask how a poll stands, and what can be voted for."""
        fields.check_name(poll, "poll", self.max_name)
        asked = self._poll_of(poll)
        with _refusing():
            standing = asked.tally(self.ws.user)
        return envelope.reply(
            ref, **standing.as_fields(), mine=standing.mine, options=asked.options
        )

    @request("stream")
    def _stream(self, ref: int, id: Mid, room: Name | None = None) -> None:
        """Ask how a growing message stands."""
        topic, ws = self._place(room), self.ws
        self._growing(topic, id)

        def answer() -> bool:
            # In the loop: the next piece that is sent follows this one.
            grown = self._hub.feeds.growing.get(topic, id)
            if grown is not None:
                ws._answer(envelope.standing(ref, topic, grown))
            return grown is not None

        if not ws._transport.loop.call(answer):
            raise RequestError("unknown_stream", _NO_STREAM)

    @request("stop")
    def _stop(self, ref: int, id: Mid, room: Name | None = None) -> str:
        """Have a growing message end as it is."""
        topic = self._place(room)
        self._growing(topic, id)
        self._allow(self.can_stop, self.ws.user, room, id)
        try:
            self._hub.publish(topic, Message("", event=STOP, growth=Growth(id)))
        except StreamGone:
            raise RequestError("unknown_stream", _NO_STREAM) from None
        return envelope.reply(ref)

    # -- within

    def _attach(self, ws: WebSocket) -> None:
        self._hub.attach(ws, sharing=self.plain_rooms)

    def _place(self, room: str | None) -> str:
        """Return the topic in which something grows."""
        if room is None:
            return user_topic(self._user())
        self._check_joined(room)
        return room_topic(room)

    def _growing(self, topic: str, id: str) -> Grown:
        grown = self._hub.overdue.find(self.ws._transport.loop, topic, id)
        if grown is None:
            raise RequestError("unknown_stream", _NO_STREAM)
        return grown

    def _read(self, ref: int, topic: str, position: Position) -> bool:
        """Reply with a page of ``topic``, and go on from there.

        True: as far as can be seen, it is new.
        """
        ws, hub, count = self.ws, self._hub, 0
        noted = room_of(topic) is not None and topic not in hub.presence.quiet
        if noted:
            hub.presence.rosters.know(ws._transport.loop, topic, self.max_present)

        def answer(page: View) -> str:
            nonlocal count
            self._check_plain(topic, page)
            people = ""
            if noted:  # and what is told of them from now on comes after it
                people, count = hub.presence.rosters.answer(topic)
            return envelope.read(
                ref, page.body, hub.feeds.growing.standing(topic), people
            )

        page = hub.readings.read(ws, topic, position, self.max_page, answer)
        if page is None:  # by the claim of a plain connection, or by the application
            raise RequestError("forbidden", "you were put out of the room meanwhile")
        return not page.seq and count <= (ws.user is not None)

    def _store(
        self, name: str, topic: str, message: Message, size: int, ref: int, step: Step
    ) -> None:
        """Have ``message`` stored; the reply is what ``step`` makes of the outcome."""
        answers = self._answers
        assert answers is not None
        answer = Answer(answers, ref, step, name)
        if self._last is None or self._follows(self._last, topic, message):
            self._submit(topic, message, answer)
        else:
            answer(OutOfOrder())
        answers.put(answer, size)

    def _submit(self, topic: str, message: Message, answer: Answer) -> None:
        try:
            self._hub.submit(topic, message, answer, keep=True)
        except Exception as error:
            answer(error)

    def _stored(self, answer: Answer, outcome: Outcome) -> str:
        if isinstance(outcome, Receipt):
            return envelope.stored(answer.ref, outcome.seq, outcome.at)
        if self._last is not None and not isinstance(outcome, OutOfOrder):
            self._last.clear()
        return self._failure(answer.ws, answer.ref, outcome, answer.name)

    def _check_mids(self, mid: Mid, prev: Mid | None) -> None:
        fields.check_name(mid, "mid", self.max_mid)
        if prev is not None:
            fields.check_name(prev, "prev", self.max_mid)

    def _follows(
        self, last: dict[str, str | None], topic: str, message: Message
    ) -> bool:
        """Whether ``message`` may follow the ``last`` of this connection: where nothing
        is kept, no storage knows. See docs/decisions/55."""
        if message.prev is not None and last.get(topic) != message.prev:
            return False
        if len(last) >= self.max_rooms:
            last.clear()  # who follows one of them comes again, and without it
        last[topic] = message.mid
        return True

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

    def _check_plain(self, topic: str, page: Page | View) -> None:
        """Raise ``RequestError`` where this chat and plain connections would meet."""
        claimed = page.plain or self._hub.members.has_plain(topic)
        if claimed and not self.plain_rooms:
            raise RequestError("forbidden", _APART)

    def _ask_settled(self, hook: Callable[..., Any], *args: Any) -> None:
        """Do as ``_ask`` once all is stored that was said before: a hook may look."""
        assert self._answers is not None
        self._answers.settle()
        self._allow(hook, *args)

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

    def _user(self) -> str:
        if self.ws.user is None:
            raise RequestError("unauthorized", _NOBODY)
        return self.ws.user

    def _check_joined(self, room: str) -> None:
        if room not in (self.ws._rooms or ()):
            fields.check_name(room, "room", self.max_name)
            raise RequestError("not_joined", NOT_JOINED)

    def _poll_of(self, name: str) -> Poll:
        with _refusing():
            poll = self._chat.find_poll(name)
        if poll.room is not None and poll.room not in (self.ws._rooms or ()):
            raise RequestError(
                "not_joined", "it is the poll of a room: join that first"
            )
        return poll


_NOBODY = "this needs a user id, and you have none"
_REFUSALS: dict[type[PollError], envelope.ErrorCode] = {
    UnknownPoll: "unknown_poll",
    UnknownChoice: "unknown_choice",
    PollClosed: "poll_closed",
}
_NO_STREAM = "no such message grows there, or not any more"
_APART = "the room is kept for other connections"


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Refuse the request where a poll does."""
    try:
        yield
    except PollError as error:
        raise RequestError(_REFUSALS[type(error)], str(error)) from None


def _position(after: int | None, epoch: str | None, tag: str | None) -> Position:
    """Return the last number that a client has, whose it is, and its tag."""
    words = fields.check_word(epoch, "epoch"), fields.check_word(tag, "tag")
    return Position(after, *words)
