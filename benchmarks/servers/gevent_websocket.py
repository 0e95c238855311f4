"""Stock gevent-websocket with the classic patterns, as plain WSGI.

No Flask: per message it has nothing to do, and a bare application is the best case.
`/echo` sends back, `/fan` sends each message to every connection.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from geventwebsocket.exceptions import WebSocketError
from geventwebsocket.handler import WebSocketHandler

from benchmarks.servers.serving import serve

members: set[Any] = set()


def echo(ws: Any) -> None:
    while (message := ws.receive()) is not None:
        ws.send(message)


def fan(ws: Any) -> None:
    members.add(ws)
    try:
        while (message := ws.receive()) is not None:
            for member in list(members):
                try:
                    member.send(message)
                except WebSocketError:
                    members.discard(member)
    finally:
        members.discard(ws)


def application(
    environ: dict[str, Any], start_response: Callable[..., Any]
) -> Iterable[bytes]:
    ws = environ["wsgi.websocket"]
    view = fan if environ["PATH_INFO"] == "/fan" else echo
    with suppress(WebSocketError):  # how it says that the peer is gone
        view(ws)
    return []


if __name__ == "__main__":
    serve(application, WebSocketHandler)
