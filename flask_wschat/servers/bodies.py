"""Request bodies, for a server that is read by whoever likes: bounded in every way.

pywsgi's own waits for the client for ever, takes a body that is never read for the next
request where one asks to upgrade, and makes room at once for whatever length is told.

See docs/decisions/27.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent
from werkzeug.exceptions import BadRequest, HTTPException, RequestTimeout

from ..codec.handshake import MAX_LINES, parse_field
from ..errors import HandshakeError
from ..transports.loop import EventedLoop

PATIENCE = 20.0
"""Seconds that a client may be silent, or behind ``RATE``, in the middle of a body."""
RATE = 500
"""Bytes a second that a client sends at least."""
LINGER = 10.0
"""Seconds to read what the application did not, before the connection is closed."""
MAX_LINE = 4096
"""Bytes of a chunk's first line, and of a trailer."""
MAX_EXTRA = 16 * 1024
"""Bytes of a body's chunk extensions and trailers (RFC 9112 §7.1.1 wants a limit)."""

_PIECE = 1 << 18
_WAIT_COST = 1024  # counted for each read besides its bytes, so that tiny ones end
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
# RFC 9112 §7.1: more digits than these are no size that a body could have.
_CHUNK = re.compile(
    rb"([0-9A-Fa-f]{1,16})"
    rb"(?:[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?)*\r\n" % (_TOKEN, _TOKEN, _QUOTED)
)
_NO_TRAILERS = {
    "authorization",
    "content-length",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
}
"""What says how to read a message may not come behind it (RFC 9110 §6.5.1)."""


class Body(io.RawIOBase):
    """A body of ``length`` bytes, or None: in chunks, read from a connection's reader.

    ``ask`` is called before the first read: it tells the client to go on. ``ended``: it
    was read to its end, so that the next request may be.

    It raises what Flask answers with a 400, or a 408: the fault is the client's.
    """

    def __init__(
        self,
        reader: io.BufferedReader,
        length: int | None,
        ask: Callable[[], Any] | None = None,
    ) -> None:
        self.ended = False
        self.ask = ask
        self.failed = False
        self._reader = reader
        self._chunked = length is None
        self._left = length or 0  # of the body, or of the chunk
        self._extra = 0
        self._patience = PATIENCE
        self._turn = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.ended:
            return 0
        if self.failed:
            raise BadRequest("the body cannot be read any more")
        if self.ask is not None:
            ask, self.ask = self.ask, None
            ask()
        if self._left == 0:
            self._begin_chunk()
            if self.ended:
                return 0
        room = memoryview(buffer)[: self._left]
        size: int = self._wait(self._reader.readinto1, room)
        if not size:
            raise self._fault("the body ends too soon")
        self._left -= size
        if self._left == 0:
            if not self._chunked:
                self.ended = True
            elif self._wait(self._reader.read, 2) != b"\r\n":
                raise self._fault("a chunk does not end where it should")
        return size

    def _begin_chunk(self) -> None:
        line = self._line()
        found = _CHUNK.fullmatch(line)
        if found is None:
            raise self._fault("a chunk's size is malformed (RFC 9112 §7.1)")
        self._left = int(found[1], 16)
        self._count_extra(len(line) - len(found[1]) - 2)
        if self._left == 0:
            self._read_trailers()

    def _read_trailers(self) -> None:
        for _ in range(MAX_LINES):
            line = self._line()
            if line == b"\r\n":
                self.ended = True
                return
            self._count_extra(len(line))
            try:
                name, _ = parse_field(line[:-2].decode("latin-1"))
            except HandshakeError as error:
                raise self._fault(str(error)) from None
            if name in _NO_TRAILERS:
                raise self._fault(f"{name} may not come behind the body")
        raise self._fault("too many trailers")

    def _line(self) -> bytes:
        line: bytes = self._wait(self._reader.readline, MAX_LINE)
        if not line.endswith(b"\r\n"):
            raise self._fault("a line of the body is too long, or has no CR LF")
        return line

    def _count_extra(self, size: int) -> None:
        self._extra += size
        if self._extra > MAX_EXTRA:
            raise self._fault("too much besides the body's data")

    def _wait(self, read: Callable[[Any], Any], argument: Any) -> Any:
        """Return what ``read(argument)`` does, in the time that the client has left."""
        begun = monotonic()
        got = None
        with gevent.Timeout(self._patience, False):  # type: ignore[arg-type]
            got = read(argument)
        if got is None:
            self._fault("")
            raise RequestTimeout("the request's body came too slowly")
        size = got if isinstance(got, int) else len(got)
        earned = size / RATE - (monotonic() - begun)
        self._patience = min(self._patience + earned, PATIENCE)
        # A client that is fast enough would keep the loop for himself.
        self._turn += size + _WAIT_COST
        if self._turn > _PIECE:
            self._turn = 0
            EventedLoop.current().give_turn()
        return got

    def _fault(self, message: str) -> HTTPException:
        self.failed = True
        return BadRequest(message)

    def _discard(self) -> None:
        """Read the rest: what the application left is not the next request."""
        if self.ask is not None:
            return  # the client was not told to send it
        scratch = memoryview(bytearray(_PIECE))
        with gevent.Timeout(LINGER, False):  # type: ignore[arg-type]
            while not self.failed and self.readinto(scratch):
                pass


class Stream(io.BufferedReader):
    """What the application reads a ``Body`` from."""

    def read(self, size: int | None = -1, /) -> bytes:
        """As its parent, which makes room for ``size`` bytes before it has any."""
        left = sys.maxsize if size is None or size < 0 else size
        if left <= _PIECE:
            return super().read(left)
        pieces = []
        while left > 0 and (piece := super().read(min(left, _PIECE))):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)
