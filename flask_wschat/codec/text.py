"""Text messages: UTF-8, checked as it comes (RFC 6455 §8.1)."""

from __future__ import annotations

import codecs
import io

from ..errors import InvalidPayload

_Utf8 = codecs.getincrementaldecoder("utf-8")
_NOT_UTF8 = "text is not UTF-8 (RFC 6455 §8.1)"


class Text:
    """What ``io.BytesIO`` is to a binary message: takes UTF-8, gives a ``str``.

    It is checked as it comes and kept as it came: a ``str`` may take four times that.

    :raises InvalidPayload: at the first byte that no text can have there (§8.1).
    """

    __slots__ = ("_data", "_decoder")

    def __init__(self) -> None:
        self._decoder = _Utf8()
        self._data = io.BytesIO()

    def write(self, data: bytes) -> None:
        self._decode(data, False)
        self._data.write(data)
        pending = self._decoder.getstate()[0]
        if len(pending) == 2 and pending[0] == 0xED and pending[1] >= 0xA0:
            # CPython waits for the third byte of a surrogate, which no byte can mend.
            raise InvalidPayload(_NOT_UTF8)

    def getvalue(self) -> str:
        self._decode(b"", True)  # nothing may be pending
        return self._data.getvalue().decode()

    def _decode(self, data: bytes, final: bool) -> None:
        try:
            self._decoder.decode(data, final)
        except UnicodeDecodeError:
            raise InvalidPayload(_NOT_UTF8) from None


def decode(payload: bytes) -> str:
    """Return the text of a whole message.

    :raises InvalidPayload: it is not UTF-8.
    """
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise InvalidPayload(_NOT_UTF8) from None
