"""Group chat as tutorials for gevent-websocket write it, plus `WSChat(app)`.

Sockets in a global list from which nothing is ever removed, bare `except: continue`,
and a loop that does not end with the connection: the very pattern that stops the whole
server, if `receive()` on a closed socket returns without letting others run.
"""
# ruff: noqa: E722

from typing import Any

from flask import Flask, request

from flask_wschat import WSChat
from tests.tutorials.serving import serve

app = Flask(__name__)
WSChat(app)

user_socket_list: list[Any] = []


@app.route("/")
def index() -> str:
    return f"{len(user_socket_list)} sockets so far"


@app.route("/ws")
def ws() -> str:
    user_socket = request.environ.get("wsgi.websocket")
    if not user_socket:
        return "This address wants a WebSocket."
    user_socket_list.append(user_socket)
    while True:
        try:
            msg = user_socket.receive()
            for u in user_socket_list:
                try:
                    u.send(msg)
                except:
                    continue
        except:
            continue


if __name__ == "__main__":
    serve(app)
