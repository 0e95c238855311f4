"""Accepting in a process that has no descriptor, or no memory, for one more.

See docs/decisions/33.
"""

from __future__ import annotations

import errno
import logging

from greenlet import GreenletExit

from ..logs import SparingLog

_NOTHING_LEFT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_log = SparingLog(logging.getLogger("flask_wschat"))


class NothingLeft(GreenletExit):
    """No connection can be accepted for now.

    gevent's server (23.9 to 26.9) stops accepting for a while when ``do_read`` raises
    anything: without that the listening socket, which stays readable, would have the
    loop for itself. It prints a traceback each time, but of a ``GreenletExit``.
    """


def or_nothing_left(error: OSError) -> BaseException:
    """Return what an accept that failed with ``error`` is to raise."""
    if error.errno not in _NOTHING_LEFT:
        return error
    _log.warning(
        "accept",
        "no connection can be accepted now: %s. Clients wait until others have gone."
        " See ulimit -n; WSCHAT_MAX_CONNECTIONS refuses before that",
        error.strerror,
    )
    return NothingLeft()
