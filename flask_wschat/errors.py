"""Every error this package raises.

WSChatError
├── ConfigError            a WSCHAT_* key has an impossible value
├── HandshakeError         the opening handshake is refused (HTTP status)
├── ConnectionClosed       send() or receive() on a closed connection
├── BackendError           what server processes share has failed
├── ShareTaken             a user has told another much who does not answer
├── OutOfOrder             what was said before it is not stored
├── StreamError            a growing message cannot go on
│   ├── StreamStopped      somebody has stopped it
│   ├── StreamGone         it is open no more, or never was
│   └── TooManyStreams     as many grow in this room or inbox as may
├── PollError              a poll cannot be had so, or a vote does not count; .poll
│   ├── UnknownPoll        there is none of this name, or not any more
│   ├── TooManyPolls       as many are stored as may
│   ├── UnknownChoice      for something the poll does not offer
│   └── PollClosed         after the end of the poll
└── ProtocolError          the peer broke RFC 6455 (close code 1002)
    ├── InvalidPayload     text that is not UTF-8, data that does not inflate (1007)
    └── MessageTooBig      a message over WSCHAT_MAX_MESSAGE bytes (1009)
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Coroutine, Generator, Sequence
from typing import Any


class WSChatError(Exception):
    """Root of every error this package raises."""


class ConfigError(WSChatError):
    """A ``WSCHAT_*`` key has a value that cannot work; the message names both."""


class HandshakeError(WSChatError):
    """The opening handshake cannot succeed; answer it with HTTP ``status``.

    ``headers`` are (name, value) pairs that the refusal carries (RFC 6455 §4.2.2).
    """

    def __init__(
        self, status: int, message: str, headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = list(headers)


class ConnectionClosed(WSChatError):
    """``send()`` or ``receive()`` on a connection that has ended."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"connection closed: {code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class BackendError(WSChatError):
    """The backend cannot be reached, or refused.

    Whether the step was done may be unknown: of an answer that comes too late nobody
    hears. A message with a ``mid`` can be tried again without being stored twice.
    """


class ShareTaken(WSChatError):
    """A user has filled as much of another's inbox as one may who gets no answer: see
    ``WSCHAT_INBOX_SHARE``. Nothing was stored or sent."""


class OutOfOrder(WSChatError):
    """The message that its sender said right before this one is not stored, so this one
    was not stored either: they would change places. See docs/decisions/55."""

    def __init__(self) -> None:
        super().__init__("what was said before it is not stored: repeat that first")


class StreamError(WSChatError):
    """A growing message cannot begin, or go on."""


class StreamStopped(StreamError):
    """Somebody has stopped it; in a ``with`` of it, it ends by this quietly."""


class StreamGone(StreamError):
    """It is open no more, or never was: its writer was taken for dead, or the storage
    has forgotten it."""


class TooManyStreams(StreamError):
    """As many messages grow in this room or inbox as may."""


class PollError(WSChatError):
    """There is no such ``poll``, or a vote in it does not count: the voter's earlier
    one still does."""

    def __init__(self, poll: str, message: str) -> None:
        super().__init__(message)
        self.poll = poll


class UnknownPoll(PollError):
    """There is none of this name: never made, deleted, or its time is over."""

    def __init__(self, poll: str) -> None:
        super().__init__(poll, f"there is no poll {poll!r}, or not any more")


class TooManyPolls(PollError):
    """As many polls are stored as may; nothing was made."""

    def __init__(self, poll: str, most: int) -> None:
        super().__init__(
            poll,
            f"{most} polls are stored, as many as may: delete some, or let them last"
            " for less long",
        )


class UnknownChoice(PollError):
    """``choice`` is none of the poll's options; the message names those."""

    def __init__(self, poll: str, choice: str, options: Sequence[str]) -> None:
        super().__init__(poll, f"{choice!r} is none of {', '.join(options)}")
        self.choice = choice


class PollClosed(PollError):
    """The poll has ended; ``reopen()`` begins it again."""

    def __init__(self, poll: str) -> None:
        super().__init__(poll, f"the poll {poll!r} is closed")


class ProtocolError(WSChatError):
    """The peer broke RFC 6455; the connection closes with ``close_code``."""

    close_code = 1002


class InvalidPayload(ProtocolError):
    """A text message is not UTF-8 (RFC 6455 §8.1), or data does not inflate."""

    close_code = 1007


class MessageTooBig(ProtocolError):
    """A message exceeds the limit in bytes, counted after inflating."""

    close_code = 1009


def check_runs(function: Any, name: str, instead: str = "return") -> None:
    """:raises TypeError: a call of ``function`` would do nothing by itself.

    ``instead``: what to write where it has a ``yield``.
    """
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{name} is async, and would never run: write def. What waits in it lets"
            " the others run, as each has a greenlet or a thread"
        )
    if inspect.isgeneratorfunction(function):
        raise TypeError(f"{name} has a yield, and would never run: use {instead}")


def check_ran(result: Any, function: Any) -> None:
    """:raises TypeError: a call of ``function`` did nothing: it only made ``result``.

    Behind a decorator, this is not seen when ``function`` is registered.
    """
    if isinstance(result, Coroutine | AsyncGenerator | Generator):
        if not isinstance(result, AsyncGenerator):
            result.close()  # or Python warns of it, too
        name = getattr(function, "__qualname__", repr(function))
        raise TypeError(f"{name} is async or has a yield, and did not run: write def")
