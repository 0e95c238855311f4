"""A WebSocket server on the codec alone: a plain socket, a thread for each client.

    python docs/standalone_server.py [PORT]

It answers each message with "server got: ..."; neither Flask nor gevent is at work.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading

from flask_wschat.codec import (
    Closed,
    Connection,
    State,
    accept_headers,
    check_request,
    negotiate,
    read_head,
    response,
)
from flask_wschat.errors import HandshakeError


def serve(client: socket.socket) -> None:
    """Serve one client to its end."""
    with client, contextlib.suppress(OSError):  # it may be gone at any time
        client.settimeout(60)  # seconds of silence, also within the handshake
        try:
            connection, data = shake_hands(client)
        except HandshakeError as error:
            client.sendall(response(error.status, error.headers, f"{error}\n"))
            return
        while True:
            # Fragments are joined, pings answered and texts checked in here; what the
            # client does wrong comes out as Closed.
            for event in connection.receive_data(data):
                if isinstance(event, Closed):
                    print(f"closed: {event.code} {event.reason}", flush=True)
                elif connection.state is not State.OPEN:
                    pass  # its close frame came along with this: no answer is awaited
                elif isinstance(event, str):
                    client.sendall(connection.send(f"server got: {event}"))
                elif type(event) is bytes:
                    client.sendall(connection.send(b"server got: " + event))
            client.sendall(connection.data_to_send())
            if connection.state is State.CLOSED or not (data := client.recv(65536)):
                return  # no data: it went away without a word


def shake_hands(client: socket.socket) -> tuple[Connection, bytes]:
    """Answer the client's request; return its connection and what came after."""
    data = b""
    while (found := read_head(data)) is None:
        if not (part := client.recv(65536)):
            raise HandshakeError(400, "the request is incomplete")
        data += part
    head, size = found
    method, _, version = head.start
    key = check_request(method, version, head.headers)
    agreed = negotiate(head.get_all("sec-websocket-extensions"))
    deflate, extension = agreed or (None, None)
    client.sendall(response(101, accept_headers(key, extension=extension)))
    return Connection(deflate=deflate), data[size:]


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8765
    with socket.create_server(("127.0.0.1", port)) as server:
        print(f"serving on ws://127.0.0.1:{server.getsockname()[1]}", flush=True)
        while True:
            threading.Thread(
                target=serve, args=server.accept()[:1], daemon=True
            ).start()
