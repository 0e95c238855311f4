"""What a client asks, as ``docs/protocol.md`` has it: read, and checked field by field.

Each function raises ``RequestError`` for what cannot be read.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec

from ..envelope import ErrorCode, encode, quote
from ..messages import LONGEST_NAME, is_printable, size_of

MAX_INTEGER = (1 << 53) - 1
"""The highest integer; a number that JavaScript can tell from the next."""

MAX_DEPTH = 200
"""Lists and objects within each other in what is said. Who reads it has a stack that is
full sooner or later, of Python's or another language; so it is not kept."""

Request = dict[str, Any]


class RequestError(Exception):
    """A request that is answered with an error; ``code`` as the protocol has it.

    ``wait``: seconds until it is over no limit; 0: it is over none.
    """

    def __init__(self, code: ErrorCode, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.wait = wait


class Strange(dict[str, Any]):
    """A request with half a surrogate pair, or a number over what a float holds."""


def parse(message: str | bytes) -> Request:
    """Return the request in ``message``, its fields yet unchecked."""
    if isinstance(message, bytes):
        raise RequestError("bad_json", "binary messages are not understood")
    try:
        if len(message) > 308 and _LONG_NUMBER.search(message):
            request = _read_strange(message)
        else:
            request = _decode(message)
    except msgspec.DecodeError:
        request = _read_strange(message)
    except RecursionError:
        raise _too_deep() from None
    if not isinstance(request, dict):
        raise RequestError("bad_json", "this is not a JSON object")
    return request


def _read_strange(message: str) -> Any:
    """Return what msgspec does not read, but others would."""
    try:
        value = _decode_strange(message)
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        raise RequestError("bad_json", "this is not JSON") from None
    return Strange(value) if isinstance(value, dict) else value


def _too_deep() -> RequestError:
    return RequestError("bad_request", "this is nested too deeply")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int | float:
    # One that JavaScript's numbers cannot hold is to it what 1e999 is: an infinity.
    return int(digits) if len(digits) < 309 else float(digits)


_decode: Callable[[str], Any] = msgspec.json.Decoder().decode
_decode_strange = json.JSONDecoder(
    parse_constant=_no_constant, parse_int=_integer
).decode
# From where digits begin only, or a row of 308 would be gone over 308 times.
_LONG_NUMBER = re.compile(r"(?<![0-9])[0-9]{309}")


def check_plain(request: Request, size: int) -> None:
    """Raise ``RequestError`` where ``request``, of ``size`` characters, has what its
    reader could not say again."""
    if type(request) is Strange:
        raise RequestError(
            "bad_request",
            "there is half a surrogate pair, or a number over what a float holds",
        )
    # Each list or object within another takes two characters.
    if size > 2 * MAX_DEPTH and _depth_is_over(request, MAX_DEPTH + 1):
        raise RequestError("bad_request", f"a field is nested over {MAX_DEPTH} deep")


def ref(request: Request) -> int | None:
    """Return what the reply is to name; None: there is none that can be used."""
    ref = request.get("ref")
    return ref if type(ref) is int and 0 <= ref <= MAX_INTEGER else None


def name(request: Request, field: str, most: int) -> str:
    """Return a field that is a name of up to ``most`` characters."""
    name = request.get(field)
    if not isinstance(name, str) or not 1 <= len(name) <= most:
        what = f"{field} must be a text of 1 to {most} characters"
        raise RequestError("bad_request", what)
    if not is_printable(name) or name != name.strip():
        what = f"{field} must be printable, without space around it"
        raise RequestError("bad_request", what)
    return name


def new_room(request: Request, most: int) -> str:
    """Return the name of a room that may be a new one."""
    room = name(request, "room", most)
    if not unicodedata.is_normalized("NFC", room):
        raise RequestError("bad_request", "room must be in Unicode's normal form NFC")
    return room


def integer(request: Request, field: str, least: int) -> int | None:
    """Return a field that is an integer from ``least``; None: it is left out."""
    if field not in request:
        return None
    value = request[field]
    if type(value) is not int or not least <= value <= MAX_INTEGER:
        raise RequestError("bad_request", f"{field} must be an integer from {least}")
    return value


def user(request: Request, field: str) -> str | None:
    """Return a field that is a user's id, as it was given; None: it is left out."""
    user = request.get(field)
    if field in request and not (isinstance(user, str) and len(user) <= LONGEST_NAME):
        raise RequestError("bad_request", f"{field} must be a user's id")
    return user


def position(request: Request) -> tuple[int | None, str | None, str | None]:
    """Return the last number that the client has, whose it is, and its tag."""
    epoch = _word(request, "epoch", 1)
    return integer(request, "after", 0), epoch, _word(request, "tag", 0) or None


def _word(request: Request, field: str, least: int) -> str | None:
    if field not in request:
        return None
    word = request[field]
    if isinstance(word, str) and least <= len(word) <= 100 and word.isprintable():
        return word
    raise RequestError("bad_request", f"{field} must be a text, as it was given")


def said(request: Request, most_data: int, most_mid: int) -> tuple[Any, str, int, str]:
    """Return a message's data, the same as JSON, the bytes of that, and its id."""
    if "data" not in request:
        raise RequestError("bad_request", "data is missing")
    mid = name(request, "mid", most_mid)
    data = request["data"]
    try:
        text = quote(data) if type(data) is str else encode(data)
        size = size_of(text)
    except (ValueError, RecursionError):
        # A number over what a float holds, half a surrogate pair, depth.
        raise RequestError("bad_request", "data cannot be said in JSON again") from None
    # With few brackets, as nearly always, that is enough.
    if (
        type(data) is not str
        and text.count("[") + text.count("{") > MAX_DEPTH
        and _depth_is_over(data, MAX_DEPTH)
    ):
        raise RequestError("bad_request", f"data is nested over {MAX_DEPTH} deep")
    if size > most_data:
        raise RequestError("too_big", f"data has {size} bytes, over {most_data}")
    return data, text, size, mid


def _depth_is_over(data: Any, most: int) -> bool:
    """Whether there are over ``most`` lists and objects within each other."""
    level = [data]
    for _ in range(most):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += value.values()
            elif isinstance(value, list):
                inner += value
        level = [value for value in inner if isinstance(value, dict | list)]
        if not level:
            return False
    return True
