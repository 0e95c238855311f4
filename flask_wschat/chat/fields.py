"""What a client asks, as ``docs/protocol.md`` has it: read, and of its fields checked
what no type hint can say.

Each function raises ``RequestError`` for what cannot be read.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import msgspec
from msgspec import Meta

from ..envelope import ErrorCode, encode, quote
from ..messages import LONGEST_NAME, is_printable, size_of

MAX_INTEGER = (1 << 53) - 1
"""The highest integer; a number that JavaScript can tell from the next."""

MAX_DEPTH = 200
"""Lists and objects within each other in what is said. Who reads it has a stack that is
full sooner or later, of Python's or another language; so it is not kept."""

Request = dict[str, Any]

# What fields of the protocol's own are; a title names the definition in the schema that
# all of one type share. How long a name may be, and what stands in it, is for the class
# that asks.
Name = Annotated[
    str,
    Meta(
        title="name",
        description="A room, a user to write to, a poll or a choice: printable, without"
        " space at either end. The length limit is limits.name.",
        min_length=1,
        extra_json_schema={"maxLength": 100},
    ),
]
Mid = Annotated[
    str,
    Meta(
        title="mid",
        description="The sender's id of a message. The length limit is limits.mid.",
        min_length=1,
        extra_json_schema={"maxLength": 64},
    ),
]
User = Annotated[
    str,
    Meta(
        title="user",
        description="A user id, as the server's application knows it.",
        max_length=LONGEST_NAME,
        extra_json_schema={"minLength": 1},
    ),
]
Seq = Annotated[
    int,
    Meta(
        title="seq",
        description="A message's number: 1, 2, 3 and so on in each room and each"
        " inbox.",
        ge=0,
        le=MAX_INTEGER,
    ),
]
Count = Annotated[int, Meta(ge=1, le=MAX_INTEGER)]
Epoch = Annotated[
    str,
    Meta(
        title="epoch",
        description="Whose numbers they are; opaque.",
        min_length=1,
        max_length=100,
    ),
]
Tag = Annotated[
    str,
    Meta(
        title="tag",
        description="Tells a message from another one with its number; empty: unknown.",
        max_length=100,
    ),
]
Data = Annotated[Any, Meta(title="data", description="Any JSON value.")]


class RequestError(Exception):
    """A request that is answered with an error; ``code`` as the protocol has it.

    ``wait``: seconds until it is over no limit; 0: it is over none.
    """

    def __init__(self, code: ErrorCode, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.wait = wait


class Strange(dict[str, Any]):
    """A request that can be read, but not be said in JSON again."""

    why = "there is half a surrogate pair, or a number over what a float holds"


def parse(message: str | bytes) -> Request:
    """Return the request in ``message``, its fields yet unchecked."""
    if isinstance(message, bytes):
        raise RequestError("bad_json", "binary messages are not understood")
    try:
        if len(message) > 308 and _LONG_NUMBER.search(message):
            request = _read_again(message)
        else:
            request = _decode(message)
    except msgspec.DecodeError:
        request = _read_again(message)
    except RecursionError:
        raise _too_deep() from None
    if not isinstance(request, dict):
        raise RequestError("bad_json", "this is not a JSON object")
    return request


def _read_again(message: str) -> Any:
    """Return what msgspec does not read, or not as other programs do."""
    try:
        value = _decode_again(message)
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        raise RequestError("bad_json", "this is not JSON") from None
    if not isinstance(value, dict):
        return value
    try:
        encode(value).encode()
    except (ValueError, RecursionError):
        return Strange(value)
    return value


def _too_deep() -> RequestError:
    return RequestError("bad_request", "this is nested too deeply")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int | float:
    # One that JavaScript's numbers cannot hold is to it what 1e999 is: an infinity.
    return int(digits) if len(digits) < 309 else float(digits)


_decode: Callable[[str], Any] = msgspec.json.Decoder().decode
_decode_again = json.JSONDecoder(parse_constant=_no_constant, parse_int=_integer).decode
# From where digits begin only, or a row of 308 would be gone over 308 times.
_LONG_NUMBER = re.compile(r"(?<![0-9])[0-9]{309}")


def check_depth(request: Request, size: int) -> None:
    """Raise ``RequestError`` where ``request``, of ``size`` characters, is so deep that
    who reads it might not be able to say it again."""
    # Each list or object within another takes two characters.
    if size > 2 * MAX_DEPTH and _depth_is_over(request, MAX_DEPTH + 1):
        raise RequestError("bad_request", f"a field is nested over {MAX_DEPTH} deep")


def ref(request: Request) -> int | None:
    """Return what the reply is to name; None: there is none that can be used."""
    ref = request.get("ref")
    return ref if type(ref) is int and 0 <= ref <= MAX_INTEGER else None


def check_name(name: str, field: str, most: int) -> str:
    """Return a field that is a name of up to ``most`` characters."""
    if not 1 <= len(name) <= most:
        what = f"{field}: expected 1 to {most} characters"
        raise RequestError("bad_request", what)
    if not is_printable(name) or name != name.strip():
        what = f"{field}: expected printable text, without space around it"
        raise RequestError("bad_request", what)
    return name


def check_new_room(room: str, most: int) -> str:
    """Return the name of a room that may be a new one."""
    check_name(room, "room", most)
    if not unicodedata.is_normalized("NFC", room):
        raise RequestError("bad_request", "room: expected Unicode's normal form NFC")
    return room


def check_word(word: str | None, field: str) -> str | None:
    """Return a field that a client has from us."""
    if word and not word.isprintable():
        raise RequestError("bad_request", f"{field}: expected text as it was given")
    return word or None


def said(data: Any, most: int) -> tuple[str, int]:
    """Return ``data`` as JSON, and how many bytes that has."""
    try:
        text = quote(data) if type(data) is str else encode(data)
        size = size_of(text)
    except RecursionError:
        raise _too_deep() from None
    # With few brackets, as nearly always, that is enough.
    if (
        type(data) is not str
        and text.count("[") + text.count("{") > MAX_DEPTH
        and _depth_is_over(data, MAX_DEPTH)
    ):
        raise RequestError("bad_request", f"data: nested over {MAX_DEPTH} deep")
    if size > most:
        raise RequestError("too_big", f"data has {size} bytes, over {most}")
    return text, size


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
