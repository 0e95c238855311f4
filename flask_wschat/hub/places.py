"""``Places``: how many connections there may be in all, of a user, from an address.

See docs/decisions/32.
"""

from __future__ import annotations

import ipaddress
import re

from ..settings import Settings
from ..transports.patched import RLock

Key = tuple[str, str]
"""A setting's name, and whom it limits here: a user, an address, or ""."""

_WITH_PORT = re.compile(r"(?:(?P<v4>[0-9.]+)|\[(?P<v6>[^\]]+)\]):[0-9]+\Z")
_SIXTY_FOUR = 64
"""Bits of an IPv6 address that a customer of a network has at least for one place; the
rest is theirs to choose anew for each connection (RFC 6177, RFC 8981)."""


class Places:
    """What of these limits is taken, by openings and by connections.

    An opening takes its places before anything that may wait, and hands them over to
    its connection; whoever has them last gives them back. To do so again does nothing.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._taken: dict[Key, int] = {}
        self._held: dict[object, list[Key]] = {}

    def take(self, holder: object, key: Key, limit: int) -> bool:
        """Take one of ``limit`` places of ``key``; False: others have them all."""
        with self._lock:
            taken = self._taken.get(key, 0)
            held = self._held.get(holder, ())
            if key in held:
                return True
            if taken >= limit:
                return False
            self._taken[key] = taken + 1
            self._held[holder] = [*held, key]
            return True

    def hand_over(self, holder: object, to: object) -> None:
        """Let ``to`` hold what ``holder`` does."""
        with self._lock:
            if keys := self._held.pop(holder, None):
                self._held[to] = keys

    def give_back(self, holder: object) -> None:
        """Let others have what ``holder`` holds."""
        with self._lock:
            for key in self._held.pop(holder, ()):
                self._taken[key] -= 1
                if not self._taken[key]:
                    del self._taken[key]


def places_for(settings: Settings) -> Places | None:
    """Return what counts for ``settings``; None: there is no limit."""
    limits = (
        settings.MAX_CONNECTIONS,
        settings.MAX_CONNECTIONS_PER_USER,
        settings.MAX_CONNECTIONS_PER_ADDRESS,
    )
    return None if limits == (None, None, None) else Places()


def network_of(address: str) -> str:
    """Return whom ``address`` counts for: an IPv4 host, or an IPv6 network.

    What a proxy makes of an address that is none counts as it stands. Some write the
    client's port behind it, which is another one for each connection.
    """
    if with_port := _WITH_PORT.match(address):
        address = with_port.group("v4") or with_port.group("v6")
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4:
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    prefix = int(found) >> (128 - _SIXTY_FOUR) << (128 - _SIXTY_FOUR)
    return f"{ipaddress.IPv6Address(prefix)}/{_SIXTY_FOUR}"
